//! `GET /openapi.json`: a description of the HTTP interface.
//!
//! Guarantees: every path here is served and every served path is here (a test checks it). The functions below only
//! carry the descriptions; the handlers are in `api`, `spectrum`, `page` and `ingest::http`.

#![allow(dead_code)] // the macro reads the descriptions; nothing calls them

use axum::Json;
use serde_json::Value;
use utoipa::OpenApi;

use crate::analysis::parameters::SCALARS;
use crate::analysis::report::Report;
use crate::error::Code;
use crate::wire::problem::ProblemDocument;
use crate::wire::views::{
    ClosedReports, LayerSummary, PublishedVerdict, PushAccepted, PushReport, ReportList, RunFinished, RunList,
    RunSummary, SpectrumAnswer,
};

/// The document.
pub fn document() -> Value {
    let mut value = serde_json::to_value(Document::openapi()).unwrap_or_default();
    // A description next to an inline type turns it into a union of one.
    let measures = &mut value["components"]["schemas"]["Report"]["properties"]["measures"];
    *measures = measures["allOf"][0].take();
    value["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] =
        Code::all().map(|code| Value::from(code.word())).collect();
    let push = &mut value["paths"]["/v1/runs/{run}/layers/{layer}/batches"]["post"]["parameters"];
    if let Some(parameters) = push.as_array_mut() {
        parameters.extend(SCALARS.iter().map(|name| {
            serde_json::json!({"name": name, "in": "query", "required": false, "schema": {"type": ["number", "null"]}})
        }));
    }
    value
}

pub(crate) async fn serve() -> Json<Value> {
    Json(document())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "fullrank",
        description = "Reports, while a training runs, whether its embeddings are collapsing, and why"
    ),
    paths(
        push,
        close,
        finish,
        acknowledge,
        runs,
        run,
        delete,
        reports,
        history,
        spectrum,
        spectra,
        events,
        verdict,
        limits,
        metrics,
        livez,
        readyz,
        openapi,
        page
    ),
    components(schemas(ProblemDocument, PublishedVerdict, PushAccepted, PushReport, Report, SpectrumAnswer))
)]
struct Document;

macro_rules! described {
    ($($(#[$attribute:meta])* $name:ident;)*) => { $($(#[$attribute])* fn $name() {})* };
}

described! {
    /// Push a batch of embeddings.
    #[utoipa::path(
        post, path = "/v1/runs/{run}/layers/{layer}/batches",
        params(
            ("run" = String, Path), ("layer" = String, Path),
            ("window" = Option<u64>, Query, description = "Rows with the same number are measured together"),
            ("step" = Option<u64>, Query), ("worker" = Option<u32>, Query), ("workers" = Option<u32>, Query),
            ("session" = Option<u64>, Query), ("seq" = Option<u64>, Query), ("last" = Option<bool>, Query),
            ("wait" = Option<bool>, Query), ("method" = Option<String>, Query), ("unit_moments" = Option<bool>, Query),
            ("spectrum" = Option<bool>, Query), ("precision" = Option<String>, Query),
        ),
        request_body(
            content((Vec<u8> = "application/x-safetensors"), (Vec<u8> = "application/x-npy"), (Value = "application/json")),
        ),
        responses(
            (status = 202, body = PushAccepted), (status = 200, description = "With wait: the report", body = PushReport),
            (status = "4XX", description = "Refused; nothing was merged", body = ProblemDocument, content_type = "application/problem+json"),
            (status = "5XX", description = "Refused; Retry-After says when to try again", body = ProblemDocument, content_type = "application/problem+json"),
        )
    )]
    push;
    /// Close a window of every layer now.
    #[utoipa::path(post, path = "/v1/runs/{run}/windows/{window}/close",
        params(("run" = String, Path), ("window" = u64, Path)),
        responses((status = 200, body = ClosedReports), (status = 404, body = ProblemDocument)))]
    close;
    /// Finish a run.
    #[utoipa::path(post, path = "/v1/runs/{run}/finish", params(("run" = String, Path)),
        responses((status = 200, body = RunFinished), (status = 404, body = ProblemDocument)))]
    finish;
    /// Acknowledge a collapse: the verdict is no longer latched (published regardless of later windows).
    #[utoipa::path(post, path = "/v1/runs/{run}/acknowledge", params(("run" = String, Path)),
        responses((status = 200, body = PublishedVerdict), (status = 404, body = ProblemDocument)))]
    acknowledge;
    /// List all runs.
    #[utoipa::path(get, path = "/v1/runs", responses((status = 200, body = RunList)))]
    runs;
    /// Get one run with its layers.
    #[utoipa::path(get, path = "/v1/runs/{run}", params(("run" = String, Path)),
        responses((status = 200, body = RunSummary<LayerSummary<Report>>), (status = 404, body = ProblemDocument)))]
    run;
    /// Delete a run and its history.
    #[utoipa::path(delete, path = "/v1/runs/{run}", params(("run" = String, Path)),
        responses((status = 204, description = "Deleted"), (status = 404, body = ProblemDocument)))]
    delete;
    /// List closed windows of a layer, oldest first; pass `next` on as `cursor`.
    #[utoipa::path(get, path = "/v1/runs/{run}/layers/{layer}/reports",
        params(("run" = String, Path), ("layer" = String, Path), ("from" = Option<u64>, Query), ("to" = Option<u64>, Query),
               ("limit" = Option<u64>, Query), ("cursor" = Option<u64>, Query)),
        responses((status = 200, description = "A page", body = ReportList), (status = 404, body = ProblemDocument)))]
    reports;
    /// Get the eigenvalues of a closed window, by default the newest.
    #[utoipa::path(get, path = "/v1/runs/{run}/layers/{layer}/spectrum",
        params(("run" = String, Path), ("layer" = String, Path), ("window" = Option<u64>, Query)),
        responses((status = 200, description = "application/json, application/x-npy or text/csv by Accept", body = SpectrumAnswer),
                  (status = 404, body = ProblemDocument), (status = 406, body = ProblemDocument)))]
    spectrum;
    /// Get a layer's history in columns: at most `points` windows, from each stretch the worst judged.
    #[utoipa::path(get, path = "/v1/runs/{run}/layers/{layer}/history",
        params(("run" = String, Path), ("layer" = String, Path), ("from" = Option<u64>, Query), ("to" = Option<u64>, Query),
               ("points" = Option<u64>, Query, description = "1 to 2000, default 400"),
               ("measures" = Option<String>, Query, description = "Names, or group.diagnostic, joined by commas")),
        responses((status = 200, body = Value), (status = 400, body = ProblemDocument), (status = 404, body = ProblemDocument)))]
    history;
    /// Get eigenvalues and cumulative variance of several windows, at log-spaced components if there are many.
    #[utoipa::path(get, path = "/v1/runs/{run}/layers/{layer}/spectra",
        params(("run" = String, Path), ("layer" = String, Path), ("from" = Option<u64>, Query), ("to" = Option<u64>, Query),
               ("points" = Option<u64>, Query, description = "Windows, 1 to 256, default 64"),
               ("components" = Option<u64>, Query, description = "1 to 256, default 128")),
        responses((status = 200, body = Value), (status = 400, body = ProblemDocument), (status = 404, body = ProblemDocument)))]
    spectra;
    /// Stream the runs that change, as server-sent events.
    #[utoipa::path(get, path = "/v1/events",
        responses((status = 200, description = "event: change, data: {change, whole, runs: [...] or null}", body = String, content_type = "text/event-stream"),
                  (status = 429, description = "Too many streams", body = ProblemDocument), (status = 503, body = ProblemDocument)))]
    events;
    /// Get the worst layer's verdict, latched: a gate for early stopping and CI.
    #[utoipa::path(get, path = "/v1/runs/{run}/verdict", params(("run" = String, Path),
            ("wait" = Option<f64>, Query, description = "Seconds to wait for another state, at most 300"),
            ("state" = Option<String>, Query, description = "The state that the client knows")),
        responses((status = 200, body = PublishedVerdict), (status = 400, body = ProblemDocument), (status = 404, body = ProblemDocument)))]
    verdict;
    /// Get every limit.
    #[utoipa::path(get, path = "/v1/limits", responses((status = 200, body = Value)))]
    limits;
    /// Get the Prometheus metrics.
    #[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
    metrics;
    /// Check whether the process runs.
    #[utoipa::path(get, path = "/livez", responses((status = 200, body = String, content_type = "text/plain")))]
    livez;
    /// Check whether pushes are accepted.
    #[utoipa::path(get, path = "/readyz", responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = ProblemDocument), (status = 507, body = ProblemDocument)))]
    readyz;
    /// Get this document.
    #[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Value)))]
    openapi;
    /// Get the page.
    #[utoipa::path(get, path = "/", responses((status = 200, body = String, content_type = "text/html")))]
    page;
}
