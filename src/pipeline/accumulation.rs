//! Summing rows: the queue of accepted batches, and what a thread does with one.
//!
//! Guarantees: one worker's batches are merged in their order; a panic costs one batch, is counted, and kills no thread.
//! Must not: spawn (`app` does), or know when a window closes.

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

/// A batch to merge.
pub(super) struct MergeJob {
    pub(super) run: Arc<RunHandle>,
    pub(super) window: WindowKey,
    pub(super) worker: u32,
    /// `None`: nothing to merge, only a report to answer with.
    pub(super) batch: Option<(EmbeddingBatch, Slots)>,
    pub(super) reply: Option<Waiter>,
    /// Memory that is given back when both the window and this job are done with it, and the body.
    pub(super) holds: Option<(Arc<Reservation>, Bytes)>,
    /// When its window was opened, if by this batch.
    pub(super) mark_open: Option<Timestamp>,
    /// The batch's, from the socket on.
    pub(super) span: tracing::Span,
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Merged {
    /// What a reader of the window's report should know.
    pub(super) note: Option<String>,
    /// Its rows are not in the window.
    pub(super) lost_rows: bool,
}

/// See the file's head.
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

    /// Lets the accumulate threads end once they have merged what is queued.
    pub fn stop(&self) {
        self.jobs.stop();
    }

    /// Merges the batch of a job into its slots.
    pub(super) fn merge(&self, job: &mut MergeJob) -> Merged {
        let Some((batch, slots)) = job.batch.take().filter(|_| !job.run.is_deleted()) else {
            return Merged::default();
        };
        let merged = catch_unwind(AssertUnwindSafe(|| self.add(&batch, &slots))).unwrap_or_else(|_| {
            self.metrics.worker_panics.inc();
            Err("a fault of the service".to_string())
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

    /// Returns why the diagnostics lack this batch, if they do: its rows count all the same.
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
        // HeldRows while it computes: one worker's batches come one after another, and a report so far may wait.
        let mut gathered = slots.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let _timer = self.metrics.stages.enter(Stage::Accumulate);
        Ok(gather(&*self.backend, batch, &mut gathered).err())
    }
}
