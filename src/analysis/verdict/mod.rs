//! The verdict: two axes and a cause for one window (`judge`), and what time makes of them (`memory`).
//!
//! Guarantees: each reason names a measure, its value and the threshold it passed. Must not: measure.

mod baseline;
mod judge;
mod judgement;
mod memory;
mod method_alarms;
mod thresholds;
mod words;

pub use baseline::{Baseline, SeenWindow};
pub use judge::judge;
pub use judgement::{JudgedWindow, Judgement};
pub use memory::VerdictMemory;
pub use thresholds::{TABLE as THRESHOLDS, Thresholds};
pub use words::{Alarm, Cause, FiringAlarm, Level, Verdict, VerdictReason, VerdictState};
