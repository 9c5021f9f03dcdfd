//! The words of a verdict, and the verdict itself.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// How bad one axis is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Level {
    /// Too few rows, or nothing to judge by.
    Unknown,
    /// Nothing fires.
    Ok,
    /// Look at it.
    Warning,
    /// Act.
    Critical,
}

/// The state of a layer; the worst layer's is the run's. In order of badness.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schema(as = State)]
pub enum VerdictState {
    /// Still in the untrained network's cone, and not yet past the deadline.
    WarmingUp,
    /// Too few rows in this window.
    InsufficientRows,
    /// No alarm, or none for long enough.
    Healthy,
    /// Some alarm.
    Degrading,
    /// Critical windows running.
    Collapsed,
}

/// What the embeddings fell onto.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// Nothing fires.
    None,
    /// One point (complete collapse).
    Constant,
    /// One direction.
    Line,
    /// A few directions.
    LowRank,
    /// Most coordinates are constant.
    DeadUnits,
    /// Most coordinates copy others.
    DuplicateUnits,
    /// Assignments fall onto one or few prototypes.
    OnePrototype,
    /// Assignments are the same for every sample, and even over the prototypes.
    UniformPrototypes,
    /// The layer before batch norm is nearly constant; batch norm scales what is left up again.
    MaskedByBatchNorm,
    /// Views of one sample are no closer than different samples.
    NoAlignment,
    /// Keys come from an encoder that the queries have left behind.
    StaleQueue,
    /// Too few rows to say.
    InsufficientRows,
}

/// One measure past one threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Reason)]
pub struct VerdictReason {
    /// The measure's exported name, or a quotient of two.
    pub measure: String,
    /// Its value.
    pub value: f64,
    /// What it passed.
    pub threshold: f64,
}

impl VerdictReason {
    /// `measure` reads `value`, which is past `threshold`.
    pub fn new(measure: &str, value: f64, threshold: f64) -> Self {
        Self { measure: measure.to_string(), value, threshold }
    }
}

/// What can fire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schema(as = AlarmName)]
pub enum Alarm {
    /// Onto one point.
    CompleteCollapse,
    /// Onto a few directions, against the isotropic null.
    DimensionalCollapse,
    /// Onto fewer directions than the run had.
    RelativeDimensionalCollapse,
    /// The tail of the spectrum falls away.
    SpectrumTail,
    /// Views do not align.
    NoAlignment,
    /// Few prototypes are used, or the assignments say nothing of the sample.
    Prototypes,
    /// A collapse behind batch norm.
    MaskedByBatchNorm,
    /// Teacher and student have different spectra.
    StaleQueue,
    /// The loss sits at the constant of its method.
    LossConstant,
}

impl Alarm {
    /// Every alarm with the levels it can take.
    pub const ALL: [(Alarm, &'static [Level]); 9] = [
        (Alarm::CompleteCollapse, &[Level::Warning, Level::Critical]),
        (Alarm::DimensionalCollapse, &[Level::Warning, Level::Critical]),
        (Alarm::RelativeDimensionalCollapse, &[Level::Warning, Level::Critical]),
        (Alarm::SpectrumTail, &[Level::Warning]),
        (Alarm::NoAlignment, &[Level::Warning]),
        (Alarm::Prototypes, &[Level::Warning, Level::Critical]),
        (Alarm::MaskedByBatchNorm, &[Level::Warning]),
        (Alarm::StaleQueue, &[Level::Warning]),
        (Alarm::LossConstant, &[Level::Warning, Level::Critical]),
    ];

    /// Whether, when critical, it counts towards a collapse: the axes do, a method's own trouble degrades.
    pub fn collapses(self) -> bool {
        matches!(self, Alarm::CompleteCollapse | Alarm::DimensionalCollapse | Alarm::RelativeDimensionalCollapse)
    }
}

/// An alarm that fires, and how badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Alarm)]
pub struct FiringAlarm {
    /// Which.
    pub alarm: Alarm,
    /// `warning` or `critical`.
    pub severity: Level,
}

/// The verdict of one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// What time makes of the axes.
    pub state: VerdictState,
    /// The scale axis: complete collapse.
    pub scale: Level,
    /// The dimension axis: dimensional collapse.
    pub dimension: Level,
    /// What the embeddings fell onto.
    pub cause: Cause,
    /// Why: empty when nothing fires.
    pub reasons: Vec<VerdictReason>,
    /// What fires, and how badly.
    pub alarms: Vec<FiringAlarm>,
}
