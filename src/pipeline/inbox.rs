//! The one way in: decode, check, claim, queue. Both doors call `submit`.
//!
//! Guarantees: answers at once (a full inbox or budget is refused, never waited for); what is answered 202 is queued
//! and its seq claimed. Must not: merge or measure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::budget::{Budget, Reservation};
use super::layer::{Admission, Checked, Layer, Reason, Waiter};
use super::line::Line;
use super::policy::Policy;
use super::registry::{OpenView, Registry};
use super::solver_room::SolverRoom;
use super::work::{Job, Queues, Task};
use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::decode::{DecodeError, Tensor};
use crate::analysis::origin::Precision;
use crate::analysis::parameters::Parameters;
use crate::compute::Backend;
use crate::error::{Code, Refusal};
use crate::publish::{Board, History, Published, Service};
use crate::telemetry::Stage;

/// A push as a door builds it.
pub struct RawBatch {
    /// Where it came from and where it goes.
    pub origin: Origin,
    /// Decodes the body; run on a thread that may be busy for a while.
    pub decode: Decode,
}

/// Decodes a body to its tensors and all its parameters.
pub type Decode = Box<dyn FnOnce() -> Result<(Vec<Tensor>, Parameters), DecodeError> + Send>;

/// Where a push came from and where it goes.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `http` or `grpc`.
    pub door: &'static str,
    /// The run's name, checked.
    pub run: String,
    /// The layer's name, checked.
    pub layer: String,
    /// The body, decompressed: whoever holds it holds its place in the budget of bodies, until it is merged.
    pub body: Bytes,
    /// When it came.
    pub arrived: Timestamp,
}

/// A push that was taken.
pub struct Accepted {
    /// The window it went to.
    pub window: u64,
    /// Rows admitted to the window so far.
    pub rows: u64,
    /// It was here before, and counts once.
    pub duplicate: bool,
    /// With `wait`: the report, when it is ready.
    pub report: Option<oneshot::Receiver<Arc<Published>>>,
}

/// What bounds the pipeline.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Batches accepted and not yet merged.
    pub inbox_batches: usize,
    /// Bytes of accumulators and reservoirs.
    pub accumulator_bytes: usize,
    /// Bytes of all solves under way.
    pub solver_bytes: usize,
    /// Layers of runs that have not expired.
    pub streams: usize,
    /// Windows that wait for their eigenvalues; more are measured without.
    pub spectra_waiting: usize,
    /// Seconds that a window waits for missing workers once a later one was pushed.
    pub window_patience_s: i64,
    /// Seconds after finish until a run's series leave /metrics.
    pub run_ttl_s: i64,
    /// Seconds without a push after which a run counts as finished.
    pub idle_finish_s: i64,
}

/// See the file's head.
pub struct Inbox {
    pub(super) limits: Limits,
    pub(super) registry: Mutex<Registry>,
    pub(super) memory: Arc<Budget>,
    pub(super) room: SolverRoom,
    pub(super) policy: Policy,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) precision: Precision,
    pub(super) board: Arc<Board>,
    pub(super) history: Arc<History>,
    pub(super) service: Arc<Service>,
    pub(super) queues: Queues,
    pub(super) draining: AtomicBool,
}

impl Inbox {
    /// Takes a push, or refuses it. May decode for a while: not for a thread that serves sockets when the body is large.
    ///
    /// # Errors
    /// Everything in the contract's refusal table.
    pub fn submit(&self, raw: RawBatch) -> Result<Accepted, Refusal> {
        let (door, bytes) = (raw.origin.door, raw.origin.body.len());
        let span = tracing::debug_span!("batch", door, run = raw.origin.run, layer = raw.origin.layer, bytes);
        let _entered = span.enter();
        let result = self.try_submit(&raw.origin, raw.decode);
        match &result {
            Ok(accepted) => self.service.accepted(door, bytes, accepted.duplicate),
            Err(refusal) => self.service.rejected(door, refusal.code),
        }
        result
    }

    pub(super) fn line(&self) -> Line<'_> {
        Line { backend: &*self.backend, stages: &self.service.stages, precision: self.precision, room: &self.room }
    }

    /// What can be refused before a body is read.
    ///
    /// # Errors
    /// `draining`, `storage_full` or `overloaded`.
    pub fn has_room(&self) -> Result<(), Refusal> {
        self.is_open()?;
        self.queue_has_room(&self.lock())
    }

    /// Whether pushes are taken at all.
    ///
    /// # Errors
    /// `draining` or `storage_full`.
    pub fn is_open(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Refusal::new(Code::Draining, "the service is stopping: push again once it is back"));
        }
        if let Some(fault) = self.history.fault() {
            return Err(Refusal::new(
                Code::StorageFull,
                format!("reports cannot be stored: {fault}; free space under the data directory, then push again"),
            ));
        }
        Ok(())
    }

    fn queue_has_room(&self, registry: &Registry) -> Result<(), Refusal> {
        if registry.queued < self.limits.inbox_batches {
            return Ok(());
        }
        Err(Refusal::over(
            Code::Overloaded,
            format!("{} batches wait to be merged: push again in a moment, or push fewer rows", registry.queued),
            self.limits.inbox_batches as u64,
        ))
    }

    fn try_submit(&self, raw: &Origin, decode: Decode) -> Result<Accepted, Refusal> {
        let batch = {
            let _timer = self.service.stages.enter(Stage::Decode);
            let (tensors, parameters) = decode()?;
            EmbeddingBatch::new(tensors, parameters).map_err(|error| {
                self.count_nonfinite(&raw.run, &raw.layer, &error);
                Refusal::from(error)
            })?
        };
        let mut registry = self.lock();
        let checked = match registry.runs.get(&raw.run).and_then(|run| run.layers.get(&raw.layer)) {
            Some(layer) => layer.check(&batch),
            None => Layer::default().check(&batch),
        };
        // The drain closes every window: who pushes to one meanwhile may come back, and is told so.
        let checked = checked.map_err(|refusal| self.is_open().err().unwrap_or(refusal))?;
        match checked {
            Checked::Duplicate { window } => {
                let mut accepted = self.duplicate(&mut registry, raw, &batch, window);
                drop(registry);
                if accepted.rows == 0 {
                    // Closed and stored: the report tells how many there were.
                    let stored = self.history.report(&raw.run, &raw.layer, accepted.window);
                    accepted.rows = stored.map_or(0, |published| published.report.rows);
                }
                Ok(accepted)
            }
            Checked::Admit(admission) => {
                self.is_open()?;
                let memory = self.room(&registry, raw, &admission)?;
                Ok(self.admit(&mut registry, raw, batch, (admission, memory)))
            }
        }
    }

    /// Everything that is refused for want of room, before anything changes.
    fn room(&self, registry: &Registry, raw: &Origin, admission: &Admission) -> Result<Reservation, Refusal> {
        let run = registry.runs.get(&raw.run);
        let known = run.is_some_and(|run| !run.expired && run.layers.contains_key(&raw.layer));
        if !known && registry.streams() >= self.limits.streams {
            return Err(Refusal::over(
                Code::TooManyStreams,
                format!("{} layers of unfinished runs are being watched: finish or delete runs", registry.streams()),
                self.limits.streams as u64,
            ));
        }
        self.queue_has_room(registry)?;
        let (limit, needed) = (self.memory.limit(), admission.bytes);
        if needed > limit {
            return Err(Refusal::over(
                Code::TooLarge,
                format!(
                    "this batch needs {needed} bytes of accumulators, more than there are; project to a smaller dimension or raise --accumulator-bytes"
                ),
                limit as u64,
            ));
        }
        self.memory.reserve(needed).ok_or_else(|| {
            Refusal::over(
                Code::Overloaded,
                format!(
                    "this batch needs {needed} bytes of accumulators and {} of {limit} are in use by open windows: close windows, or push again in a moment",
                    self.memory.used()
                ),
                limit as u64,
            )
        })
    }

    fn admit(
        &self,
        registry: &mut Registry,
        raw: &Origin,
        batch: EmbeddingBatch,
        at: (Admission, Reservation),
    ) -> Accepted {
        let (admission, memory) = at;
        let now = raw.arrived;
        let run = registry.open_run(&raw.run, now);
        let parameters = &batch.parameters;
        run.method = parameters.method.or(run.method);
        run.last_push = run.last_push.max(now);
        run.finished_at = None;
        run.expired = false;
        let id = run.id;
        let layer = run.layers.entry(raw.layer.clone()).or_default();
        let opened = !layer.open.contains_key(&admission.window);
        let memory = Arc::new(memory);
        let slots = layer.admit(&batch, &admission, Arc::clone(&memory), now);
        let rows = layer.open.get(&admission.window).map_or(0, |open| open.rows);
        let (reply, report) = channel(parameters.wait);
        let mut reply = reply;
        for window in layer.finished_windows() {
            layer.close(window, Reason::Done, now);
            if window == admission.window
                && let Some(closing) = layer.closing.back_mut()
            {
                closing.waiters.extend(reply.take());
            }
        }
        let closes = !layer.open.contains_key(&admission.window);
        let mut layers: Vec<String> =
            batch.parts.iter().map(|part| format!("{}{}", raw.layer, part.role.suffix())).collect();
        if batch.speaks_of_layer() && !layers.contains(&raw.layer) {
            layers.push(raw.layer.clone());
        }
        self.board.pushed((&raw.run, layers), run.method, parameters, (admission.window, now));
        registry.queued += 1;
        self.service.rows.inc_by(batch.parts.iter().map(|part| part.rows()).sum());
        self.queues.job(Job {
            run: raw.run.clone(),
            run_id: id,
            layer: raw.layer.clone(),
            window: admission.window,
            revision: admission.revision,
            worker: parameters.worker.unwrap_or(0),
            push: Some((batch, slots)),
            reply,
            holds: Some((memory, raw.body.clone())),
            // A window that one push opens and closes needs no mark for the case that the service is killed in between.
            mark_open: (opened && !closes).then_some(now),
            span: tracing::Span::current(),
        });
        self.dispatch(registry, &raw.run);
        Accepted { window: admission.window, rows, duplicate: false, report }
    }

    fn duplicate(
        &self,
        registry: &mut Registry,
        raw: &Origin,
        batch: &EmbeddingBatch,
        window: Option<u64>,
    ) -> Accepted {
        let run_id = registry.runs.get(&raw.run).map_or(0, |run| run.id);
        let Some(layer) = registry.layer(&raw.run, run_id, &raw.layer) else {
            return Accepted { window: 0, rows: 0, duplicate: true, report: None };
        };
        let newest = layer.open.last_key_value().map(|(window, _)| *window).max(layer.closed.last());
        let window = window.or(newest).unwrap_or(0);
        // The seq was another window's, and the window that this push names has no report: there is nothing to wait for.
        let open = layer.open.get(&window);
        let known = open.map_or(layer.closed.get(window).is_some(), |open| open.holds(&batch.parameters));
        let (reply, report) = channel(batch.parameters.wait.filter(|_| known));
        let mut rows = 0;
        if let Some(open) = layer.open.get_mut(&window) {
            rows = open.rows;
            if reply.is_some() {
                // After this worker's batches that wait to be merged, the first copy of this one among them.
                open.pending += 1;
                let revision = open.revision;
                registry.queued += 1;
                self.queues.job(Job {
                    run: raw.run.clone(),
                    run_id,
                    layer: raw.layer.clone(),
                    window,
                    revision,
                    worker: batch.parameters.worker.unwrap_or(0),
                    push: None,
                    reply,
                    holds: None,
                    mark_open: None,
                    span: tracing::Span::current(),
                });
            }
        } else if let Some(closing) = layer.closing.iter_mut().rev().find(|closing| closing.window == window) {
            rows = closing.content.rows;
            closing.waiters.extend(reply);
        } else if let Some(reply) = reply {
            // Stored, or about to be: answered by the thread that stores this layer's reports, after what is under way.
            self.queues.task(&raw.run, &raw.layer, Task::stored((&raw.run, &raw.layer), window, reply));
        }
        Accepted { window, rows, duplicate: true, report }
    }

    fn count_nonfinite(&self, run: &str, layer: &str, error: &DecodeError) {
        let DecodeError::NotFinite { rows, .. } = error else { return };
        let mut registry = self.lock();
        let found = registry.runs.get_mut(run).and_then(|run| run.layers.get_mut(layer));
        if let Some(found) = found {
            found.nonfinite_rows += *rows as u64;
            self.board.nonfinite(run, layer, found.nonfinite_rows);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics under the lock; if it did, the counts in it are still the best there are.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of accumulators and reservoirs in use.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// Bytes of solves under way.
    pub fn solver_bytes_used(&self) -> usize {
        self.room.used()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Batches accepted and not yet merged.
    pub fn queued(&self) -> usize {
        self.lock().queued
    }

    /// Layers of unexpired runs.
    pub fn streams(&self) -> usize {
        self.lock().streams()
    }

    /// Open windows of a run, by layer.
    pub fn open_windows(&self, run: &str) -> Vec<(String, Vec<OpenView>)> {
        let registry = self.lock();
        let Some(run) = registry.runs.get(run) else { return Vec::new() };
        let of_layer =
            |layer: &Layer| layer.open.iter().map(|(w, open)| OpenView { window: *w, rows: open.rows }).collect();
        run.layers.iter().map(|(name, layer)| (name.clone(), of_layer(layer))).collect()
    }
}

fn channel(wait: Option<bool>) -> (Option<Waiter>, Option<oneshot::Receiver<Arc<Published>>>) {
    if wait != Some(true) {
        return (None, None);
    }
    let (sender, receiver) = oneshot::channel();
    (Some(sender), Some(receiver))
}
