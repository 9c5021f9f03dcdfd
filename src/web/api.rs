//! The handlers of the JSON API.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Fields, Segments};
use super::{Site, limits, read};
use crate::error::{Code, Refusal};
use crate::pipeline::Reports;

/// Reports a page of the listing holds at most.
pub(super) const MAX_PAGE: usize = 1000;

/// Runs what reads the disk on a thread that may wait for it.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::new(Code::Internal, format!("the history could not be read: {error}")))
}

pub(super) async fn limits(State(site): State<Site>) -> Json<Value> {
    Json(limits::limits(&site))
}

pub(super) async fn runs(State(site): State<Site>) -> Json<Value> {
    Json(read::runs(&site.board))
}

pub(super) async fn run(State(site): State<Site>, Segments(run): Segments<String>) -> Result<Json<Value>, Refusal> {
    read::run(&site, &run).map(Json)
}

pub(super) async fn delete(State(site): State<Site>, Segments(run): Segments<String>) -> Result<StatusCode, Refusal> {
    on_disk(move || site.inbox.delete(&run)).await??;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn acknowledge(
    State(site): State<Site>,
    Segments(run): Segments<String>,
) -> Result<Json<Value>, Refusal> {
    let (inbox, name) = (site.inbox.clone(), run.clone());
    on_disk(move || inbox.acknowledge(&name)).await??;
    read::verdict(&site.board, &run).map(Json)
}

pub(super) async fn finish(State(site): State<Site>, Segments(run): Segments<String>) -> Result<Json<Value>, Refusal> {
    let (inbox, name) = (site.inbox.clone(), run.clone());
    let reports = on_disk(move || inbox.finish(&name, Timestamp::now())).await??;
    Ok(Json(json!({"run": run, "finished": true, "reports": arrived(reports).await})))
}

pub(super) async fn close(
    State(site): State<Site>,
    Segments((run, window)): Segments<(String, u64)>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({"reports": close_window(&site, &run, window).await?})))
}

/// Closes a window and waits for its reports; those closed before come from the history.
pub(crate) async fn close_window(site: &Site, run: &str, window: u64) -> Result<Vec<Value>, Refusal> {
    arrived(site.inbox.close_window(run, window, Timestamp::now())?).await;
    let (site, run) = (site.clone(), run.to_string());
    on_disk(move || {
        let layers = read::run_view(&site.board, &run)?.layers;
        let stored = layers.keys().filter_map(|layer| site.history.report(&run, layer, window));
        Ok(stored.map(|published| published.json.clone()).collect())
    })
    .await?
}

/// Reports as they come in; one that could not be made is left out, and its layer's log says why.
pub(crate) async fn arrived(reports: Reports) -> Vec<Value> {
    let mut values = Vec::new();
    for report in reports {
        if let Ok(published) = report.await {
            values.push(published.json.clone());
        }
    }
    values
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    from: Option<u64>,
    cursor: Option<u64>,
    to: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn reports(
    State(site): State<Site>,
    Segments((run, layer)): Segments<(String, String)>,
    Fields(listing): Fields<Listing>,
) -> Result<Response, Refusal> {
    read::known_layer(&site.board, &run, &layer)?;
    let limit = listing.limit.unwrap_or(100);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Refusal::over(
            Code::Malformed,
            format!("limit is {limit}: it must be 1 to {MAX_PAGE}"),
            MAX_PAGE as u64,
        ));
    }
    // The cursor is the window to go on from.
    let range = (listing.cursor.or(listing.from).unwrap_or(0), listing.to.unwrap_or(u64::MAX));
    let (texts, next) = on_disk(move || site.history.reports(&run, &layer, range, limit)).await?.map_err(unreadable)?;
    // The texts are JSON already: they go out as they are stored.
    let next = next.map_or("null".to_string(), |window| window.to_string());
    let body = format!("{{\"reports\":[{}],\"next\":{next}}}", texts.join(","));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

pub(super) fn unreadable(error: crate::publish::HistoryError) -> Refusal {
    Refusal::new(Code::Internal, error.to_string())
}

pub(super) async fn unknown(uri: http::Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("{} is no path of this service; see /openapi.json", uri.path().escape_debug()))
}

pub(super) async fn wrong_method(method: http::Method, uri: http::Uri) -> Refusal {
    Refusal::new(
        Code::MethodNotAllowed,
        format!("{method} is not for {}; see /openapi.json", uri.path().escape_debug()),
    )
}

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(site): State<Site>) -> Result<&'static str, Refusal> {
    site.inbox.is_open()?;
    Ok("ok\n")
}

pub(super) async fn metrics(State(site): State<Site>) -> Result<Response, Refusal> {
    let text = on_disk(move || {
        site.service.inbox_batches.set(site.inbox.queued() as i64);
        site.service.streams.set(site.inbox.streams() as i64);
        site.service.accumulator_bytes.set(site.inbox.memory_used() as i64);
        prometheus::TextEncoder::new().encode_to_string(&site.service.registry.gather())
    })
    .await?
    .map_err(|error| Refusal::new(Code::Internal, format!("the metrics cannot be written: {error}")))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
