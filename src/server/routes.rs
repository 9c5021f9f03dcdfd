//! The routes: which handler serves which path.

use std::time::Duration;

use ::http::HeaderMap;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::timeout::TimeoutBody;

use super::access::{Access, guard};
use super::monitor;
use crate::ingest::{Ingest, http};
use crate::web::{Site, api, events, gate, history, openapi, page, spectrum};

pub(crate) fn router(site: &Site, ingest: &Ingest, access: &Access, with_metrics: bool) -> Router {
    let push = Router::new()
        .route("/v1/runs/{run}/layers/{layer}/batches", post(http::push))
        // Unknown encodings are passed on, and the handler refuses them.
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        // The handler limits bodies itself, byte by byte.
        .layer(DefaultBodyLimit::disable())
        .with_state(ingest.clone());
    let mut read = Router::new()
        .route("/v1/events", get(events::events))
        .route("/v1/limits", get(api::limits))
        .route("/v1/runs", get(api::runs))
        .route("/v1/runs/{run}", get(api::run).delete(api::delete))
        .route("/v1/runs/{run}/verdict", get(gate::verdict))
        .route("/v1/runs/{run}/finish", post(api::finish))
        .route("/v1/runs/{run}/acknowledge", post(api::acknowledge))
        .route("/v1/runs/{run}/windows/{window}/close", post(api::close))
        .route("/v1/runs/{run}/layers/{layer}/reports", get(api::reports))
        .route("/v1/runs/{run}/layers/{layer}/spectrum", get(spectrum::spectrum))
        .route("/v1/runs/{run}/layers/{layer}/history", get(history::history))
        .route("/v1/runs/{run}/layers/{layer}/spectra", get(history::spectra))
        .route("/livez", get(api::livez))
        .route("/readyz", get(api::readyz))
        .route("/openapi.json", get(openapi::serve));
    for (path, kind, content) in page::FILES {
        read = read.route(path, get(move |headers: HeaderMap| async move { page::file(kind, content, &headers) }));
    }
    if with_metrics {
        read = read.route("/metrics", get(api::metrics).layer(fast_compression()));
    }
    // Only for clients that ask for it; not for gRPC, and not for event streams, whose events must not wait in a
    // compressor.
    let read = read.layer(CompressionLayer::new());
    Router::new()
        .merge(push)
        .merge(read.with_state(site.clone()).merge(monitor::router(site, ingest)).layer(
            axum::middleware::from_fn_with_state(
                // A second more than the gRPC push allows itself, so that its own refusal, which says more, comes
                // first.
                Duration::from_secs(site.bodies.limits().body_idle_timeout_s + 1),
                impatient,
            ),
        ))
        .fallback(api::unknown)
        .method_not_allowed_fallback(api::wrong_method)
        .layer(axum::middleware::from_fn_with_state(access.clone(), guard))
}

/// 90,000 series take 93 ms with or without compression.
fn fast_compression() -> CompressionLayer {
    CompressionLayer::new().quality(CompressionLevel::Fastest)
}

/// Ends request bodies that stall. The HTTP push has its own limits, which answer with a refusal.
async fn impatient(State(idle): State<Duration>, request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(TimeoutBody::new(idle, body)))).await
}

/// Only /metrics and health, for a port of their own.
pub(crate) fn metrics_router(site: &Site, access: &Access) -> Router {
    Router::new()
        .route("/metrics", get(api::metrics).layer(fast_compression()))
        .route("/livez", get(api::livez))
        .route("/readyz", get(api::readyz))
        .with_state(site.clone())
        .fallback(api::unknown)
        .layer(axum::middleware::from_fn_with_state(access.clone(), guard))
}
