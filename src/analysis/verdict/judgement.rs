//! What is judged, and what one window says by itself.

use super::words::{Alarm, Cause, FiringAlarm, Level, VerdictReason};
use crate::analysis::measures::Measures;
use crate::analysis::methods::Diagnosed;
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

/// What the judge knows of a window.
#[derive(Clone, Debug)]
pub struct JudgedWindow<'a> {
    /// Its measures.
    pub measures: &'a Measures,
    /// N.
    pub samples: u64,
    /// d.
    pub dim: usize,
    /// No entry is below zero: the layer sits behind a ReLU.
    pub non_negative: bool,
    /// Unit-row measures are missing because the trainer sent moments without them.
    pub without_unit_rows: bool,
    /// What the layer is to the one that was pushed.
    pub role: Role,
    /// The method that the run named.
    pub method: Option<Method>,
    /// The methods' diagnostics of the layer that was pushed.
    pub diagnosed: Option<&'a Diagnosed>,
    /// Windows running that the loss sits at its constant, this one included.
    pub loss_windows: u64,
    /// The better end of the entropy rank's interval, where it is an estimate.
    pub rank_at_best: Option<f64>,
}

/// What one window says by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Complete collapse.
    pub scale: Level,
    /// Dimensional collapse.
    pub dimension: Level,
    /// What the embeddings fell onto.
    pub cause: Cause,
    /// What fires.
    pub alarms: Vec<FiringAlarm>,
    /// Why.
    pub reasons: Vec<VerdictReason>,
    /// The assignments are of one prototype, or say nothing of the sample.
    pub prototypes: Option<Cause>,
    /// Neither axis has rows enough, or the dimension axis has not and the scale axis is quiet.
    pub insufficient: bool,
}

impl Judgement {
    /// Whether this window counts towards a collapse: scale, a line, or far under the run's own baseline.
    pub fn critical(&self) -> bool {
        self.alarms.iter().any(|firing| firing.severity == Level::Critical && firing.alarm.collapses())
    }

    /// At what level an alarm fires.
    pub(super) fn level(&self, wanted: Alarm) -> Option<Level> {
        self.alarms.iter().find(|firing| firing.alarm == wanted).map(|firing| firing.severity)
    }

    pub(super) fn fire(&mut self, alarm: Alarm, severity: Level, reasons: Vec<VerdictReason>) {
        self.alarms.push(FiringAlarm { alarm, severity });
        self.reasons.extend(reasons);
    }
}
