//! What the threads do: merge batches (accumulate threads), and turn closed windows into reports (spectrum threads).
//!
//! Guarantees: one worker's batches are merged in their order; one layer's windows are judged in theirs; a panic costs
//! one batch or report, is counted, and kills no thread. Must not: spawn (`app` does).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::budget::Reservation;
use super::inbox::Inbox;
use super::layer::Waiter;
use super::line::Skip;
use super::open_window::Slots;
use super::queue::KeyedQueue;
use super::registry::Registry;
use super::reports::ReportTask;
use crate::analysis::batch::EmbeddingBatch;

/// Windows that may wait for their eigenvalues once half the memory for accumulators is in use.
const FEW_WAITING: usize = 8;

/// A batch to merge.
pub(super) struct Job {
    pub(super) run: String,
    pub(super) run_id: u64,
    pub(super) layer: String,
    pub(super) window: u64,
    pub(super) revision: u32,
    pub(super) worker: u32,
    /// `None`: nothing to merge, only a report to answer with.
    pub(super) push: Option<(EmbeddingBatch, Slots)>,
    pub(super) reply: Option<Waiter>,
    /// Memory that is given back when both the window and this job are done with it, and the body.
    pub(super) holds: Option<(Arc<Reservation>, Bytes)>,
    /// When its window was opened, if by this batch.
    pub(super) mark_open: Option<Timestamp>,
    /// The batch's, from the door on.
    pub(super) span: tracing::Span,
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

impl Task {
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
            && task.skip_spectrum.is_none()
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
                let mut task = ReportTask::of((run_name, run.id, name), closing.window, &closing.content);
                task.waiters = std::mem::take(&mut closing.waiters);
                task.closing = Some(closing);
                if task.skip_spectrum.is_none() && self.behind(true) {
                    task.skip_spectrum = Some(Skip::Behind);
                    self.service.spectra_skipped.inc();
                }
                self.queues.task(run_name, name, Task::Report(Box::new(task)));
            }
        }
    }

    fn merge(&self, mut job: Job) {
        let span = job.span.clone();
        let _entered = span.enter();
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
        let push = job.push.take();
        let merged =
            catch_unwind(AssertUnwindSafe(|| push.map_or(Ok(None), |(batch, slots)| self.merge_push(batch, slots))))
                .unwrap_or_else(|_| {
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
            if let Ok(Some(why)) = &merged {
                open.notes.push(format!("the diagnostics lack a batch of worker {}: {why}", job.worker));
            }
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
                let mut task = ReportTask::of((&job.run, job.run_id, &job.layer), job.window, open);
                task.waiters.push(reply);
                if task.skip_spectrum.is_none() && self.behind(false) {
                    task.skip_spectrum = Some(Skip::Behind);
                }
                self.queues.task(&job.run, &job.layer, Task::Report(Box::new(task)));
            }
        }
        self.dispatch(&mut registry, &job.run);
    }

    /// Whether as many reports of this kind wait for their eigenvalues as may.
    fn behind(&self, closed: bool) -> bool {
        let waiting = self.queues.waiting(closed).load(Ordering::Acquire);
        // What waits keeps its accumulators: it must not take the room of windows that are open.
        let pressed = waiting >= FEW_WAITING && 2 * self.memory.used() > self.memory.limit();
        pressed || waiting >= self.limits.spectra_waiting
    }

    /// Returns what a reader should know of diagnostics that this batch could not add to.
    fn merge_push(&self, batch: EmbeddingBatch, slots: Slots) -> Result<Option<String>, String> {
        let line = self.line();
        // A batch whose diagnostics fail still counts: its rows are merged first.
        for (part, slot) in batch.parts.iter().zip(&slots.rows) {
            let rows = line.accumulate(part, &batch.parameters).map_err(|e| e.to_string())?;
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *slot {
                Some(sum) => sum.merge(&rows),
                None => *slot = Some(rows),
            }
        }
        // Held while it computes: one worker's batches come one after another, and a report so far may wait.
        let mut gathered = slots.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(line.gather(&batch, &mut gathered).err())
    }

    fn run_report(&self, task: ReportTask) {
        let names = (task.run.clone(), task.layer.clone(), task.window);
        let span = tracing::debug_span!("window", run = names.0, layer = names.1, window = names.2);
        let _entered = span.enter();
        let (skipped, closed) = (task.skip_spectrum.is_some(), task.closing.is_some());
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
}
