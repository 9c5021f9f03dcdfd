//! The failures of a device in another process, as a closed list, and their listener.
//!
//! Guarantees: every reason has a word, used as the `reason` label. Must not: log or count; the listener does.

use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

/// Why this process's own kernels did a job instead of the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum FallbackReason {
    /// The worker ended: a segmentation fault, an abort, a kill.
    Crashed,
    /// No answer in the time that the job's size explains.
    Timeout,
    /// An answer of the wrong length, shape or job, or an impossible one.
    #[strum(serialize = "malformed_reply")]
    Malformed,
    /// The device's memory was too small for the job.
    OutOfMemory,
    /// libtorch or the driver reported an error.
    DeviceError,
    /// A new worker did not start.
    NotStarted,
    /// The pause before the next worker is not over.
    BackingOff,
    /// The job needs more device memory than it may use.
    OverBudget,
    /// The device's solver found no result; this process's solver decides whether there is one.
    NoResult,
}

impl FallbackReason {
    /// Whether the worker cannot be trusted with another job.
    pub fn ends_worker(self) -> bool {
        !matches!(self, FallbackReason::BackingOff | FallbackReason::OverBudget | FallbackReason::NoResult)
    }
}

/// An event of a device.
#[derive(Clone, Debug)]
pub enum DeviceEvent {
    /// This process's own kernels did a job.
    FellBack(FallbackReason),
    /// A worker ended.
    Ended {
        /// The kind of failure.
        reason: FallbackReason,
        /// The failure in words.
        detail: String,
        /// How long this process's own kernels do the jobs before another worker starts.
        pause: Duration,
    },
    /// Another worker replaced one that ended.
    Restarted,
}

/// Receives the events.
pub type Listener = Box<dyn Fn(&DeviceEvent) + Send + Sync>;
