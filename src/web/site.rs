//! What the read side needs.

use std::sync::Arc;

use super::events::EventPlaces;
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
