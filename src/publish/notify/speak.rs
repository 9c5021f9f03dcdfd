//! What all HTTP callers share: setting up the client, and printing addresses and errors.

use std::time::Duration;

use reqwest::{ClientBuilder, Url};

/// A client for calls to `url`; calls to this machine bypass the proxy.
pub(crate) fn caller(url: &Url, timeout: Duration) -> ClientBuilder {
    let client = reqwest::Client::builder().timeout(timeout).user_agent("fullrank");
    if is_loopback(url) { client.no_proxy() } else { client }
}

fn is_loopback(url: &Url) -> bool {
    // The URL parser has normalised every form of an address to these.
    let host = url.host_str().unwrap_or("");
    let address = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    host == "localhost" || host == "[::1]" || address && host.starts_with("127.")
}

/// Scheme, host and port: the address without anything that may be secret.
pub(crate) fn origin(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or(0);
    format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or("?"))
}

/// An error and its causes, in one line.
pub(crate) fn plain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
