//! What can go wrong with a device that another process drives, in a closed list, and who is told.
//!
//! Guarantees: every reason has a word, which is the `reason` label. Must not: log or count; the listener does.

use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

/// Why a job was done by this process's own kernels instead of the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum FallbackReason {
    /// The worker ended: a segmentation fault, an abort, a kill.
    Crashed,
    /// No answer in the time that the job's size explains.
    Timeout,
    /// An answer of the wrong length, shape or job, or one that cannot be right.
    #[strum(serialize = "malformed_reply")]
    Malformed,
    /// The device's memory did not hold the job.
    OutOfMemory,
    /// libtorch or the driver reported an error.
    DeviceError,
    /// A new worker did not get ready.
    NotStarted,
    /// The pause before the next worker is not over.
    BackingOff,
    /// The job needs more of the device's memory than it may have.
    OverBudget,
    /// The solver of the device found no result; the other one decides whether there is one.
    NoResult,
}

impl FallbackReason {
    /// Whether the worker cannot be trusted with another job.
    pub fn ends_worker(self) -> bool {
        !matches!(self, FallbackReason::BackingOff | FallbackReason::OverBudget | FallbackReason::NoResult)
    }
}

/// Something that a device did, or did not do.
#[derive(Clone, Debug)]
pub enum DeviceEvent {
    /// A job was done by this process's own kernels.
    FellBack(FallbackReason),
    /// A worker was ended.
    Ended {
        /// Why.
        reason: FallbackReason,
        /// In words.
        detail: String,
        /// How long jobs go to this process's own kernels before another worker is started.
        pause: Duration,
    },
    /// Another worker took the place of one that was ended.
    Restarted,
}

/// Who is told.
pub type Listener = Box<dyn Fn(&DeviceEvent) + Send + Sync>;
