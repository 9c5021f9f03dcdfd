//! What is stored in the history, and what the history returns at the start.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::analysis::parameters::Method;
use crate::analysis::report::FullReport;
use crate::identity::WindowKey;

/// A closed window of one layer: everything that is stored in one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub window: WindowKey,
    /// The number of sessions when the window closed: one that comes later is new to it.
    pub sessions: u64,
    /// The run and the layer at this time.
    pub run: StoredRun,
    /// One report per role.
    pub reports: Vec<Arc<FullReport>>,
    pub published: Vec<PublishedState>,
}

/// The stored state of a run, and of the layer whose window closed.
#[derive(Clone, Debug)]
pub(crate) struct StoredRun {
    pub method: Option<Method>,
    pub last_push: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub layer_memory: String,
}

/// The published state of a layer's verdict, for after a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedState {
    pub layer: String,
    /// The window since which the published state holds.
    pub since_window: u64,
    pub latched: Option<ReportPlace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPlace {
    pub window: u64,
    pub revision: u32,
}

#[derive(Debug)]
pub struct Restored {
    pub run: String,
    pub method: Option<String>,
    pub last_push: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub layers: Vec<RestoredLayer>,
    pub published: Vec<PublishedState>,
    /// Windows that were open.
    pub interrupted: Vec<InterruptedWindow>,
}

#[derive(Debug)]
pub struct RestoredLayer {
    pub layer: String,
    pub memory: String,
    pub closed: Vec<StoredClose>,
}

#[derive(Clone, Copy, Debug)]
pub struct StoredClose {
    pub window: u64,
    pub revision: u32,
    pub sessions: u64,
}

/// A window whose rows were lost when the service stopped without draining.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct InterruptedWindow {
    /// The layer as pushed.
    pub layer: String,
    /// Its number.
    pub window: u64,
}
