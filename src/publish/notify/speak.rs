//! What every caller over HTTP shares: the client's beginnings, and how addresses and errors are said.

use std::time::Duration;

use reqwest::{ClientBuilder, Url};

/// A client for calls to `url`: no proxy leads to this machine itself.
pub fn caller(url: &Url, timeout: Duration) -> ClientBuilder {
    let client = reqwest::Client::builder().timeout(timeout).user_agent("fullrank");
    if is_loopback(url) { client.no_proxy() } else { client }
}

fn is_loopback(url: &Url) -> bool {
    // A URL's parser has written every form of an address as these.
    let host = url.host_str().unwrap_or("");
    let address = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    host == "localhost" || host == "[::1]" || address && host.starts_with("127.")
}

/// Scheme, host and port: an address without what may be secret.
pub fn origin(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or(0);
    format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or("?"))
}

/// An error with what caused it, in a line.
pub fn plain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
