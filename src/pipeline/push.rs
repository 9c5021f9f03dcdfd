//! A push to the pipeline, and the answer to it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::layer::Waiter;
use crate::analysis::decode::{DecodeError, Tensor};
use crate::analysis::parameters::Parameters;
use crate::analysis::report::FullReport;
use crate::identity::{LayerName, RunName, WindowKey};

/// A push as the HTTP and the gRPC endpoint build it.
pub struct Push {
    /// Where it came from and where it goes.
    pub arrival: Arrival,
    /// Decodes the body; run it on a thread that may be busy for a while.
    pub decode: Decode,
}

/// Decodes a body to its tensors and all its parameters.
pub(crate) type Decode = Box<dyn FnOnce() -> Result<(Vec<Tensor>, Parameters), DecodeError> + Send>;

/// Where a push came from and where it goes.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The endpoint's label: `http` or `grpc`.
    pub door: &'static str,
    /// The run pushed to.
    pub run: RunName,
    /// The layer pushed to.
    pub layer: LayerName,
    /// The decompressed body: it keeps its share of the budget for bodies until it is merged.
    pub body: Bytes,
    /// When it arrived.
    pub arrived: Timestamp,
}

/// A push that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The window it went to.
    pub window: u64,
    /// Rows admitted to the window so far.
    pub rows: u64,
    /// The same batch came before, and counts once.
    pub duplicate: bool,
    /// With `wait`: the report, once it is ready.
    pub report: Option<oneshot::Receiver<Arc<FullReport>>>,
}

/// Reports in progress, one per layer.
pub(crate) type PendingReports = Vec<oneshot::Receiver<Arc<FullReport>>>;

/// Both ends of the answer to a push that waits for its report.
pub(super) fn channel(wait: Option<bool>) -> (Option<Waiter>, Option<oneshot::Receiver<Arc<FullReport>>>) {
    if wait != Some(true) {
        return (None, None);
    }
    let (sender, receiver) = oneshot::channel();
    (Some(sender), Some(receiver))
}

impl Arrival {
    pub(super) fn window(&self, window: u64, revision: u32) -> WindowKey {
        WindowKey { run: self.run.clone(), layer: self.layer.clone(), window, revision }
    }
}
