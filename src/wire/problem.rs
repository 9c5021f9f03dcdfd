//! A refusal as problem+json (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Refusal;

/// RFC 9457, with a closed list of error codes.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument {
    r#type: String,
    title: &'static str,
    status: u16,
    /// The value, the limit and the remedy.
    detail: String,
    code: &'static str,
    /// The limit that was exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.code;
        let problem = ProblemDocument {
            r#type: format!("urn:fullrank:problem:{}", code.word()),
            title: code.title(),
            status: code.status(),
            detail: self.detail,
            code: code.word(),
            limit: self.limit,
        };
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = code.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
