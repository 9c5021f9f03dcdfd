//! What the history is given to store, and what it gives back at the start.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::analysis::parameters::Method;
use crate::analysis::report::FullReport;
use crate::identity::WindowKey;

/// A closed window of one layer with everything that is stored in one transaction.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Which.
    pub window: WindowKey,
    /// Sessions that the layer knew when the window closed: one that comes later is new to it.
    pub sessions: u64,
    /// The run and the layer as they are now.
    pub run: StoredRun,
    /// One report per role.
    pub reports: Vec<Arc<FullReport>>,
    /// What is published of the run's layers.
    pub published: Vec<PublishedState>,
}

/// What is stored of a run, and of the layer whose window closed.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// The run's method.
    pub method: Option<Method>,
    /// When rows last came.
    pub last_push: Timestamp,
    /// When the run was finished.
    pub finished_at: Option<Timestamp>,
    /// The layer's memory, as JSON.
    pub layer_memory: String,
}

/// What is published of a layer's verdict, to be found again after a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedState {
    /// The layer, with its role's suffix.
    pub layer: String,
    /// Since which window the published state holds.
    pub since_window: u64,
    /// The report that latched it.
    pub latched: Option<ReportPlace>,
}

/// Where a layer's report stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPlace {
    /// The window.
    pub window: u64,
    /// Its revision.
    pub revision: u32,
}

/// A run as the history knows it.
#[derive(Debug)]
pub struct Restored {
    /// Its name.
    pub run: String,
    /// Its method's word.
    pub method: Option<String>,
    /// When rows last came.
    pub last_push: Timestamp,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
    /// Its layers, as pushed.
    pub layers: Vec<RestoredLayer>,
    /// What was published.
    pub published: Vec<PublishedState>,
    /// Windows that were open.
    pub interrupted: Vec<InterruptedWindow>,
}

/// A layer as the history knows it.
#[derive(Debug)]
pub struct RestoredLayer {
    /// Its name.
    pub layer: String,
    /// Its memory, as JSON.
    pub memory: String,
    /// Its closed windows.
    pub closed: Vec<StoredClose>,
}

/// How a window ended.
#[derive(Clone, Copy, Debug)]
pub struct StoredClose {
    /// Its number.
    pub window: u64,
    /// Its newest revision.
    pub revision: u32,
    /// Sessions that were known at the close.
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
