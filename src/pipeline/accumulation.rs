//! Summing rows: the queue of accepted batches, and what a thread does with each.
//!
//! Guarantees: one worker's batches are merged in order; a panic costs one batch, is counted, and kills no thread. Must
//! not: spawn threads (`app` does), or know when a window closes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use kernels::backend::Backend;
use kernels::provenance::Precision;

use super::handle::RunHandle;
use super::layer::Waiter;
use super::open_window::Slots;
use super::queue::KeyedQueue;
use crate::analysis::batch::EmbeddingBatch;
use crate::budget::Reservation;
use crate::compute::reduce::{gather, reduce};
use crate::identity::{LayerName, RunName, WindowKey};
use crate::publish::ServiceMetrics;
use crate::telemetry::Stage;

pub(super) struct MergeJob {
    pub(super) run: Arc<RunHandle>,
    pub(super) window: WindowKey,
    pub(super) worker: u32,
    /// `None`: nothing to merge, only a report to answer with.
    pub(super) batch: Option<(EmbeddingBatch, Slots)>,
    pub(super) reply: Option<Waiter>,
    /// Memory and the body, released once both the window and this job are done with them.
    pub(super) holds: Option<(Arc<Reservation>, Bytes)>,
    /// When its window opened, if this batch opened it.
    pub(super) mark_open: Option<Timestamp>,
    pub(super) span: tracing::Span,
}

#[derive(Default)]
pub(super) struct Merged {
    /// A note for the readers of the window's report.
    pub(super) note: Option<String>,
    pub(super) lost_rows: bool,
}

pub struct Accumulation {
    backend: Arc<dyn Backend>,
    /// The arithmetic for rows whose push does not name one.
    precision: Precision,
    metrics: Arc<ServiceMetrics>,
    pub(super) jobs: KeyedQueue<(RunName, LayerName, u32), MergeJob>,
}

impl Accumulation {
    pub(super) fn new(backend: Arc<dyn Backend>, precision: Precision, metrics: Arc<ServiceMetrics>) -> Self {
        Self { backend, precision, metrics, jobs: KeyedQueue::new() }
    }

    pub(super) fn queue(&self, job: MergeJob) {
        self.jobs.push((job.window.run.clone(), job.window.layer.clone(), job.worker), job);
    }

    /// Ends the accumulate threads once they have merged what is queued.
    pub fn stop(&self) {
        self.jobs.stop();
    }

    pub(super) fn merge(&self, job: &mut MergeJob) -> Merged {
        let Some((batch, slots)) = job.batch.take().filter(|_| !job.run.is_deleted()) else {
            return Merged::default();
        };
        let merged = catch_unwind(AssertUnwindSafe(|| self.add(&batch, &slots))).unwrap_or_else(|_| {
            self.metrics.worker_panics.inc();
            Err("a bug in the service".to_string())
        });
        drop((batch, slots, job.holds.take()));
        let worker = job.worker;
        match merged {
            Ok(missing) => Merged {
                note: missing.map(|why| format!("the diagnostics lack a batch of worker {worker}: {why}")),
                lost_rows: false,
            },
            Err(why) => {
                let WindowKey { run, layer, window, .. } = &job.window;
                tracing::error!(run = &**run, layer = &**layer, window, why, "an accepted batch was not merged");
                let note = Some(format!("a batch of worker {worker} could not be merged: {why}"));
                Merged { note, lost_rows: true }
            }
        }
    }

    /// Returns the reason if the diagnostics lack this batch; its rows count anyway.
    fn add(&self, batch: &EmbeddingBatch, slots: &Slots) -> Result<Option<String>, String> {
        for (part, slot) in batch.parts.iter().zip(&slots.rows) {
            let timer = self.metrics.stages.enter(Stage::Accumulate);
            let rows = reduce(&*self.backend, part, &batch.parameters, self.precision).map_err(|e| e.to_string())?;
            drop(timer);
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *slot {
                Some(sum) => sum.merge(&rows),
                None => *slot = Some(rows),
            }
        }
        // Hold the lock while computing: one worker's batches run one after another, and an interim report may wait.
        let mut gathered = slots.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let _timer = self.metrics.stages.enter(Stage::Accumulate);
        Ok(gather(&*self.backend, batch, &mut gathered).err())
    }
}
