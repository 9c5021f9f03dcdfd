//! The handlers of the JSON API.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::limits;
use super::site::Site;
use crate::analysis::report::FullReport;
use crate::error::{Code, Refusal};
use crate::pipeline::{OpenView, PendingReports};
use crate::publish::HistoryError;
use crate::wire::extract::{Fields, Segments};
use crate::wire::views::{self, ClosedReports, LayerSummary, PublishedVerdict, RunFinished, RunList, RunSummary};

/// Runs work that reads the disk on a thread that may block.
pub(super) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::new(Code::Internal, format!("the history could not be read: {error}")))
}

pub(crate) async fn limits(State(site): State<Site>) -> Json<Value> {
    Json(limits::limits(&site))
}

pub(crate) async fn runs(State(site): State<Site>) -> Json<RunList> {
    Json(views::runs(site.board()))
}

pub(crate) async fn run(
    State(site): State<Site>,
    Segments(run): Segments<String>,
) -> Result<Json<RunSummary<LayerSummary<Arc<FullReport>>>>, Refusal> {
    let view = views::run_view(site.board(), &run)?;
    let mut open: BTreeMap<String, Vec<OpenView>> = site.pipeline.admission.open_windows(&run).into_iter().collect();
    let layers = view
        .layers
        .iter()
        .map(|(layer, view)| LayerSummary::new(layer, view, open.remove(layer).unwrap_or_default()))
        .collect();
    Ok(Json(RunSummary::new(&run, &view, layers)))
}

pub(crate) async fn delete(State(site): State<Site>, Segments(run): Segments<String>) -> Result<StatusCode, Refusal> {
    on_disk(move || site.pipeline.delete(&run)).await??;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn acknowledge(
    State(site): State<Site>,
    Segments(run): Segments<String>,
) -> Result<Json<PublishedVerdict>, Refusal> {
    let (pipeline, name) = (Arc::clone(&site.pipeline), run.clone());
    on_disk(move || pipeline.acknowledge(&name)).await??;
    views::verdict(site.board(), &run).map(Json)
}

pub(crate) async fn finish(
    State(site): State<Site>,
    Segments(run): Segments<String>,
) -> Result<Json<RunFinished>, Refusal> {
    let (pipeline, name) = (Arc::clone(&site.pipeline), run.clone());
    let reports = on_disk(move || pipeline.finish(&name, Timestamp::now())).await??;
    Ok(Json(RunFinished { run, finished: true, reports: arrived(reports).await }))
}

pub(crate) async fn close(
    State(site): State<Site>,
    Segments((run, window)): Segments<(String, u64)>,
) -> Result<Json<ClosedReports>, Refusal> {
    Ok(Json(ClosedReports { reports: close_now(&site, &run, window).await? }))
}

/// Closes a window and waits for its reports; those closed before come from the history.
pub(super) async fn close_now(site: &Site, run: &str, window: u64) -> Result<Vec<Arc<FullReport>>, Refusal> {
    arrived(site.pipeline.close_window(run, window, Timestamp::now())?).await;
    let (site, run) = (site.clone(), run.to_string());
    on_disk(move || {
        let layers = views::run_view(site.board(), &run)?.layers;
        Ok(layers.keys().filter_map(|layer| site.history().report(&run, layer, window)).collect())
    })
    .await?
}

/// Collects reports as they come in; one that failed is left out, and the log says why.
pub(super) async fn arrived(pending: PendingReports) -> Vec<Arc<FullReport>> {
    let mut reports = Vec::new();
    for report in pending {
        reports.extend(report.await.ok());
    }
    reports
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    from: Option<u64>,
    cursor: Option<u64>,
    to: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn reports(
    State(site): State<Site>,
    Segments((run, layer)): Segments<(String, String)>,
    Fields(listing): Fields<Listing>,
) -> Result<Response, Refusal> {
    views::known_layer(site.board(), &run, &layer)?;
    let limit = listing.limit.unwrap_or(100);
    if !(1..=limits::MAX_PAGE).contains(&limit) {
        return Err(Refusal::over(
            Code::Malformed,
            format!("limit is {limit}: it must be 1 to {}", limits::MAX_PAGE),
            limits::MAX_PAGE as u64,
        ));
    }
    // The cursor is the window where the next page starts.
    let windows = listing.cursor.or(listing.from).unwrap_or(0)..=listing.to.unwrap_or(u64::MAX);
    let page = on_disk(move || site.history().reports(&run, &layer, windows, limit)).await?;
    let page = page.map_err(|error| unreadable(&error))?;
    // The texts are already JSON: they are sent as stored.
    let next = page.next.map_or("null".to_string(), |window| window.to_string());
    let body = format!("{{\"reports\":[{}],\"next\":{next}}}", page.reports.join(","));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

pub(super) fn unreadable(error: &HistoryError) -> Refusal {
    Refusal::new(Code::Internal, error.to_string())
}

pub(crate) async fn unknown(uri: http::Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("this service has no path {}; see /openapi.json", uri.path().escape_debug()))
}

pub(crate) async fn wrong_method(method: http::Method, uri: http::Uri) -> Refusal {
    Refusal::new(
        Code::MethodNotAllowed,
        format!("{} does not support {method}; see /openapi.json", uri.path().escape_debug()),
    )
}

pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

pub(crate) async fn readyz(State(site): State<Site>) -> Result<&'static str, Refusal> {
    site.pipeline.admission.is_open()?;
    Ok("ok\n")
}

pub(crate) async fn metrics(State(site): State<Site>) -> Result<Response, Refusal> {
    let text = on_disk(move || {
        let (metrics, admission) = (site.metrics(), &site.pipeline.admission);
        metrics.inbox_batches.set(admission.queued() as i64);
        metrics.streams.set(admission.streams() as i64);
        metrics.accumulator_bytes.set(admission.memory.used() as i64);
        prometheus::TextEncoder::new().encode_to_string(&metrics.registry.gather())
    })
    .await?
    .map_err(|error| Refusal::new(Code::Internal, format!("the metrics cannot be written: {error}")))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
