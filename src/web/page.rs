//! The page: static files in the binary, so that it works without internet and without a build step.
//!
//! Guarantees: a file that the browser already has is not sent again. Must not: allow inline scripts or styles, or
//! anything from elsewhere.

use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use xxhash_rust::xxh3::xxh3_64;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// (path, type, content)
pub(crate) const FILES: [(&str, &str, &str); 14] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/app.js", SCRIPT, include_str!("page/app.js")),
    ("/page/live.js", SCRIPT, include_str!("page/live.js")),
    ("/page/fleet.js", SCRIPT, include_str!("page/fleet.js")),
    ("/page/run.js", SCRIPT, include_str!("page/run.js")),
    ("/page/layer.js", SCRIPT, include_str!("page/layer.js")),
    ("/page/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/page/plot.js", SCRIPT, include_str!("page/plot.js")),
    ("/page/heat.js", SCRIPT, include_str!("page/heat.js")),
    ("/page/words.js", SCRIPT, include_str!("page/words.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/style.css", STYLE, include_str!("page/style.css")),
    ("/page/uPlot.js", SCRIPT, include_str!("page/vendor/uPlot.iife.min.js")),
    ("/page/uPlot.css", STYLE, include_str!("page/vendor/uPlot.min.css")),
];

pub(crate) fn file(kind: &'static str, content: &'static str, asked: &HeaderMap) -> Response {
    // A weak tag: the file is the same whether compressed or not.
    let tag = format!("W/\"{:016x}\"", xxh3_64(content.as_bytes()));
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"), // cached, but checked by its tag each time: a new version shows immediately
    ];
    let known = asked.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).is_some_and(|tags| tags.contains(&tag));
    if known {
        return (StatusCode::NOT_MODIFIED, headers, [(ETAG, tag)]).into_response();
    }
    (headers, [(ETAG, tag)], content).into_response()
}
