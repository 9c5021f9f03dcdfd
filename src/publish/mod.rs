//! What the world sees: the board (the newest of everything), the history (SQLite), the metrics.
//!
//! Guarantees: a verdict once collapsed stays published so until acknowledged, deleted or expired. Must not: compute,
//! read a clock, or name the pipeline.

mod board;
mod course;
pub mod dashboards;
mod history;
mod metrics;
pub mod notify;
mod report_json;
mod report_read;
mod service;
mod tables;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::analysis::report::Report;

pub use board::{Board, LayerView, RunView, Since, VerdictView};
pub use course::{Course, Span, Window};
pub use history::{History, HistoryError, Restored, RestoredLayer};
pub use metrics::{RunCollector, log_spaced_components};
pub use report_json::verdict_value;
pub use service::{Build, Service};

/// A report with its rendering and its eigenvalues.
#[derive(Debug)]
pub struct Published {
    /// The report.
    pub report: Report,
    /// As JSON, the contract's shape.
    pub json: Value,
    /// Descending; `None` when the solver failed or was skipped; fewer than d when the spectrum was estimated.
    pub eigenvalues: Option<Vec<f64>>,
}

impl Published {
    /// Renders a report.
    pub fn new(report: Report, eigenvalues: Option<Vec<f64>>) -> Self {
        let json = report_json::report_value(&report);
        Self { report, json, eigenvalues }
    }

    /// Whether every eigenvalue is known; without a spectrum there is nothing to know.
    pub fn complete_spectrum(&self) -> Option<bool> {
        self.eigenvalues.as_ref().map(|values| values.len() == self.report.dim)
    }
}

/// A closed window of one layer with everything that is stored in one transaction.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The run.
    pub run: String,
    /// The layer as pushed.
    pub layer: String,
    /// The window.
    pub window: u64,
    /// The window's revision.
    pub revision: u32,
    /// Sessions that the layer knew when the window closed: one that comes later is new to it.
    pub sessions: u64,
    /// The run's method.
    pub method: Option<&'static str>,
    /// When rows last came.
    pub last_push: Timestamp,
    /// When the run was finished.
    pub finished_at: Option<Timestamp>,
    /// The layer's memory, as JSON.
    pub layer_state: String,
    /// One report a role.
    pub reports: Vec<Arc<Published>>,
    /// The run's published states: (layer, state, since window, latched report's window and revision).
    pub latched: Vec<PublishedState>,
}

/// What is published of a layer's verdict, to be found again after a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedState {
    /// The layer, with its role's suffix.
    pub layer: String,
    /// Since which window the published state holds.
    pub since_window: u64,
    /// Window and revision of the report that latched it.
    pub latched: Option<(u64, u32)>,
}
