//! The service as its own subcommands call it: JSON over HTTP.
//!
//! Guarantees: an error contains the request, the answer, and what to do. Must not: know what an answer means.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::publish::notify::{caller, plain};

/// How long an answer may take: a report may have to wait for an eigensolve of d = 8192.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client of one service.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// Query and body of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestParts {
    /// (name, value) pairs of the query.
    pub query: Vec<(String, String)>,
    /// Content type and body.
    pub body: Option<(&'static str, Bytes)>,
}

impl Client {
    /// A client of the service at `base`.
    pub fn new(base: Url, token: Option<String>) -> Result<Self, String> {
        let http = caller(&base, PATIENCE).build();
        Ok(Self { http: http.map_err(|error| plain(&error))?, base, token })
    }

    /// GETs a path, given as segments.
    ///
    /// # Errors
    /// The request, the answer, and what to do.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, String> {
        let query = query.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        let value = self.call(Method::GET, path, RequestParts { query, body: None }).await?;
        serde_json::from_value(value).map_err(|error| {
            format!("GET /{}: the answer is not from this version of fullrank: {error}", path.join("/"))
        })
    }

    /// Sends any request. Returns `Null` if the answer has no body, a string if it is not JSON.
    ///
    /// # Errors
    /// The request, the answer, and what to do.
    pub async fn call(&self, method: Method, path: &[&str], sent: RequestParts) -> Result<Value, String> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| format!("{}: give the address as http://host:port", self.base))?
            .pop_if_empty()
            .extend(path);
        let shown = format!("{method} {}", without_password(&url));
        let mut request = self.http.request(method, url).query(&sent.query);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some((kind, body)) = sent.body {
            request = request.header("content-type", kind).body(body);
        }
        let answer = request.send().await.map_err(|error| {
            format!("{shown}: {}; is `fullrank serve` running there? (--url)", plain(&error.without_url()))
        })?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{shown}: {}", plain(&error.without_url())))?;
        let value =
            if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
        if status.is_success() {
            return Ok(value);
        }
        match (value["code"].as_str(), value["detail"].as_str()) {
            (Some(code), Some(detail)) => Err(format!("{shown}: {} {code}: {detail}", status.as_u16())),
            _ => Err(format!("{shown}: {status}: that did not come from fullrank; does --url name the right port?")),
        }
    }
}

fn without_password(url: &Url) -> Url {
    let mut shown = url.clone();
    // Fails only if there is no host, and so no password.
    let _ = shown.set_username("").and_then(|()| shown.set_password(None));
    shown
}
