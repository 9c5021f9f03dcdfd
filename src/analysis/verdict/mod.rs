//! The verdict: two axes and a cause for one window (`judge`), and how they add up over time (`memory`).
//!
//! Guarantees: each reason names a measure, its value and the threshold it passed. Must not: measure.

mod baseline;
mod judge;
mod judgement;
mod memory;
mod method_alarms;
mod thresholds;
mod words;

pub use baseline::Baseline;
pub use judge::judge;
pub use judgement::JudgedWindow;
pub use memory::VerdictMemory;
pub use thresholds::Thresholds;
pub use words::{Alarm, Cause, Level, Verdict, VerdictState};
pub(crate) use words::{FiringAlarm, VerdictReason};
