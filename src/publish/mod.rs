//! What the world sees: the board (the newest of everything), the history (SQLite), the metrics, alerts.
//!
//! Guarantees: a verdict once collapsed stays published so until acknowledged, deleted or expired. Must not: compute,
//! read a clock, or name the pipeline.

mod board;
mod history;
mod history_error;
mod history_points;
pub mod notify;
mod run_metrics;
mod saved;
mod service_metrics;
mod tables;

pub use board::{Board, Changes, LayerView, PushView, RunView, VerdictView};
pub use history::{History, ReportPage};
pub use history_error::HistoryError;
pub use history_points::{HistoryPoint, HistoryPoints, PointsQuery};
pub use run_metrics::{RunCollector, log_spaced_components};
pub use saved::{
    InterruptedWindow, PublishedState, ReportPlace, Restored, RestoredLayer, Saved, StoredClose, StoredRun,
};
pub use service_metrics::{Build, ServiceMetrics};
