//! Access control: the token and the Host header, checked before anything else, on every path.
//!
//! Guarantees: livez and readyz are open; a web page elsewhere cannot reach a loopback service under a name of its own
//! (DNS rebinding), because names must be allowed. Must not: reveal which part of a credential was wrong.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Uri};
use subtle::ConstantTimeEq;

use crate::error::{Code, Refusal};

/// The token and the allowed host names.
#[derive(Clone)]
pub struct Access {
    token: Option<String>,
    hosts: Vec<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "hidden");
        f.debug_struct("Access").field("token", &token).field("hosts", &self.hosts).finish()
    }
}

impl Access {
    /// With a token, every request needs it; `hosts` are names allowed besides IP addresses and localhost.
    pub(crate) fn new(token: Option<String>, hosts: Vec<String>) -> Self {
        Self { token, hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// The token, for our own client.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        self.check_host(uri, headers)?;
        let Some(token) = &self.token else { return Ok(()) };
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(secret);
        if sent.is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(token.as_bytes()))) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Unauthenticated,
            "this service needs its token: send `Authorization: Bearer TOKEN`, or Basic with the token as password",
        ))
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let named = headers.get(HOST).and_then(|value| value.to_str().ok());
        let Some(authority) = uri.authority().map(http::uri::Authority::as_str).or(named) else {
            return Err(Refusal::new(Code::Forbidden, "the request has no Host header"));
        };
        let host = host_of(authority).to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
        if address || host == "localhost" || self.hosts.contains(&host) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Forbidden,
            format!(
                "the host name '{}' is not allowed: start the service with --allowed-host to allow it",
                host.escape_debug()
            ),
        ))
    }
}

/// Removes the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

fn secret(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_string());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        return decoded.split_once(':').map(|(_, password)| password.to_string());
    }
    None
}

pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        return next.run(request).await;
    }
    match access.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let grpc = request
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
            if grpc {
                return tonic::Status::from(refusal).into_http();
            }
            let unauthenticated = refusal.code == Code::Unauthenticated;
            let mut response = refusal.into_response();
            if unauthenticated {
                let challenge = HeaderValue::from_static("Basic realm=\"fullrank\", charset=\"UTF-8\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let access = Access::new(None, vec!["train.example".into()]);
        let allowed = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            access.check(&Uri::from_static("/"), &headers).is_ok()
        };
        for host in
            ["127.0.0.1:8417", "[::1]:8417", "[::1]", "localhost", "LOCALHOST:80", "10.0.0.7", "Train.Example:1"]
        {
            assert!(allowed(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8417", "127.0.0.1.evil.example", ":80"] {
            assert!(!allowed(host), "{host}");
        }
        assert!(access.check(&Uri::from_static("/"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn credentials() {
        assert_eq!(secret("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(secret("basic dXNlcjphYmM=").as_deref(), Some("abc"));
        assert_eq!(secret("Digest abc"), None);
    }
}
