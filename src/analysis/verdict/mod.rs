//! The verdict: two axes and a cause for one window (`judge`), and what time makes of them (`state`).
//!
//! Guarantees: each reason names a measure, its value and the threshold it passed. Must not: measure.

mod judge;
mod method_alarms;
mod state;
mod thresholds;

pub use judge::{Judgement, Window, judge};
pub use state::{Baseline, Seen, Stream};
pub use thresholds::{TABLE as THRESHOLDS, Thresholds};

/// How bad one axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl Level {
    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Level::Unknown => "unknown",
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }

    /// The level of a word.
    pub fn of(word: &str) -> Option<Level> {
        [Level::Unknown, Level::Ok, Level::Warning, Level::Critical].into_iter().find(|level| level.word() == word)
    }
}

/// The state of a layer; the worst layer's is the run's. In order of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
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

impl State {
    /// Every state, from best to worst as a gate reads them.
    pub const ALL: [State; 5] =
        [State::WarmingUp, State::InsufficientRows, State::Healthy, State::Degrading, State::Collapsed];

    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            State::WarmingUp => "warming_up",
            State::InsufficientRows => "insufficient_rows",
            State::Healthy => "healthy",
            State::Degrading => "degrading",
            State::Collapsed => "collapsed",
        }
    }

    /// The state of a word.
    pub fn of(word: &str) -> Option<State> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// What the embeddings fell onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Cause {
    const ALL: [Cause; 12] = [
        Cause::None,
        Cause::Constant,
        Cause::Line,
        Cause::LowRank,
        Cause::DeadUnits,
        Cause::DuplicateUnits,
        Cause::OnePrototype,
        Cause::UniformPrototypes,
        Cause::MaskedByBatchNorm,
        Cause::NoAlignment,
        Cause::StaleQueue,
        Cause::InsufficientRows,
    ];

    /// The cause of a word.
    pub fn of(word: &str) -> Option<Cause> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Cause::None => "none",
            Cause::Constant => "constant",
            Cause::Line => "line",
            Cause::LowRank => "low_rank",
            Cause::DeadUnits => "dead_units",
            Cause::DuplicateUnits => "duplicate_units",
            Cause::OnePrototype => "one_prototype",
            Cause::UniformPrototypes => "uniform_prototypes",
            Cause::MaskedByBatchNorm => "masked_by_batch_norm",
            Cause::NoAlignment => "no_alignment",
            Cause::StaleQueue => "stale_queue",
            Cause::InsufficientRows => "insufficient_rows",
        }
    }
}

/// One measure past one threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The measure's exported name, or a quotient of two.
    pub measure: &'static str,
    /// Its value.
    pub value: f64,
    /// What it passed.
    pub threshold: f64,
}

/// What can fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Its label.
    pub fn word(self) -> &'static str {
        match self {
            Alarm::CompleteCollapse => "complete_collapse",
            Alarm::DimensionalCollapse => "dimensional_collapse",
            Alarm::RelativeDimensionalCollapse => "relative_dimensional_collapse",
            Alarm::SpectrumTail => "spectrum_tail",
            Alarm::NoAlignment => "no_alignment",
            Alarm::Prototypes => "prototypes",
            Alarm::MaskedByBatchNorm => "masked_by_batch_norm",
            Alarm::StaleQueue => "stale_queue",
            Alarm::LossConstant => "loss_constant",
        }
    }

    /// Whether, when critical, it counts towards a collapse: the axes do, a method's own trouble degrades.
    pub fn collapses(self) -> bool {
        matches!(self, Alarm::CompleteCollapse | Alarm::DimensionalCollapse | Alarm::RelativeDimensionalCollapse)
    }

    /// The alarm of a label.
    pub fn of(word: &str) -> Option<Alarm> {
        Self::ALL.iter().map(|(alarm, _)| *alarm).find(|alarm| alarm.word() == word)
    }
}

/// The verdict of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What time makes of the axes.
    pub state: State,
    /// The scale axis: complete collapse.
    pub scale: Level,
    /// The dimension axis: dimensional collapse.
    pub dimension: Level,
    /// What the embeddings fell onto.
    pub cause: Cause,
    /// Why: empty when nothing fires.
    pub reasons: Vec<Reason>,
    /// What fires, and how badly.
    pub alarms: Vec<(Alarm, Level)>,
}
