//! The answers of the read side as types, shared by JSON, the OpenAPI document and the command line's tables.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::analysis::report::{FullReport, Report};
use crate::analysis::verdict::{Cause, Level, Verdict, VerdictReason, VerdictState};
use crate::error::{Code, Refusal};
use crate::pipeline::OpenView;
use crate::publish::{Board, InterruptedWindow, LayerView, RunView};

/// A push that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(crate) struct PushAccepted {
    /// The run's name.
    pub run: String,
    /// The layer's name, as pushed.
    pub layer: String,
    /// The window that the batch went to.
    pub window: u64,
    /// Rows admitted to the window so far.
    pub rows: u64,
    /// True if the same batch came before; it counts once.
    pub duplicate: bool,
}

/// The report that a push waited for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PushReport {
    /// The report.
    #[serde(flatten)]
    #[schema(value_type = Report)]
    pub report: Arc<FullReport>,
    /// Present and true if the same batch came before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// The reports of a closed window.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClosedReports {
    /// One report per layer.
    #[schema(value_type = Vec<Report>)]
    pub reports: Vec<Arc<FullReport>>,
}

/// A page of stored reports.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ReportList {
    /// Reports, oldest first.
    pub reports: Vec<Report>,
    /// Pass on as `cursor` for the next page; null on the last page.
    pub next: Option<u64>,
}

/// The answer to finishing a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunFinished {
    /// The run's name.
    pub run: String,
    /// Always true.
    pub finished: bool,
    /// The reports of the windows that were open.
    #[schema(value_type = Vec<Report>)]
    pub reports: Vec<Arc<FullReport>>,
}

/// All runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// One entry per run.
    pub runs: Vec<RunSummary<String>>,
}

/// One run. Its layers are names in lists, and objects if one run is requested.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RunSummary<L> {
    /// The run's name.
    pub run: String,
    /// The run's method.
    pub method: Option<String>,
    /// The published state of the worst layer.
    pub state: VerdictState,
    /// The cause of that verdict.
    pub cause: Option<Cause>,
    /// The measures past their thresholds.
    pub reasons: Option<Vec<VerdictReason>>,
    /// The worst layer.
    pub(crate) worst_layer: Option<String>,
    /// Whether its verdict is latched: published until acknowledged.
    pub latched: bool,
    /// The window since which the state holds.
    pub since_window: Option<u64>,
    /// The layers, including those derived from them.
    pub layers: Vec<L>,
    /// When rows last arrived, RFC 3339.
    pub last_push_at: Option<String>,
    /// Whether the run is finished.
    pub finished: bool,
    /// The newest step pushed.
    pub step: Option<u64>,
    /// The newest window pushed.
    pub window: Option<u64>,
    /// Windows whose rows were lost when the service stopped without draining; rows pushed to them later leave them
    /// incomplete.
    #[serde(skip_deserializing)]
    pub interrupted_windows: Vec<InterruptedWindow>,
}

/// One layer of a run. `R` is its newest report.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LayerSummary<R> {
    /// The layer's name, with the role's suffix.
    pub layer: String,
    /// The dimension d.
    pub dim: Option<usize>,
    /// The published state.
    pub state: VerdictState,
    /// Whether the verdict is latched: published until acknowledged.
    pub latched: bool,
    /// The window since which the state holds.
    pub since_window: u64,
    /// Rows refused because they held NaN, infinities or values too large.
    pub nonfinite_rows: u64,
    /// Windows that still accept rows.
    #[serde(skip_deserializing)]
    pub open_windows: Vec<OpenView>,
    /// The newest report.
    pub newest: Option<R>,
}

/// The worst layer's verdict, latched once collapsed (published until acknowledged).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishedVerdict {
    /// The run's name.
    pub run: String,
    /// The worst layer; null before the first report.
    pub layer: Option<String>,
    /// The verdict; if latched, that of the report that latched it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether it is latched: published until acknowledged.
    pub latched: bool,
    /// The window since which the state holds.
    pub since_window: Option<u64>,
    /// The newest window.
    pub window: Option<u64>,
    /// The state of the newest window.
    pub current: Option<Verdict>,
}

/// The eigenvalues of a closed window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Spectrum)]
pub(crate) struct SpectrumAnswer {
    run: String,
    layer: String,
    window: u64,
    revision: u32,
    /// The number of eigenvalues.
    dim: usize,
    /// Descending; null if the solver failed or was skipped.
    eigenvalues: Option<Vec<f64>>,
    /// False if `eigenvalues` holds only the first ones: the spectrum was too large to solve.
    complete: Option<bool>,
    noise_floor: Option<f64>,
    input_noise_floor: Option<f64>,
    numeric_noise_floor: Option<f64>,
}

impl From<&FullReport> for SpectrumAnswer {
    fn from(full: &FullReport) -> Self {
        let (report, measures) = (&full.report, &full.report.measures);
        Self {
            run: report.run.clone(),
            layer: report.layer.clone(),
            window: report.window,
            revision: report.revision,
            dim: report.dim,
            eigenvalues: full.eigenvalues().map(<[f64]>::to_vec),
            complete: full.complete_spectrum(),
            noise_floor: measures.noise_floor,
            input_noise_floor: measures.input_noise_floor,
            numeric_noise_floor: measures.numeric_noise_floor,
        }
    }
}

impl<L> RunSummary<L> {
    /// The view of a run on the board.
    pub fn new(name: &str, view: &RunView, layers: Vec<L>) -> Self {
        let worst = view.verdict();
        let shown = worst.view.shown().map(|shown| &shown.report.verdict);
        Self {
            run: name.to_string(),
            method: view.method.map(|method| method.to_string()),
            state: worst.view.state(),
            cause: shown.map(|verdict| verdict.cause),
            reasons: shown.map(|verdict| verdict.reasons.clone()),
            latched: worst.view.latched.is_some(),
            since_window: shown.map(|_| worst.view.since_window),
            worst_layer: worst.layer,
            layers,
            last_push_at: view.last_push.map(|at| at.to_string()),
            finished: view.finished_at.is_some(),
            step: view.step,
            window: view.window,
            interrupted_windows: view.interrupted.clone(),
        }
    }
}

impl RunSummary<String> {
    /// The entry of a run in a list.
    pub(crate) fn line(name: &str, view: &RunView) -> Self {
        Self::new(name, view, view.layers.keys().cloned().collect())
    }
}

impl LayerSummary<Arc<FullReport>> {
    /// The view of a layer on the board.
    pub fn new(layer: &str, view: &LayerView, open_windows: Vec<OpenView>) -> Self {
        Self {
            layer: layer.to_string(),
            dim: view.newest.as_ref().map(|newest| newest.report.dim),
            state: view.state(),
            latched: view.latched.is_some(),
            since_window: view.since_window,
            nonfinite_rows: view.nonfinite_rows,
            open_windows,
            newest: view.newest.clone(),
        }
    }
}

/// The view of a layer before its first report.
fn nothing_yet() -> Verdict {
    Verdict {
        state: VerdictState::WarmingUp,
        scale: Level::Unknown,
        dimension: Level::Unknown,
        cause: Cause::None,
        reasons: Vec::new(),
        alarms: Vec::new(),
    }
}

/// The published verdict of a run.
///
/// # Errors
/// `not_found` for an unknown run.
pub fn verdict(board: &Board, run: &str) -> Result<PublishedVerdict, Refusal> {
    let worst = run_view(board, run)?.verdict();
    let shown = worst.view.shown();
    let newest = worst.view.newest.as_ref();
    Ok(PublishedVerdict {
        run: run.to_string(),
        verdict: shown.map_or_else(nothing_yet, |shown| shown.report.verdict.clone()),
        latched: worst.view.latched.is_some(),
        since_window: shown.map(|_| worst.view.since_window),
        window: newest.map(|newest| newest.report.window),
        current: newest.map(|newest| newest.report.verdict.clone()),
        layer: worst.layer,
    })
}

/// Every run on the board.
pub fn runs(board: &Board) -> RunList {
    RunList { runs: board.runs().iter().map(|(name, view)| RunSummary::line(name, view)).collect() }
}

/// One run on the board.
/// Refuses with `not_found`.
pub(crate) fn run_view(board: &Board, run: &str) -> Result<RunView, Refusal> {
    board.run(run).ok_or_else(|| Refusal::not_found(format!("run {}", run.escape_debug())))
}

/// Checks that a run has the layer, before its history is read.
/// Refuses with `not_found`.
pub(crate) fn known_layer(board: &Board, run: &str, layer: &str) -> Result<(), Refusal> {
    let view = run_view(board, run)?;
    if view.layers.contains_key(layer) {
        return Ok(());
    }
    let names: Vec<&str> = view.layers.keys().map(String::as_str).collect();
    Err(Refusal::new(
        Code::NotFound,
        format!("run {run} has no layer {} with a closed window; it has: {}", layer.escape_debug(), names.join(", ")),
    ))
}
