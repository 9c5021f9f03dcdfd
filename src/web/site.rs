//! What the read side needs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ingest::Bodies;
use crate::pipeline::Pipeline;
use crate::publish::{Board, History, ServiceMetrics};

/// See the file's head.
#[derive(Clone)]
pub struct Site {
    /// For close, finish, acknowledge, delete, and what is published.
    pub pipeline: Arc<Pipeline>,
    /// Bodies in flight, for the limits.
    pub bodies: Arc<Bodies>,
    /// Places for event streams.
    pub events: EventPlaces,
    /// Series cap, for the limits.
    pub max_series: usize,
    /// Threads that solve, for the limits.
    pub spectrum_threads: usize,
}

impl Site {
    /// The newest of everything.
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.pipeline.reports.board
    }

    /// Everything stored.
    pub(super) fn history(&self) -> &Arc<History> {
        &self.pipeline.reports.history
    }

    /// Counters and the registry.
    pub(super) fn metrics(&self) -> &ServiceMetrics {
        &self.pipeline.reports.metrics
    }
}

/// Event streams at once.
pub(super) const MAX_STREAMS: usize = 64;

/// The places for streams.
#[derive(Clone)]
pub struct EventPlaces(Arc<Semaphore>);

impl Default for EventPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

impl EventPlaces {
    /// A place for one more stream, until it drops.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    /// Streams that are open.
    pub(super) fn used(&self) -> usize {
        MAX_STREAMS - self.0.available_permits()
    }
}
