//! The path from a push to its window's published report.
//!
//! A batch passes six stages, whose names are used for the tracing spans and the `stage` label:
//!
//! ```text
//! ingest -> decode -> accumulate -> spectrum -> diagnose -> publish
//! ```
//!
//! [`Pipeline::submit`] decodes a push, admits it and queues it; [`Pipeline::accumulate`] merges it into its window and
//! hands over closed windows; [`Pipeline::report`] solves, judges and publishes closed windows. Three parts do the
//! work: [`Admission`] knows every run and admits pushes, [`Accumulation`] sums rows, [`Reports`] makes and stores
//! reports.
//!
//! Guarantees: an accepted batch is merged exactly once; a refused one leaves nothing behind; reports of a layer are
//! judged in the order its windows closed. Must not: open sockets, or read a clock (`now` is an argument).

mod accumulation;
mod admission;
mod control;
mod handle;
mod layer;
mod layer_memory;
mod open_window;
mod overrides;
mod push;
mod queue;
mod registry;
mod report_task;
mod reports;
pub mod restore;

use std::sync::MutexGuard;

use crate::analysis::batch::EmbeddingBatch;
use crate::error::Refusal;
use crate::identity::RunName;
use crate::telemetry::Stage;

pub(crate) use accumulation::Accumulation;
pub(crate) use admission::Admission;
pub use admission::Limits;
pub use overrides::ThresholdOverrides;
pub use push::{Accepted, Arrival, Push};
pub(crate) use push::{Decode, PendingReports};
pub(crate) use registry::OpenView;
pub use reports::Reports;

use accumulation::MergeJob;
use handle::RunHandle;
use layer::Admissibility;
use registry::{Registry, Repeated};
use report_task::ReportTask;

/// Admission, accumulation and reports of every run.
pub struct Pipeline {
    /// Admits pushes.
    pub admission: Admission,
    /// Sums rows.
    pub accumulation: Accumulation,
    /// Makes, publishes and stores reports.
    pub reports: Reports,
}

impl Pipeline {
    /// Accepts or refuses a push. May decode for a while: do not call it from a thread that serves sockets if the body
    /// is large.
    ///
    /// # Errors
    /// Everything in the contract's table of refusals.
    pub fn submit(&self, push: Push) -> Result<Accepted, Refusal> {
        let Push { arrival, decode } = push;
        let (door, bytes) = (arrival.door, arrival.body.len());
        let span = tracing::debug_span!("batch", door, run = &*arrival.run, layer = &*arrival.layer, bytes);
        let _entered = span.enter();
        let accepted = self.decode(&arrival, decode).and_then(|batch| self.admit(&arrival, batch));
        let outcome = accepted.as_ref().map(|accepted| accepted.duplicate).map_err(|refusal| refusal.code);
        self.reports.metrics.pushed(door, bytes, outcome);
        accepted
    }

    /// Merges batches until told to stop; an accumulate thread runs this.
    pub fn accumulate(&self) {
        self.accumulation.jobs.work(|job| self.merge(job));
    }

    /// Makes reports until told to stop; a spectrum thread runs this.
    pub fn report(&self) {
        self.reports.work(|task| self.publish(task));
    }

    fn decode(&self, arrival: &Arrival, decode: Decode) -> Result<EmbeddingBatch, Refusal> {
        let _timer = self.reports.metrics.stages.enter(Stage::Decode);
        let (tensors, parameters) = decode()?;
        EmbeddingBatch::new(tensors, parameters).map_err(|error| {
            if let Some(rows) = self.admission.count_unusable(arrival, &error) {
                self.reports.board.nonfinite(&arrival.run, &arrival.layer, rows);
            }
            error.into()
        })
    }

    fn admit(&self, arrival: &Arrival, batch: EmbeddingBatch) -> Result<Accepted, Refusal> {
        let mut registry = self.admission.lock();
        match self.admission.check(&registry, arrival, &batch)? {
            Admissibility::Duplicate(window) => {
                let repeated = registry.repeat(arrival, &batch, window);
                Ok(self.answer_again(registry, repeated, arrival))
            }
            Admissibility::Admit(place) => {
                let memory = self.admission.reserve(&registry, arrival, &place)?;
                let admitted = registry.admit(arrival, batch, place, memory);
                self.reports.board.pushed(&admitted.view);
                self.reports.metrics.rows.inc_by(admitted.rows);
                self.accumulation.queue(admitted.job);
                self.report_closed(&mut registry, &arrival.run);
                Ok(admitted.accepted)
            }
        }
    }

    fn answer_again(&self, registry: MutexGuard<'_, Registry>, repeated: Repeated, arrival: &Arrival) -> Accepted {
        let mut accepted = repeated.accepted;
        if let Some(job) = repeated.job {
            self.accumulation.queue(job);
        }
        if let Some(waiter) = repeated.stored {
            let window = arrival.window(accepted.window, 0);
            if let Some(waiter) = waiter {
                // Answered by the thread that stores this layer's reports, after the work in progress.
                self.reports.queue_stored(window.clone(), waiter);
            }
            drop(registry);
            // The report holds the number of rows.
            let stored = self.reports.history.report(&window.run, &window.layer, window.window);
            accepted.rows = stored.map_or(0, |stored| stored.report.rows);
        }
        accepted
    }

    fn merge(&self, mut job: MergeJob) {
        let span = job.span.clone();
        let _entered = span.enter();
        if let Some(now) = job.mark_open.filter(|_| !job.run.is_deleted()) {
            self.reports.history.mark_open(&job.window, now);
        }
        let merged = self.accumulation.merge(&mut job);
        let mut registry = self.admission.lock();
        if let Some(task) = registry.settle(&mut job, merged) {
            self.reports.queue_so_far(task);
        }
        self.report_closed(&mut registry, &job.window.run);
        drop(registry);
        self.forget_if_deleted(&job.run, &job.window.run);
    }

    /// Sends the closed windows of a run whose batches are all merged to the spectrum threads.
    fn report_closed(&self, registry: &mut Registry, run: &str) {
        for task in registry.closed_windows(run) {
            self.reports.queue_closed(task);
        }
    }

    fn publish(&self, mut task: ReportTask) {
        if task.run.is_deleted() {
            return;
        }
        let reports = self.reports.make(&mut task);
        let _timer = self.reports.metrics.stages.enter(Stage::Publish);
        if let Some(closing) = task.closing.take() {
            let mut registry = self.admission.lock();
            // Under the lock: a run deleted now must not come back, and its stored state must not be older than what
            // another thread stored.
            if let Some(memory) = registry.settle_window(&task, &closing) {
                self.reports.store(&task, &closing, memory, &reports);
            }
            drop(registry);
            self.reports.history.flush();
            self.forget_if_deleted(&task.run, &task.window.run);
        }
        task.answer(reports.first());
    }

    /// Deletes what was written of a run after it was deleted.
    fn forget_if_deleted(&self, run: &RunHandle, name: &RunName) {
        if run.is_deleted() && !self.admission.lock().runs.contains_key(name) {
            self.reports.history.delete(name);
            self.reports.history.flush();
        }
    }
}
