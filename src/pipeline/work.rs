//! What the threads do: merge batches (accumulate threads), and turn closed windows into reports (spectrum threads).
//!
//! Guarantees: one worker's batches are merged in their order; one layer's windows are judged in theirs; a panic costs
//! one batch or report, is counted, and kills no thread. Must not: spawn (`app` does).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::budget::Reservation;
use super::inbox::Inbox;
use super::layer::{Closing, Waiter};
use super::line::{Judging, Line};
use super::open_window::{OpenWindow, Slot};
use super::queue::KeyedQueue;
use super::registry::Registry;
use crate::analysis::batch::{Part, Role};
use crate::analysis::parameters::Method;
use crate::analysis::report::Report;
use crate::analysis::spectrum::Spectrum;
use crate::analysis::verdict::Stream;
use crate::analysis::window::Accumulator;
use crate::publish::{Published, Saved};
use crate::telemetry::Stage;

/// A batch to merge.
pub(super) struct Job {
    pub(super) run: String,
    pub(super) run_id: u64,
    pub(super) layer: String,
    pub(super) window: u64,
    pub(super) revision: u32,
    pub(super) worker: u32,
    pub(super) parts: Vec<(Part, Slot)>,
    pub(super) reply: Option<Waiter>,
    pub(super) unit_moments: bool,
    /// Memory that is given back when both the window and this job are done with it, and the body.
    pub(super) holds: Option<(Arc<Reservation>, Bytes)>,
    /// When its window was opened, if by this batch.
    pub(super) mark_open: Option<Timestamp>,
}

/// Something for a spectrum thread.
pub(super) enum Task {
    /// A window to measure, judge and publish.
    Report(Box<ReportTask>),
    /// A report that is stored already, for who waits for it.
    Stored { run: String, layer: String, window: u64, reply: Waiter },
    /// Drops the waiter once everything before it is stored.
    Passed(Waiter),
}

/// A window on its way to a report.
pub(super) struct ReportTask {
    run: String,
    run_id: u64,
    layer: String,
    window: u64,
    revision: u32,
    step: Option<u64>,
    loss: Option<f64>,
    notes: Vec<String>,
    roles: BTreeMap<Role, Vec<Slot>>,
    waiters: Vec<Waiter>,
    /// `None`: a report so far.
    closing: Option<Closing>,
    skip_spectrum: bool,
}

impl Task {
    fn of(names: (&str, u64, &str), window: u64, content: &OpenWindow) -> ReportTask {
        let (run, run_id, layer) = names;
        ReportTask {
            run: run.to_string(),
            run_id,
            layer: layer.to_string(),
            window,
            revision: content.revision,
            step: content.step,
            loss: content.loss,
            notes: content.all_notes(),
            roles: content.by_role(),
            waiters: Vec::new(),
            closing: None,
            skip_spectrum: false,
        }
    }

    /// The newest stored report of a window.
    pub(super) fn stored((run, layer): (&str, &str), window: u64, reply: Waiter) -> Self {
        Task::Stored { run: run.to_string(), layer: layer.to_string(), window, reply }
    }
}

/// What waits for the threads: batches by (run, layer, worker), windows by (run, layer).
pub struct Queues {
    jobs: KeyedQueue<(String, String, u32), Job>,
    tasks: KeyedQueue<(String, String), Task>,
    /// Reports waiting with their eigenvalues still to be computed: of closed windows, and so far. The second kind does
    /// not take the first kind's eigenvalues away.
    closed_waiting: AtomicUsize,
    so_far_waiting: AtomicUsize,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            jobs: KeyedQueue::new(),
            tasks: KeyedQueue::new(),
            closed_waiting: AtomicUsize::new(0),
            so_far_waiting: AtomicUsize::new(0),
        }
    }

    pub(super) fn job(&self, job: Job) {
        self.jobs.push((job.run.clone(), job.layer.clone(), job.worker), job);
    }

    pub(super) fn task(&self, run: &str, layer: &str, task: Task) {
        if let Task::Report(task) = &task
            && !task.skip_spectrum
        {
            self.waiting(task.closing.is_some()).fetch_add(1, Ordering::AcqRel);
        }
        self.tasks.push((run.to_string(), layer.to_string()), task);
    }

    fn waiting(&self, closed: bool) -> &AtomicUsize {
        if closed { &self.closed_waiting } else { &self.so_far_waiting }
    }

    /// Lets the accumulate threads end once they have merged what is queued.
    pub fn stop_accumulating(&self) {
        self.jobs.stop();
    }

    /// Lets the spectrum threads end once they have published what is queued.
    pub fn stop_spectra(&self) {
        self.tasks.stop();
    }
}

impl Inbox {
    /// What waits for the threads.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Merges batches until told to stop: what an accumulate thread runs.
    pub fn accumulate(&self) {
        self.queues.jobs.work(|job| self.merge(job));
    }

    /// Makes reports until told to stop: what a spectrum thread runs.
    pub fn solve(&self) {
        self.queues.tasks.work(|task| match task {
            Task::Report(task) => self.run_report(*task),
            Task::Stored { run, layer, window, reply } => {
                if let Some(report) = self.history.report(&run, &layer, window) {
                    // Nobody may be waiting any more.
                    let _ = reply.send(report);
                }
            }
            Task::Passed(waiter) => drop(waiter),
        });
    }

    /// Sends the closed windows of a run, whose batches are all merged, to the spectrum threads.
    pub(super) fn dispatch(&self, registry: &mut Registry, run_name: &str) {
        let Some(run) = registry.runs.get_mut(run_name) else { return };
        for (name, layer) in &mut run.layers {
            for mut closing in layer.ready() {
                let mut task = Task::of((run_name, run.id, name), closing.window, &closing.content);
                task.waiters = std::mem::take(&mut closing.waiters);
                task.closing = Some(closing);
                task.skip_spectrum = self.behind(true);
                if task.skip_spectrum {
                    self.service.spectra_skipped.inc();
                }
                self.queues.task(run_name, name, Task::Report(Box::new(task)));
            }
        }
    }

    fn merge(&self, mut job: Job) {
        let mut registry = self.lock();
        if registry.layer(&job.run, job.run_id, &job.layer).is_none() {
            // Deleted meanwhile.
            registry.queued = registry.queued.saturating_sub(1);
            return;
        }
        drop(registry);
        if let Some(now) = job.mark_open {
            self.history.mark_open(&job.run, &job.layer, job.window, now);
        }
        let parts = std::mem::take(&mut job.parts);
        let merged =
            catch_unwind(AssertUnwindSafe(|| self.merge_parts(parts, job.unit_moments))).unwrap_or_else(|_| {
                self.service.worker_panics.inc();
                Err("a fault of the service".to_string())
            });
        drop(job.holds.take());
        let mut registry = self.lock();
        registry.queued = registry.queued.saturating_sub(1);
        let Some(layer) = registry.layer(&job.run, job.run_id, &job.layer) else {
            drop(registry);
            self.forget_deleted(&job.run);
            return;
        };
        if let Some(open) = layer.find(job.window, job.revision) {
            open.pending -= 1;
            if let Err(why) = merged {
                tracing::error!(
                    run = job.run,
                    layer = job.layer,
                    window = job.window,
                    why,
                    "an accepted batch was not merged"
                );
                open.notes.push(format!("a batch of worker {} could not be merged: {why}", job.worker));
                open.lost_rows = true;
            }
            if let Some(reply) = job.reply.take() {
                let task = Task::of((&job.run, job.run_id, &job.layer), job.window, open);
                let skip_spectrum = self.behind(false);
                let task = Task::Report(Box::new(ReportTask { waiters: vec![reply], skip_spectrum, ..task }));
                self.queues.task(&job.run, &job.layer, task);
            }
        }
        self.dispatch(&mut registry, &job.run);
    }

    /// Whether as many reports of this kind wait for their eigenvalues as may.
    fn behind(&self, closed: bool) -> bool {
        self.queues.waiting(closed).load(Ordering::Acquire) >= self.limits.spectra_waiting
    }

    fn merge_parts(&self, parts: Vec<(Part, Slot)>, unit_moments: bool) -> Result<(), String> {
        let line = Line { backend: &*self.backend, stages: &self.service.stages };
        for (part, slot) in parts {
            let rows = line.accumulate(part, unit_moments).map_err(|e| e.to_string())?;
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *slot {
                Some(sum) => sum.merge(&rows),
                None => *slot = Some(rows),
            }
        }
        Ok(())
    }

    fn run_report(&self, task: ReportTask) {
        let names = (task.run.clone(), task.layer.clone(), task.window);
        let (skipped, closed) = (task.skip_spectrum, task.closing.is_some());
        if catch_unwind(AssertUnwindSafe(|| self.report(task))).is_err() {
            self.service.worker_panics.inc();
            tracing::error!(
                run = names.0,
                layer = names.1,
                window = names.2,
                "a fault of the service cost this report"
            );
        }
        if !skipped {
            self.queues.waiting(closed).fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn report(&self, mut task: ReportTask) {
        let verdicts = match self.lock().layer(&task.run, task.run_id, &task.layer) {
            Some(layer) => Arc::clone(&layer.verdicts),
            None => return, // the run was deleted meanwhile
        };
        let mut published = Vec::new();
        for (role, slots) in std::mem::take(&mut task.roles) {
            if let Some(rows) = gather(&slots, task.closing.is_some()) {
                published.push(self.measure(&task, role, &rows, &verdicts));
            }
        }
        let _timer = self.service.stages.enter(Stage::Publish);
        if let Some(closing) = task.closing.take() {
            self.store(&task, &closing, &published);
        }
        for waiter in task.waiters {
            if let Some(report) = published.first() {
                // Who waited may have gone.
                let _ = waiter.send(Arc::clone(report));
            }
        }
    }

    fn measure(
        &self,
        task: &ReportTask,
        role: Role,
        rows: &Accumulator,
        verdicts: &Mutex<BTreeMap<Role, Stream>>,
    ) -> Arc<Published> {
        let method = self.lock().runs.get(&task.run).and_then(|run| run.method);
        let thresholds = self.policy.thresholds(&task.run, method);
        let mut streams = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        // A report so far moves neither hysteresis nor baseline: it is judged by a copy.
        let mut copy = streams.get(&role).cloned().unwrap_or_default();
        let line = Line { backend: &*self.backend, stages: &self.service.stages };
        let judging = Judging {
            thresholds: &thresholds,
            stream: Some(&mut copy),
            step: task.step,
            alignment_expected: method.is_some_and(|method| method != Method::Other),
            skip_spectrum: task.skip_spectrum,
        };
        let outcome = line.process(rows, judging);
        if task.closing.is_some() {
            streams.insert(role, copy);
        }
        drop(streams);
        self.service.solver_failures.inc_by(outcome.failures as u64);
        let computed = line.computed(&outcome, &thresholds);
        let mut notes = task.notes.clone();
        notes.extend(outcome.notes);
        let report = Report {
            run: task.run.clone(),
            layer: format!("{}{}", task.layer, role.suffix()),
            window: task.window,
            revision: task.revision,
            step: task.step,
            rows: rows.moments.rows(),
            samples: rows.samples,
            views: rows.views,
            dim: rows.moments.dim(),
            closed: task.closing.is_some(),
            complete: task.closing.as_ref().is_some_and(|closing| closing.complete && !closing.content.lost_rows),
            closed_at: task.closing.as_ref().map(|closing| closing.closed_at.to_string()),
            loss: task.loss,
            measures: outcome.measured.measures,
            computed,
            notes,
            verdict: outcome.verdict,
        };
        let eigenvalues = outcome.spectrum.map(|spectrum: Spectrum| spectrum.values);
        Arc::new(Published::new(report, eigenvalues))
    }

    /// Makes a window's reports visible, then durable: what is stored of the published verdict is what is shown. Who waits
    /// for a report is answered after both.
    fn store(&self, task: &ReportTask, closing: &Closing, published: &[Arc<Published>]) {
        let mut registry = self.lock();
        let Some(run) = registry.runs.get_mut(&task.run).filter(|run| run.id == task.run_id) else { return };
        let (method, last_push, finished_at) = (run.method, run.last_push, run.finished_at);
        let Some(layer) = run.layers.get_mut(&task.layer) else { return };
        layer.settle(closing);
        let state = super::persist::to_json(layer);
        // Under the lock: a run that is deleted now must not come back, and what is stored of the run and its verdicts must
        // not be older than what another thread stored.
        self.board.publish(published);
        self.history.save(Saved {
            run: task.run.clone(),
            layer: task.layer.clone(),
            window: task.window,
            revision: task.revision,
            sessions: closing.sessions,
            method: method.map(Method::word),
            last_push,
            finished_at,
            layer_state: state,
            reports: published.to_vec(),
            latched: self.board.latched(&task.run),
        });
        drop(registry);
        self.history.flush();
        self.forget_deleted(&task.run);
    }
}

impl Inbox {
    /// What was written of a run after it was deleted is deleted, too.
    fn forget_deleted(&self, run: &str) {
        let registry = self.lock();
        if !registry.runs.contains_key(run) {
            self.history.delete(run);
            drop(registry);
            self.history.flush();
        }
    }
}

/// The workers' accumulators merged in worker order; taken out of the slots at the close, copied before it.
fn gather(slots: &[Slot], take: bool) -> Option<Accumulator> {
    let mut sum: Option<Accumulator> = None;
    for slot in slots {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = if take { slot.take() } else { slot.clone() };
        match (&mut sum, rows) {
            (Some(sum), Some(rows)) => sum.merge(&rows),
            (None, rows) => sum = rows,
            (Some(_), None) => {}
        }
    }
    sum
}
