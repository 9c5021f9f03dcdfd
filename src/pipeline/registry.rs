//! All runs and their layers: the data behind the lock in `admission`.
//!
//! Guarantees: a batch is admitted whole; a deleted run is never found through its old handle. Must not: compute,
//! lock itself, or read a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::accumulation::{MergeJob, Merged};
use super::handle::RunHandle;
use super::layer::{CloseReason, Closing, LayerState, Waiter, WindowPlace};
use super::layer_memory;
use super::push::{Accepted, Arrival, channel};
use super::report_task::ReportTask;
use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::parameters::Method;
use crate::budget::Reservation;
use crate::error::Refusal;
use crate::identity::{LayerName, RunName, WindowKey};
use crate::publish::{PushView, StoredRun};

#[derive(Debug)]
pub(super) struct RunState {
    pub(super) name: RunName,
    /// Shared with all work in progress for this run.
    pub(super) handle: Arc<RunHandle>,
    pub(super) method: Option<Method>,
    pub(super) last_push: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    /// Its series have left /metrics, and it no longer counts towards the limit on streams.
    pub(super) expired: bool,
    pub(super) layers: BTreeMap<LayerName, LayerState>,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) runs: BTreeMap<RunName, RunState>,
    pub(super) queued: usize,
}

/// An open window as the read side shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OpenView {
    pub window: u64,
    /// Rows admitted so far.
    pub rows: u64,
}

pub(super) struct Admitted {
    pub(super) job: MergeJob,
    pub(super) accepted: Accepted,
    pub(super) view: PushView,
    pub(super) rows: u64,
}

/// The answer to a push that was accepted before.
pub(super) struct Repeated {
    pub(super) accepted: Accepted,
    /// Answer with an interim report, after the work in progress.
    pub(super) job: Option<MergeJob>,
    /// The window is stored, or about to be; the client that waits for its report.
    pub(super) stored: Option<Option<Waiter>>,
}

impl Registry {
    pub(super) fn streams(&self) -> usize {
        self.runs.values().filter(|run| !run.expired).map(|run| run.layers.len()).sum()
    }

    pub(super) fn run(&mut self, run: &str) -> Result<&mut RunState, Refusal> {
        self.runs.get_mut(run).ok_or_else(|| Refusal::not_found(format!("run {}", run.escape_debug())))
    }

    pub(super) fn open_run(&mut self, name: &RunName, now: Timestamp) -> &mut RunState {
        self.runs.entry(name.clone()).or_insert_with(|| RunState {
            name: name.clone(),
            handle: Arc::default(),
            method: None,
            last_push: now,
            finished_at: None,
            expired: false,
            layers: BTreeMap::new(),
        })
    }

    /// Forgets a run, also for all work in progress.
    pub(super) fn delete(&mut self, run: &str) -> Result<(), Refusal> {
        self.run(run)?.handle.delete();
        self.runs.remove(run);
        Ok(())
    }

    /// The layer of work in progress, unless its run was deleted in the meantime.
    fn layer(&mut self, handle: &RunHandle, window: &WindowKey) -> Option<&mut LayerState> {
        if handle.is_deleted() {
            return None;
        }
        self.runs.get_mut(&window.run)?.layers.get_mut(&window.layer)
    }

    /// Adds a checked batch to its run, layer and window, and makes the job that merges it.
    pub(super) fn admit(
        &mut self,
        arrival: &Arrival,
        batch: EmbeddingBatch,
        place: WindowPlace,
        memory: Arc<Reservation>,
    ) -> Admitted {
        let now = arrival.arrived;
        let parameters = batch.parameters.clone();
        let run = self.open_run(&arrival.run, now);
        run.method = parameters.method.or(run.method);
        run.last_push = run.last_push.max(now);
        run.finished_at = None;
        run.expired = false;
        let view = PushView {
            run: arrival.run.clone(),
            layers: batch.layers(&arrival.layer),
            method: run.method,
            step: parameters.step,
            window: place.window,
            loss: parameters.scalars.get("loss").copied(),
            at: now,
        };
        let handle = Arc::clone(&run.handle);
        let layer = run.layers.entry(arrival.layer.clone()).or_default();
        let opened = !layer.open.contains_key(&place.window);
        let slots = layer.admit(&batch, &place, Arc::clone(&memory), now);
        let rows = layer.open.get(&place.window).map_or(0, |open| open.rows);
        let (mut reply, report) = channel(parameters.wait);
        layer.close_finished(place.window, &mut reply, now);
        // A window that one push opens and closes needs no mark in case the service is killed in between.
        let mark_open = opened && layer.open.contains_key(&place.window);
        self.queued += 1;
        Admitted {
            view,
            rows: batch.parts.iter().map(|part| part.rows()).sum(),
            job: MergeJob {
                run: handle,
                window: arrival.window(place.window, place.revision),
                worker: parameters.worker.unwrap_or(0),
                batch: Some((batch, slots)),
                reply,
                holds: Some((memory, arrival.body.clone())),
                mark_open: mark_open.then_some(now),
                span: tracing::Span::current(),
            },
            accepted: Accepted { window: place.window, rows, duplicate: false, report },
        }
    }

    pub(super) fn repeat(&mut self, arrival: &Arrival, batch: &EmbeddingBatch, window: Option<u64>) -> Repeated {
        let nothing = Accepted { window: 0, rows: 0, duplicate: true, report: None };
        let mut repeated = Repeated { accepted: nothing, job: None, stored: None };
        let Some(run) = self.runs.get_mut(&arrival.run) else { return repeated };
        let Some(layer) = run.layers.get_mut(&arrival.layer) else { return repeated };
        let window = window.or(layer.newest_window()).unwrap_or(0);
        // The seq went to another window, and the window that this push names has no report: there is nothing to wait
        // for.
        let open = layer.open.get(&window);
        let known = open.map_or(layer.closed.contains_key(&window), |open| open.holds(&batch.parameters));
        let (reply, report) = channel(batch.parameters.wait.filter(|_| known));
        repeated.accepted = Accepted { window, rows: 0, duplicate: true, report };
        if let Some(open) = layer.open.get_mut(&window) {
            repeated.accepted.rows = open.rows;
            if reply.is_some() {
                // After this worker's queued batches, which include the first copy of this one.
                open.pending += 1;
                self.queued += 1;
                repeated.job = Some(MergeJob {
                    run: Arc::clone(&run.handle),
                    window: arrival.window(window, open.revision),
                    worker: batch.parameters.worker.unwrap_or(0),
                    batch: None,
                    reply,
                    holds: None,
                    mark_open: None,
                    span: tracing::Span::current(),
                });
            }
        } else if let Some(closing) = layer.closing.iter_mut().rev().find(|closing| closing.window == window) {
            repeated.accepted.rows = closing.content.rows;
            closing.waiters.extend(reply);
        } else {
            repeated.stored = Some(reply);
        }
        repeated
    }

    /// A batch was merged, or could not be. Returns the interim report that its push asked for, if any.
    pub(super) fn settle(&mut self, job: &mut MergeJob, merged: Merged) -> Option<ReportTask> {
        self.queued = self.queued.saturating_sub(1);
        let method = self.runs.get(&job.window.run).and_then(|run| run.method);
        let layer = self.layer(&job.run, &job.window)?;
        let memory = Arc::clone(&layer.verdicts);
        let open = layer.find(job.window.window, job.window.revision)?;
        open.pending -= 1;
        open.notes.extend(merged.note);
        open.lost_rows |= merged.lost_rows;
        let reply = job.reply.take()?;
        let mut task = ReportTask::new(Arc::clone(&job.run), job.window.clone(), open, memory);
        task.method = method;
        task.waiters.push(reply);
        Some(task)
    }

    /// The closed windows of a run whose batches are all merged, oldest first per layer.
    pub(super) fn closed_windows(&mut self, run: &str) -> Vec<ReportTask> {
        let Some(run) = self.runs.get_mut(run) else { return Vec::new() };
        let mut tasks = Vec::new();
        for (layer_name, layer) in &mut run.layers {
            for mut closing in layer.ready() {
                let window = WindowKey {
                    run: run.name.clone(),
                    layer: layer_name.clone(),
                    window: closing.window,
                    revision: closing.content.revision,
                };
                let memory = Arc::clone(&layer.verdicts);
                let mut task = ReportTask::new(Arc::clone(&run.handle), window, &closing.content, memory);
                task.method = run.method;
                task.waiters = std::mem::take(&mut closing.waiters);
                task.closing = Some(closing);
                tasks.push(task);
            }
        }
        tasks
    }

    /// Called when a window's reports are about to be stored: from then on its seqs survive a restart. Returns what is
    /// stored of the run and the layer; `None` if the run was deleted in the meantime.
    pub(super) fn settle_window(&mut self, task: &ReportTask, closing: &Closing) -> Option<StoredRun> {
        let layer = self.layer(&task.run, &task.window)?;
        layer.settle(closing);
        let layer_memory = layer_memory::to_json(layer);
        let run = self.runs.get(&task.window.run)?;
        let (method, last_push, finished_at) = (run.method, run.last_push, run.finished_at);
        Some(StoredRun { method, last_push, finished_at, layer_memory })
    }
}

impl RunState {
    pub(super) fn close_all(&mut self, reason: CloseReason, now: Timestamp) {
        for layer in self.layers.values_mut() {
            let windows: Vec<u64> = layer.open.keys().copied().collect();
            for window in windows {
                layer.close(window, reason, now);
            }
        }
    }
}
