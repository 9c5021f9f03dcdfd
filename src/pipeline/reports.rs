//! Making reports: what waits for the spectrum threads, and how a window becomes its reports.
//!
//! Guarantees: one layer's windows are judged in order; the stored verdict is the published one; an interim report
//! changes neither hysteresis nor baseline; a panic costs one report, is counted, and kills no thread. Must not: decide
//! when a window closes.

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

pub(super) enum Task {
    Report(Box<ReportTask>),
    /// A stored report, for a client that waits for it.
    Stored(WindowKey, Waiter),
    /// Drops the waiter once everything before it is stored.
    Passed(Waiter),
}

/// The limits on the windows that wait for their eigenvalues.
pub(super) struct Backlog {
    /// How many windows may wait.
    pub(super) windows: usize,
    /// The memory of accumulators, which waiting windows keep.
    pub(super) memory: Arc<Budget>,
}

impl Backlog {
    /// Whether the maximum number of reports wait for their eigenvalues.
    fn is_full(&self, waiting: &AtomicUsize) -> bool {
        let waiting = waiting.load(Ordering::Acquire);
        // Waiting windows keep their accumulators: they must not take the room of open windows.
        let pressed = waiting >= FEW_WAITING && 2 * self.memory.used() > self.memory.limit();
        pressed || waiting >= self.windows
    }
}

/// The queue of reports, and what makes and publishes them.
pub struct Reports {
    /// The newest state of everything.
    pub board: Arc<Board>,
    /// Everything stored.
    pub history: Arc<History>,
    /// The service's counters.
    pub metrics: Arc<ServiceMetrics>,
    /// The device that solves.
    pub solver: Solver,
    pub(super) overrides: ThresholdOverrides,
    pub(super) backlog: Backlog,
    pub(super) tasks: KeyedQueue<(RunName, LayerName), Task>,
    /// Reports waiting with their eigenvalues still to be computed: of closed windows, and of open ones. The second
    /// kind must not take eigenvalues away from the first.
    pub(super) closed_waiting: AtomicUsize,
    pub(super) open_waiting: AtomicUsize,
}

impl Reports {
    /// Queues the report of a closed window, without eigenvalues if the threads are behind.
    pub(super) fn queue_closed(&self, mut task: ReportTask) {
        if task.skip.is_none() && self.backlog.is_full(&self.closed_waiting) {
            task.skip = Some(SkipReason::Behind);
            self.metrics.spectra_skipped.inc();
        }
        self.queue(task);
    }

    /// Queues a report of a window that still accepts rows.
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

    /// Answers with a stored report, after all work in progress on its layer.
    pub(super) fn queue_stored(&self, window: WindowKey, reply: Waiter) {
        self.push(window.clone(), Task::Stored(window, reply));
    }

    /// Drops the waiter once all work in progress on the layer is stored.
    pub(super) fn queue_passed(&self, run: &RunName, layer: &LayerName, waiter: Waiter) {
        self.tasks.push((run.clone(), layer.clone()), Task::Passed(waiter));
    }

    fn push(&self, window: WindowKey, task: Task) {
        self.tasks.push((window.run, window.layer), task);
    }

    fn waiting(&self, task: &ReportTask) -> &AtomicUsize {
        if task.closing.is_some() { &self.closed_waiting } else { &self.open_waiting }
    }

    /// Ends the spectrum threads once they have published what is queued.
    pub fn stop(&self) {
        self.tasks.stop();
    }

    /// Passes each window to `publish` until told to stop.
    pub(super) fn work(&self, publish: impl Fn(ReportTask)) {
        self.tasks.work(|task| match task {
            Task::Report(task) => self.guarded(*task, &publish),
            Task::Stored(window, reply) => {
                if let Some(report) = self.history.report(&window.run, &window.layer, window.window) {
                    // The client may be gone.
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
            tracing::error!(run = &*run, layer = &*layer, window, "a bug in the service cost this report");
        }
        if let Some(waiting) = waiting {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

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

    /// Publishes a window's reports, and stores them at the next flush: the stored verdict is the published one.
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
