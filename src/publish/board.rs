//! The newest state of everything, in memory: /metrics, the page and the verdict gate read it.
//!
//! Guarantees: readers see whole reports. Must not: keep history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::watch;

use kernels::word::Word;

use super::saved::{InterruptedWindow, PublishedState, ReportPlace};
use crate::analysis::parameters::Method;
use crate::analysis::report::FullReport;
use crate::analysis::verdict::VerdictState;
use crate::identity::RunName;

/// The newest report and verdict of every layer of every run.
#[derive(Debug)]
pub struct Board {
    runs: RwLock<BTreeMap<String, RunView>>,
    changes: watch::Sender<u64>,
    /// Counts every change of the board, pushes included.
    activity: watch::Sender<u64>,
    /// The change that last removed a run.
    removed: AtomicU64,
}

#[derive(Clone, Debug)]
pub(crate) struct PushView {
    pub run: RunName,
    /// The layers that the push reports on, roles' suffixes included.
    pub layers: Vec<String>,
    pub method: Option<Method>,
    pub step: Option<u64>,
    pub window: u64,
    pub loss: Option<f64>,
    pub at: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Changes {
    /// The newest change: continue from here.
    pub change: u64,
    /// The runs that changed; `None` if one was removed, so that all must be read again.
    pub runs: Option<Vec<(String, RunView)>>,
}

/// A run's newest published state.
#[derive(Clone, Debug, Default)]
pub struct RunView {
    pub method: Option<Method>,
    /// The newest step pushed.
    pub step: Option<u64>,
    /// The newest window pushed.
    pub window: Option<u64>,
    /// The newest loss pushed.
    pub loss: Option<f64>,
    pub last_push: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub expired: bool,
    /// Windows whose rows were lost when the service stopped.
    pub interrupted: Vec<InterruptedWindow>,
    /// Layers, roles' suffixes included.
    pub layers: BTreeMap<String, LayerView>,
    pub change: u64,
}

/// A layer's newest published state.
#[derive(Clone, Debug, Default)]
pub struct LayerView {
    pub newest: Option<Arc<FullReport>>,
    pub latched: Option<Arc<FullReport>>,
    /// Since which window the published state holds.
    pub since_window: u64,
    /// Rows refused because they held NaN, infinities or values too large to square.
    pub nonfinite_rows: u64,
}

/// The published verdict of a run: that of its worst layer.
#[derive(Clone, Debug)]
pub(crate) struct VerdictView {
    /// The worst layer; `None` before the first report.
    pub layer: Option<String>,
    pub view: LayerView,
}

impl LayerView {
    /// The report whose verdict is published: the latched one, otherwise the newest.
    pub(crate) fn shown(&self) -> Option<&Arc<FullReport>> {
        self.latched.as_ref().or(self.newest.as_ref())
    }

    pub(crate) fn state(&self) -> VerdictState {
        self.shown().map_or(VerdictState::WarmingUp, |published| published.report.verdict.state)
    }
}

impl RunView {
    pub(crate) fn verdict(&self) -> VerdictView {
        // The first of equally bad layers: a layer comes before those derived from it.
        let measured = self.layers.iter().rev().filter(|(_, view)| view.newest.is_some());
        let worst = measured.max_by_key(|(_, view)| view.state());
        match worst {
            Some((layer, view)) => VerdictView { layer: Some(layer.clone()), view: view.clone() },
            None => VerdictView { layer: None, view: LayerView::default() },
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self {
            runs: RwLock::default(),
            changes: watch::Sender::new(0),
            activity: watch::Sender::new(0),
            removed: AtomicU64::new(0),
        }
    }
}

impl Board {
    /// Changes whenever a verdict may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Changes at every change of the board, pushes included.
    pub(crate) fn activity(&self) -> watch::Receiver<u64> {
        self.activity.subscribe()
    }

    /// The changes after the change `seen`; 0 is before all of them.
    pub(crate) fn since(&self, seen: u64) -> Changes {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        // Changes are counted under the write lock: every change up to this number is in `runs`.
        let change = *self.activity.borrow();
        let whole = self.removed.load(Ordering::Acquire) > seen && seen > 0;
        let changed = runs.iter().filter(|(_, view)| view.change > seen);
        let changed = (!whole).then(|| changed.map(|(name, view)| (name.clone(), view.clone())).collect());
        Changes { change, runs: changed }
    }

    /// Every run.
    pub fn runs(&self) -> BTreeMap<String, RunView> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One run.
    pub fn run(&self, run: &str) -> Option<RunView> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).get(run).cloned()
    }

    pub(crate) fn pushed(&self, push: &PushView) {
        self.with(&push.run, |view| {
            for layer in &push.layers {
                view.layers.entry(layer.clone()).or_default();
            }
            view.method = push.method;
            view.step = view.step.max(push.step);
            view.window = view.window.max(Some(push.window));
            view.loss = push.loss.or(view.loss);
            view.last_push = view.last_push.max(Some(push.at));
            view.finished_at = None;
            view.expired = false;
        });
    }

    /// Records the new reports of one window.
    pub fn publish(&self, reports: &[Arc<FullReport>]) {
        for published in reports {
            let report = &published.report;
            self.with(&report.run, |run| {
                let layer = run.layers.entry(report.layer.clone()).or_default();
                let before = layer.newest.is_some().then(|| layer.state());
                layer.newest = Some(Arc::clone(published));
                if report.verdict.state == VerdictState::Collapsed && layer.latched.is_none() {
                    layer.latched = Some(Arc::clone(published));
                }
                if before != Some(layer.state()) {
                    layer.since_window = report.window;
                    let (state, cause) = (report.verdict.state.word(), report.verdict.cause.word());
                    tracing::info!(
                        run = report.run,
                        layer = report.layer,
                        window = report.window,
                        state,
                        cause,
                        "verdict"
                    );
                }
                // Interrupted windows are listed under the layer as pushed, without a role.
                let pushed = report.layer.split(':').next().unwrap_or("");
                run.interrupted.retain(|cut_off| cut_off.window != report.window || cut_off.layer != pushed);
            });
        }
        self.changed();
    }

    pub(crate) fn nonfinite(&self, run: &str, layer: &str, rows: u64) {
        self.with(run, |view| view.layers.entry(layer.to_string()).or_default().nonfinite_rows = rows);
    }

    pub(crate) fn finished(&self, run: &str, at: Option<Timestamp>) {
        self.with(run, |view| {
            view.finished_at = at;
            view.interrupted.clear();
        });
    }

    pub(crate) fn acknowledge(&self, run: &str) {
        self.with(run, |view| {
            for layer in view.layers.values_mut() {
                if layer.latched.take().is_some()
                    && let Some(newest) =
                        layer.newest.as_ref().filter(|newest| newest.report.verdict.state != VerdictState::Collapsed)
                {
                    layer.since_window = newest.report.window;
                }
            }
        });
        self.changed();
    }

    /// Removes the run's series from /metrics, and unlatches its verdicts.
    pub(crate) fn expire(&self, run: &str) {
        self.acknowledge(run);
        self.with(run, |view| view.expired = true);
        self.changed();
    }

    /// Forgets the run.
    pub fn delete(&self, run: &str) {
        {
            let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
            runs.remove(run);
            self.removed.store(self.count(), Ordering::Release);
        }
        self.changed();
    }

    /// Restores a run from the history.
    pub fn restore(&self, run: &str, view: RunView) {
        self.with(run, |known| *known = view);
    }

    /// The part of the run's published verdicts that must survive a restart.
    pub(crate) fn published(&self, run: &str) -> Vec<PublishedState> {
        let Some(view) = self.run(run) else { return Vec::new() };
        let place = |full: &Arc<FullReport>| ReportPlace { window: full.report.window, revision: full.report.revision };
        view.layers
            .iter()
            .map(|(layer, view)| PublishedState {
                layer: layer.clone(),
                since_window: view.since_window,
                latched: view.latched.as_ref().map(place),
            })
            .collect()
    }

    fn with(&self, run: &str, change: impl FnOnce(&mut RunView)) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        let view = runs.entry(run.to_string()).or_default();
        change(view);
        view.change = self.count();
    }

    fn count(&self) -> u64 {
        let mut number = 0;
        self.activity.send_modify(|count| {
            *count += 1;
            number = *count;
        });
        number
    }

    /// Wakes the watchers.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.count();
    }
}
