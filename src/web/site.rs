//! The state of the read side.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ingest::Bodies;
use crate::pipeline::Pipeline;
use crate::publish::{Board, History, ServiceMetrics};

#[derive(Clone)]
pub(crate) struct Site {
    /// For close, finish, acknowledge, delete, and everything published.
    pub pipeline: Arc<Pipeline>,
    pub bodies: Arc<Bodies>,
    pub events: EventPlaces,
    pub max_series: usize,
    pub spectrum_threads: usize,
}

impl Site {
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.pipeline.reports.board
    }

    pub(super) fn history(&self) -> &Arc<History> {
        &self.pipeline.reports.history
    }

    pub(super) fn metrics(&self) -> &ServiceMetrics {
        &self.pipeline.reports.metrics
    }
}

pub(super) const MAX_STREAMS: usize = 64;

#[derive(Clone)]
pub(crate) struct EventPlaces(Arc<Semaphore>);

impl Default for EventPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

impl EventPlaces {
    /// Takes a place for one more stream until it drops.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    pub(super) fn used(&self) -> usize {
        MAX_STREAMS - self.0.available_permits()
    }
}
