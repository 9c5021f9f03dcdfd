//! What is judged, and the judgement of one window by itself.

use super::words::{Alarm, Cause, FiringAlarm, Level, VerdictReason};
use crate::analysis::measures::Measures;
use crate::analysis::methods::Diagnosed;
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

/// What the judge knows about a window.
#[derive(Clone, Debug)]
pub struct JudgedWindow<'a> {
    /// The window's measures.
    pub measures: &'a Measures,
    /// N, the number of samples.
    pub samples: u64,
    /// The dimension d.
    pub dim: usize,
    /// No entry is negative: the layer comes after a ReLU.
    pub non_negative: bool,
    /// Unit-row measures are missing because the trainer sent moments without unit fields.
    pub without_unit_rows: bool,
    /// The role of this layer's rows in the layer that was pushed.
    pub role: Role,
    /// The method that the run named.
    pub method: Option<Method>,
    /// The methods' diagnostics of the layer that was pushed.
    pub diagnosed: Option<&'a Diagnosed>,
    /// How many windows in a row the loss has sat at its constant, this one included.
    pub loss_windows: u64,
    /// The better end of the entropy rank's interval, if it is an estimate.
    pub rank_at_best: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The level of complete collapse.
    pub scale: Level,
    /// The level of dimensional collapse.
    pub dimension: Level,
    pub cause: Cause,
    pub alarms: Vec<FiringAlarm>,
    pub reasons: Vec<VerdictReason>,
    /// The assignments use one prototype, or are the same for every sample.
    pub prototypes: Option<Cause>,
    /// Neither axis has enough rows, or the dimension axis lacks rows and the scale axis is quiet.
    pub insufficient: bool,
}

impl Judgement {
    /// Whether this window counts towards a collapse: scale, a line, or far below the run's own baseline.
    pub(crate) fn critical(&self) -> bool {
        self.alarms.iter().any(|firing| firing.severity == Level::Critical && firing.alarm.collapses())
    }

    pub(super) fn level(&self, wanted: Alarm) -> Option<Level> {
        self.alarms.iter().find(|firing| firing.alarm == wanted).map(|firing| firing.severity)
    }

    pub(super) fn fire(&mut self, alarm: Alarm, severity: Level, reasons: Vec<VerdictReason>) {
        self.alarms.push(FiringAlarm { alarm, severity });
        self.reasons.extend(reasons);
    }
}
