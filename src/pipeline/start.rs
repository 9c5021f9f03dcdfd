//! Builds the inbox from its parts and from what the history remembers.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::budget::Budget;
use super::inbox::{Inbox, Limits};
use super::persist;
use super::policy::Policy;
use super::registry::{Registry, Run};
use super::solver_room::SolverRoom;
use super::work::Queues;
use crate::analysis::origin::Precision;
use crate::analysis::parameters::Method;
use crate::compute::Backend;
use crate::publish::{Board, History, HistoryError, LayerView, Restored, RunView, Service};

/// What an inbox is made of.
pub struct Parts {
    /// What bounds it.
    pub limits: Limits,
    /// Thresholds by run and method.
    pub policy: Policy,
    /// What computes.
    pub backend: Arc<dyn Backend>,
    /// In what arithmetic rows are summed whose push does not say.
    pub precision: Precision,
    /// Where the newest of everything goes.
    pub board: Arc<Board>,
    /// Where reports are stored.
    pub history: Arc<History>,
    /// The service's counters.
    pub service: Arc<Service>,
}

impl Inbox {
    /// An inbox that knows what the history knows.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn new(parts: Parts) -> Result<Self, HistoryError> {
        let mut registry = Registry::default();
        for restored in parts.history.restore()? {
            restore(&mut registry, &parts.board, &parts.history, restored)?;
        }
        Ok(Self {
            memory: Budget::new(parts.limits.accumulator_bytes),
            room: SolverRoom::new(parts.limits.solver_bytes),
            limits: parts.limits,
            registry: Mutex::new(registry),
            policy: parts.policy,
            backend: parts.backend,
            precision: parts.precision,
            board: parts.board,
            history: parts.history,
            service: parts.service,
            queues: Queues::new(),
            draining: AtomicBool::new(false),
        })
    }
}

fn restore(registry: &mut Registry, board: &Board, history: &History, restored: Restored) -> Result<(), HistoryError> {
    let method = restored.method.as_deref().and_then(Method::of);
    let mut view = RunView {
        method: method.map(Method::word),
        last_push: Some(restored.last_push),
        finished_at: restored.finished_at,
        interrupted: restored.interrupted.clone(),
        ..RunView::default()
    };
    let mut layers = BTreeMap::new();
    for stored in restored.layers {
        match persist::from_json(&stored.memory, &stored.closed) {
            Ok(layer) => drop(layers.insert(stored.layer, layer)),
            Err(error) => {
                tracing::error!(run = restored.run, layer = stored.layer, %error, "a layer's memory cannot be read; it starts anew")
            }
        }
    }
    for (layer, window) in restored.interrupted {
        layers.entry(layer).or_default().interrupted.insert(window);
    }
    for state in restored.verdicts {
        let newest = history.newest(&restored.run, &state.layer, None)?;
        let latched = match state.latched {
            Some(place) => history.revision(&restored.run, &state.layer, place)?,
            None => None,
        };
        let report = newest.as_ref().map(|newest| &newest.report);
        view.step = view.step.max(report.and_then(|report| report.step));
        view.window = view.window.max(report.map(|report| report.window));
        view.loss = view.loss.or(report.and_then(|report| report.loss));
        // Refused rows are counted by the layer itself, not by its roles.
        let nonfinite_rows = layers.get(&state.layer).map_or(0, |layer| layer.nonfinite_rows);
        let shown = LayerView { newest, latched, since_window: state.since_window, nonfinite_rows };
        view.layers.insert(state.layer, shown);
    }
    let run = registry.open_run(&restored.run, restored.last_push);
    *run = Run { method, finished_at: restored.finished_at, layers, ..Run::new(run.id, restored.last_push) };
    board.restore(&restored.run, view);
    Ok(())
}
