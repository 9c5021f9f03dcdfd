//! Builds the pipeline from its parts and from the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use kernels::backend::Backend;
use kernels::provenance::Precision;

use super::Pipeline;
use super::accumulation::Accumulation;
use super::admission::{Admission, Limits};
use super::layer::LayerState;
use super::layer_memory;
use super::overrides::ThresholdOverrides;
use super::queue::KeyedQueue;
use super::registry::Registry;
use super::reports::{Backlog, Reports};
use crate::analysis::parameters::Method;
use crate::budget::Budget;
use crate::compute::solve::Solver;
use crate::identity::{LayerName, RunName};
use crate::publish::{Board, History, HistoryError, LayerView, Restored, RunView, ServiceMetrics};

/// The parts of a pipeline.
pub struct PipelineParts {
    /// Its limits.
    pub limits: Limits,
    /// Thresholds by run and method.
    pub overrides: ThresholdOverrides,
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// The arithmetic for rows whose push does not name one.
    pub precision: Precision,
    /// Holds the newest state of everything.
    pub board: Arc<Board>,
    /// Stores reports.
    pub history: Arc<History>,
    /// The service's counters.
    pub metrics: Arc<ServiceMetrics>,
}

impl Pipeline {
    /// A pipeline with everything that the history knows.
    pub fn new(parts: PipelineParts) -> Result<Self, HistoryError> {
        let PipelineParts { limits, overrides, backend, precision, board, history, metrics } = parts;
        let mut registry = Registry::default();
        for restored in history.restore()? {
            restore(&mut registry, &board, &history, restored)?;
        }
        let solver = Solver { backend: Arc::clone(&backend), memory: Budget::new(limits.solver_bytes) };
        let spectra_waiting = limits.spectra_waiting;
        let admission = Admission::new(limits, registry, Arc::clone(&history));
        let backlog = Backlog { windows: spectra_waiting, memory: Arc::clone(&admission.memory) };
        Ok(Self {
            admission,
            accumulation: Accumulation::new(backend, precision, Arc::clone(&metrics)),
            reports: Reports {
                board,
                history,
                metrics,
                solver,
                overrides,
                backlog,
                tasks: KeyedQueue::new(),
                closed_waiting: AtomicUsize::new(0),
                open_waiting: AtomicUsize::new(0),
            },
        })
    }
}

fn restore(registry: &mut Registry, board: &Board, history: &History, restored: Restored) -> Result<(), HistoryError> {
    let method: Option<Method> = restored.method.as_deref().and_then(|word| word.parse().ok());
    let mut view = RunView {
        method,
        last_push: Some(restored.last_push),
        finished_at: restored.finished_at,
        interrupted: restored.interrupted.clone(),
        ..RunView::default()
    };
    let mut layers: BTreeMap<LayerName, LayerState> = BTreeMap::new();
    for stored in restored.layers {
        match layer_memory::from_json(&stored.memory, &stored.closed) {
            Ok(layer) => drop(layers.insert(LayerName::stored(&stored.layer), layer)),
            Err(error) => {
                tracing::error!(run = restored.run, layer = stored.layer, %error, "a layer's stored memory cannot be read; the layer starts from scratch")
            }
        }
    }
    for cut_off in restored.interrupted {
        layers.entry(LayerName::stored(&cut_off.layer)).or_default().interrupted.insert(cut_off.window);
    }
    for state in restored.published {
        let newest = history.newest(&restored.run, &state.layer, None)?;
        let latched = match state.latched {
            Some(place) => history.revision(&restored.run, &state.layer, place)?,
            None => None,
        };
        let report = newest.as_ref().map(|newest| &newest.report);
        view.step = view.step.max(report.and_then(|report| report.step));
        view.window = view.window.max(report.map(|report| report.window));
        view.loss = view.loss.or(report.and_then(|report| report.loss));
        // Refused rows are counted for the layer itself, not for its roles.
        let nonfinite_rows = layers.get(state.layer.as_str()).map_or(0, |layer| layer.nonfinite_rows);
        let shown = LayerView { newest, latched, since_window: state.since_window, nonfinite_rows };
        view.layers.insert(state.layer, shown);
    }
    let run = registry.open_run(&RunName::stored(&restored.run), restored.last_push);
    (run.method, run.finished_at, run.layers) = (method, restored.finished_at, layers);
    board.restore(&restored.run, view);
    Ok(())
}
