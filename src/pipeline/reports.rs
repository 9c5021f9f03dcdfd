//! Making reports: what waits for the spectrum threads, and a window on its way to its reports.
//!
//! Guarantees: one layer's windows are judged in their order; what is stored of the published verdict is what is shown; a
//! report so far moves neither hysteresis nor baseline; a panic costs one report, is counted, and kills no thread. Must
//! not: decide when a window closes.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use super::layer::{Closing, Waiter};
use super::overrides::ThresholdOverrides;
use super::queue::KeyedQueue;
use super::report_task::ReportTask;
use crate::analysis::measures::Solved;
use crate::analysis::report::{self, Content, FullReport, Judging};
use crate::analysis::role::Role;
use crate::analysis::window::Accumulator;
use crate::budget::Budget;
use crate::compute::lend::with_kernels;
use crate::compute::solve::{SkipReason, Solver};
use crate::identity::{LayerName, RunName, WindowKey};
use crate::publish::{Board, History, Saved, ServiceMetrics, StoredRun};
use crate::telemetry::Stage;

/// Windows that may wait for their eigenvalues once half the memory for accumulators is in use.
const FEW_WAITING: usize = 8;

/// Something for a spectrum thread.
pub(super) enum Task {
    Report(Box<ReportTask>),
    /// A report that is stored already, for who waits for it.
    Stored(WindowKey, Waiter),
    /// Drops the waiter once everything before it is stored.
    Passed(Waiter),
}

/// What bounds the windows that wait for their eigenvalues.
pub(super) struct Backlog {
    /// That many may wait.
    pub(super) windows: usize,
    /// The accumulators' memory, which waiting windows keep.
    pub(super) memory: Arc<Budget>,
}

impl Backlog {
    /// Whether as many reports wait for their eigenvalues as may.
    fn is_full(&self, waiting: &AtomicUsize) -> bool {
        let waiting = waiting.load(Ordering::Acquire);
        // What waits keeps its accumulators: it must not take the room of windows that are open.
        let pressed = waiting >= FEW_WAITING && 2 * self.memory.used() > self.memory.limit();
        pressed || waiting >= self.windows
    }
}

/// See the file's head.
pub struct Reports {
    /// The newest of everything.
    pub board: Arc<Board>,
    /// Everything stored.
    pub history: Arc<History>,
    /// The service's counters.
    pub metrics: Arc<ServiceMetrics>,
    /// What solves.
    pub solver: Solver,
    pub(super) overrides: ThresholdOverrides,
    pub(super) backlog: Backlog,
    pub(super) tasks: KeyedQueue<(RunName, LayerName), Task>,
    /// Reports waiting with their eigenvalues still to be computed: of closed windows, and of open ones. The second kind
    /// does not take the first kind's eigenvalues away.
    pub(super) closed_waiting: AtomicUsize,
    pub(super) open_waiting: AtomicUsize,
}

impl Reports {
    /// Queues the report of a closed window; without its eigenvalues where the threads are behind.
    pub(super) fn queue_closed(&self, mut task: ReportTask) {
        if task.skip.is_none() && self.backlog.is_full(&self.closed_waiting) {
            task.skip = Some(SkipReason::Behind);
            self.metrics.spectra_skipped.inc();
        }
        self.queue(task);
    }

    /// Queues a report of a window that still takes rows.
    pub(super) fn queue_so_far(&self, mut task: ReportTask) {
        if task.skip.is_none() && self.backlog.is_full(&self.open_waiting) {
            task.skip = Some(SkipReason::Behind);
        }
        self.queue(task);
    }

    fn queue(&self, task: ReportTask) {
        if task.skip.is_none() {
            self.waiting(&task).fetch_add(1, Ordering::AcqRel);
        }
        self.push(task.window.clone(), Task::Report(Box::new(task)));
    }

    /// Answers with a stored report, after everything of its layer that is under way.
    pub(super) fn queue_stored(&self, window: WindowKey, reply: Waiter) {
        self.push(window.clone(), Task::Stored(window, reply));
    }

    /// Drops the waiter once everything of the layer that is under way is stored.
    pub(super) fn queue_passed(&self, run: &RunName, layer: &LayerName, waiter: Waiter) {
        self.tasks.push((run.clone(), layer.clone()), Task::Passed(waiter));
    }

    fn push(&self, window: WindowKey, task: Task) {
        self.tasks.push((window.run, window.layer), task);
    }

    fn waiting(&self, task: &ReportTask) -> &AtomicUsize {
        if task.closing.is_some() { &self.closed_waiting } else { &self.open_waiting }
    }

    /// Lets the spectrum threads end once they have published what is queued.
    pub fn stop(&self) {
        self.tasks.stop();
    }

    /// Hands each window to `publish` until told to stop.
    pub(super) fn work(&self, publish: impl Fn(ReportTask)) {
        self.tasks.work(|task| match task {
            Task::Report(task) => self.guarded(*task, &publish),
            Task::Stored(window, reply) => {
                if let Some(report) = self.history.report(&window.run, &window.layer, window.window) {
                    // Nobody may be waiting any more.
                    let _ = reply.send(report);
                }
            }
            Task::Passed(waiter) => drop(waiter),
        });
    }

    fn guarded(&self, task: ReportTask, publish: impl Fn(ReportTask)) {
        let WindowKey { run, layer, window, .. } = task.window.clone();
        let span = tracing::debug_span!("window", run = &*run, layer = &*layer, window);
        let _entered = span.enter();
        let waiting = task.skip.is_none().then(|| self.waiting(&task));
        if catch_unwind(AssertUnwindSafe(|| publish(task))).is_err() {
            self.metrics.worker_panics.inc();
            tracing::error!(run = &*run, layer = &*layer, window, "a fault of the service cost this report");
        }
        if let Some(waiting) = waiting {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Gathers the workers' rows, solves, diagnoses and judges.
    pub(super) fn make(&self, task: &mut ReportTask) -> Vec<Arc<FullReport>> {
        let thresholds = self.overrides.thresholds(&task.window.run, task.method);
        let content = task.content();
        let solved = self.solve(&content, task.skip);
        let _timer = self.metrics.stages.enter(Stage::Diagnose);
        let dim = content.roles.values().map(|rows| rows.moments.dim()).max().unwrap_or(0);
        let factorisations = if task.skip.is_none() { self.solver.reserve_factorisations(dim) } else { None };
        let mut known = task.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = known.clone();
        let judging = Judging {
            thresholds: &thresholds,
            method: task.method,
            memory: Some(&mut memory),
            factorise: factorisations.is_some(),
        };
        let made = with_kernels(&*self.solver.backend, |kernels| {
            report::make(&content, solved, &task.heading(), judging, kernels)
        });
        if task.closing.is_some() {
            *known = memory;
        }
        self.metrics.solver_failures.inc_by(made.failures as u64);
        made.reports.into_iter().map(Arc::new).collect()
    }

    fn solve(&self, content: &Content, skip: Option<SkipReason>) -> BTreeMap<Role, Solved> {
        let solve = |rows: &Accumulator| match skip {
            Some(reason) => reason.solved(),
            None => {
                let _timer = self.metrics.stages.enter(Stage::Spectrum);
                self.solver.solve(rows)
            }
        };
        content.roles.iter().map(|(role, rows)| (*role, solve(rows))).collect()
    }

    /// Makes a window's reports visible, then durable at the next flush: what is stored of the published verdict is what
    /// is shown.
    pub(super) fn store(&self, task: &ReportTask, closing: &Closing, run: StoredRun, reports: &[Arc<FullReport>]) {
        self.board.publish(reports);
        self.history.save(Saved {
            window: task.window.clone(),
            sessions: closing.sessions,
            run,
            reports: reports.to_vec(),
            published: self.board.published(&task.window.run),
        });
    }
}
