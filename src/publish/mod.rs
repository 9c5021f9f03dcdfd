//! What others can see: the board (the newest state of everything), the history (SQLite), the metrics, alerts.
//!
//! Guarantees: a collapsed verdict is latched: it stays published until acknowledged, deleted or expired. Must not:
//! compute, read a clock, or name the pipeline.

mod board;
mod history;
mod history_error;
mod history_points;
pub mod notify;
mod run_metrics;
mod saved;
mod service_metrics;
mod tables;

pub use board::Board;
pub(crate) use board::{LayerView, PushView, RunView};
pub use history::History;
pub(crate) use history_error::HistoryError;
pub(crate) use history_points::{HistoryPoint, HistoryPoints, PointsQuery};
pub use run_metrics::RunCollector;
pub(crate) use saved::{InterruptedWindow, Restored, Saved, StoredClose, StoredRun};
pub use service_metrics::{Build, ServiceMetrics};
