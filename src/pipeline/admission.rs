//! Admitting pushes: whether there is room, and for what.
//!
//! Guarantees: answers immediately (a full queue or budget refuses and never waits); a check changes nothing. Must not:
//! merge or measure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layer::{Admissibility, LayerState, WindowPlace};
use super::push::Arrival;
use super::registry::{OpenView, Registry};
use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::decode::DecodeError;
use crate::budget::{Budget, Reservation};
use crate::error::{Code, Refusal};
use crate::publish::History;

/// The limits of the pipeline.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Batches accepted and not yet merged.
    pub inbox_batches: usize,
    /// Bytes of accumulators and row samples.
    pub(crate) accumulator_bytes: usize,
    /// Bytes of all solves in progress.
    pub solver_bytes: usize,
    /// Layers of runs that have not expired.
    pub streams: usize,
    /// Windows that may wait for their eigenvalues; more are measured without.
    pub(crate) spectra_waiting: usize,
    /// Seconds that a window waits for missing workers once a later window was pushed.
    pub(crate) window_patience_s: i64,
    /// Seconds after finish until a run's series leave /metrics.
    pub(crate) run_ttl_s: i64,
    /// Seconds without a push after which a run counts as finished.
    pub(crate) idle_finish_s: i64,
}

pub struct Admission {
    pub limits: Limits,
    /// Bytes of accumulators and row samples of open windows, and of closed ones that wait.
    pub memory: Arc<Budget>,
    registry: Mutex<Registry>,
    history: Arc<History>,
    draining: AtomicBool,
}

impl Admission {
    pub(super) fn new(limits: Limits, registry: Registry, history: Arc<History>) -> Self {
        let memory = Budget::new(limits.accumulator_bytes);
        Self { limits, memory, registry: Mutex::new(registry), history, draining: AtomicBool::new(false) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics under the lock; if it did, its counts would still be the best available.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what can be refused before a body is read.
    ///
    /// # Errors
    /// `draining`, `storage_full` or `overloaded`.
    pub fn has_room(&self) -> Result<(), Refusal> {
        self.is_open()?;
        self.queue_has_room(&self.lock())
    }

    /// Whether pushes are accepted at all.
    /// Refuses with `draining` or `storage_full`.
    pub(crate) fn is_open(&self) -> Result<(), Refusal> {
        if self.is_draining() {
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

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.draining.store(true, Ordering::Release);
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

    pub(super) fn check(
        &self,
        registry: &Registry,
        arrival: &Arrival,
        batch: &EmbeddingBatch,
    ) -> Result<Admissibility, Refusal> {
        let checked = match registry.runs.get(&arrival.run).and_then(|run| run.layers.get(&arrival.layer)) {
            Some(layer) => layer.check(batch),
            None => LayerState::default().check(batch),
        };
        // The drain closes every window: a client that pushes to one meanwhile may retry, and is told so.
        let checked = checked.map_err(|refusal| self.is_open().err().unwrap_or(refusal))?;
        if matches!(checked, Admissibility::Admit(_)) {
            self.is_open()?;
        }
        Ok(checked)
    }

    /// Reserves the memory that a batch needs, or refuses it if there is no room.
    pub(super) fn reserve(
        &self,
        registry: &Registry,
        arrival: &Arrival,
        place: &WindowPlace,
    ) -> Result<Arc<Reservation>, Refusal> {
        let run = registry.runs.get(&arrival.run);
        let known = run.is_some_and(|run| !run.expired && run.layers.contains_key(&arrival.layer));
        if !known && registry.streams() >= self.limits.streams {
            return Err(Refusal::over(
                Code::TooManyStreams,
                format!("{} layers of unfinished runs are being watched: finish or delete runs", registry.streams()),
                self.limits.streams as u64,
            ));
        }
        self.queue_has_room(registry)?;
        let (limit, needed) = (self.memory.limit(), place.bytes);
        if needed > limit {
            return Err(Refusal::over(
                Code::TooLarge,
                format!(
                    "this batch needs {needed} bytes of accumulators, more than the budget; project to a smaller dimension or raise --accumulator-bytes"
                ),
                limit as u64,
            ));
        }
        self.memory.try_reserve(needed).map(Arc::new).ok_or_else(|| {
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

    /// Counts the rows of a refused batch that are not finite; per layer, if the layer is known.
    pub(super) fn count_unusable(&self, arrival: &Arrival, error: &DecodeError) -> Option<u64> {
        let DecodeError::NotFinite { rows, .. } = error else { return None };
        let mut registry = self.lock();
        let layer = registry.runs.get_mut(&arrival.run)?.layers.get_mut(&arrival.layer)?;
        layer.nonfinite_rows += *rows as u64;
        Some(layer.nonfinite_rows)
    }

    pub(crate) fn queued(&self) -> usize {
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
            |layer: &LayerState| layer.open.iter().map(|(w, open)| OpenView { window: *w, rows: open.rows }).collect();
        run.layers.iter().map(|(name, layer)| (name.to_string(), of_layer(layer))).collect()
    }
}
