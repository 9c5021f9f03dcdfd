//! The newest of everything, in memory: what /metrics, the page and the verdict gate read.
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

/// See the file's head.
#[derive(Debug)]
pub struct Board {
    runs: RwLock<BTreeMap<String, RunView>>,
    changes: watch::Sender<u64>,
    /// Counts every change of the board, pushes included.
    activity: watch::Sender<u64>,
    /// The change that last took a run away.
    removed: AtomicU64,
}

/// A batch as the board shows it.
#[derive(Clone, Debug)]
pub struct PushView {
    /// The run.
    pub run: RunName,
    /// The layers that get a report of it, roles' suffixes included.
    pub layers: Vec<String>,
    /// The run's method.
    pub method: Option<Method>,
    /// The trainer's step.
    pub step: Option<u64>,
    /// The window that it went to.
    pub window: u64,
    /// The loss.
    pub loss: Option<f64>,
    /// When it came.
    pub at: Timestamp,
}

/// What changed on the board after some change.
#[derive(Debug)]
pub struct Changes {
    /// The newest change: where to go on from.
    pub change: u64,
    /// The runs that changed; `None` when one was taken away, so that all must be read again.
    pub runs: Option<Vec<(String, RunView)>>,
}

/// One run as it is published.
#[derive(Clone, Debug, Default)]
pub struct RunView {
    /// Its method.
    pub method: Option<Method>,
    /// The newest step pushed.
    pub step: Option<u64>,
    /// The newest window pushed.
    pub window: Option<u64>,
    /// The newest loss pushed.
    pub loss: Option<f64>,
    /// When rows last came.
    pub last_push: Option<Timestamp>,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
    /// Its series have left /metrics.
    pub expired: bool,
    /// Windows whose rows were lost when the service stopped.
    pub interrupted: Vec<InterruptedWindow>,
    /// Layers, roles' suffixes included.
    pub layers: BTreeMap<String, LayerView>,
    /// The board's change that last touched it.
    pub change: u64,
}

/// One layer as it is published.
#[derive(Clone, Debug, Default)]
pub struct LayerView {
    /// Its newest report.
    pub newest: Option<Arc<FullReport>>,
    /// The report that latched its verdict.
    pub latched: Option<Arc<FullReport>>,
    /// Since which window the published state holds.
    pub since_window: u64,
    /// Rows refused because they held NaN, infinities or values too large to square.
    pub nonfinite_rows: u64,
}

/// The published verdict of a run: its worst layer's.
#[derive(Clone, Debug)]
pub struct VerdictView {
    /// The worst layer; `None` before the first report.
    pub layer: Option<String>,
    /// That layer.
    pub view: LayerView,
}

impl LayerView {
    /// The report whose verdict is published: the latched one, else the newest.
    pub fn shown(&self) -> Option<&Arc<FullReport>> {
        self.latched.as_ref().or(self.newest.as_ref())
    }

    /// The published state.
    pub fn state(&self) -> VerdictState {
        self.shown().map_or(VerdictState::WarmingUp, |published| published.report.verdict.state)
    }
}

impl RunView {
    /// The worst layer's published verdict.
    pub fn verdict(&self) -> VerdictView {
        // Of equally bad layers the first: a layer stands before those derived from it.
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
    /// Ticks whenever a verdict may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ticks at every change, pushes included.
    pub fn activity(&self) -> watch::Receiver<u64> {
        self.activity.subscribe()
    }

    /// What changed after the change `seen`; 0 is before everything.
    pub fn since(&self, seen: u64) -> Changes {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        // Changes are counted under the write lock: whatever this number counts is in `runs`.
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

    /// A batch was accepted.
    pub fn pushed(&self, push: &PushView) {
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

    /// New reports of one window.
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
                // Interrupted windows stand under the layer as pushed, without a role.
                let pushed = report.layer.split(':').next().unwrap_or("");
                run.interrupted.retain(|cut_off| cut_off.window != report.window || cut_off.layer != pushed);
            });
        }
        self.changed();
    }

    /// Non-finite rows refused so far in a layer.
    pub fn nonfinite(&self, run: &str, layer: &str, rows: u64) {
        self.with(run, |view| view.layers.entry(layer.to_string()).or_default().nonfinite_rows = rows);
    }

    /// The run was finished.
    pub fn finished(&self, run: &str, at: Option<Timestamp>) {
        self.with(run, |view| {
            view.finished_at = at;
            view.interrupted.clear();
        });
    }

    /// Unlatches the run's verdicts.
    pub fn acknowledge(&self, run: &str) {
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

    /// The run's series leave /metrics, and its verdicts are unlatched.
    pub fn expire(&self, run: &str) {
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

    /// Puts a run back as the history knows it.
    pub fn restore(&self, run: &str, view: RunView) {
        self.with(run, |known| *known = view);
    }

    /// What of the run's published verdicts must survive a restart.
    pub fn published(&self, run: &str) -> Vec<PublishedState> {
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

    /// Wakes whoever watches.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.count();
    }
}
