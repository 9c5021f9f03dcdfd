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
    /// Worth a look.
    Warning,
    /// Act now.
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
    /// Still in the cone of an untrained network (all directions alike), and not past the deadline.
    WarmingUp,
    /// Too few rows in this window.
    InsufficientRows,
    /// No alarm, or none for long enough.
    Healthy,
    /// At least one alarm.
    Degrading,
    /// Several critical windows in a row.
    Collapsed,
}

/// What the embeddings collapsed onto, or why the run degrades.
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
    /// Samples are assigned to one or a few prototypes.
    OnePrototype,
    /// Every sample is assigned evenly to all prototypes.
    UniformPrototypes,
    /// The layer before batch norm is nearly constant; batch norm scales the rest up again.
    MaskedByBatchNorm,
    /// Views of one sample are no closer than different samples.
    NoAlignment,
    /// The queue's keys are too old for the queries.
    StaleQueue,
    /// Too few rows to say.
    InsufficientRows,
}

/// One measure past its threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Reason)]
pub struct VerdictReason {
    /// The measure's exported name, or the name of a quotient of two.
    pub measure: String,
    /// The measure's value.
    pub value: f64,
    /// The threshold that it passed.
    pub threshold: f64,
}

impl VerdictReason {
    pub(crate) fn new(measure: &str, value: f64, threshold: f64) -> Self {
        Self { measure: measure.to_string(), value, threshold }
    }
}

/// Every alarm.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schema(as = AlarmName)]
pub enum Alarm {
    /// All embeddings are near one point.
    CompleteCollapse,
    /// The rank is far below that of isotropic noise.
    DimensionalCollapse,
    /// The rank is far below the run's own best.
    RelativeDimensionalCollapse,
    /// The small eigenvalues shrink against the large ones.
    SpectrumTail,
    /// Views of one sample are no closer than different samples.
    NoAlignment,
    /// Few prototypes are used, or every sample gets the same assignment.
    Prototypes,
    /// Batch norm hides a collapse of the layer before it.
    MaskedByBatchNorm,
    /// The spectra of teacher and student differ.
    StaleQueue,
    /// The loss is stuck at the constant of its method.
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

    /// Whether it counts towards a collapse when critical: the axes do, the methods' alarms only degrade.
    pub(crate) fn collapses(self) -> bool {
        matches!(self, Alarm::CompleteCollapse | Alarm::DimensionalCollapse | Alarm::RelativeDimensionalCollapse)
    }
}

/// An alarm that fires, and its severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Alarm)]
pub struct FiringAlarm {
    /// The alarm.
    pub alarm: Alarm,
    /// `warning` or `critical`.
    pub severity: Level,
}

/// The verdict of one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// The state, from this window and those before it.
    pub state: VerdictState,
    /// The scale axis: complete collapse.
    pub scale: Level,
    /// The dimension axis: dimensional collapse.
    pub dimension: Level,
    /// What the embeddings collapsed onto, or why the run degrades.
    pub cause: Cause,
    /// The measures past their thresholds; empty if nothing fires.
    pub reasons: Vec<VerdictReason>,
    /// The alarms that fire.
    pub alarms: Vec<FiringAlarm>,
}
