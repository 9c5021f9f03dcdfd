//! What a backend may use.

use std::sync::Arc;
use std::time::Duration;

/// Time since some start; it never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The threads, deadlines and memory of a backend.
#[derive(Clone)]
pub struct BackendResources {
    /// Threads for large products.
    pub threads: usize,
    /// How long a compute worker may take to start, and how much longer a job may take than its size explains.
    pub patience: Duration,
    /// Bytes of GPU memory for the compute workers; `None`: a quarter of what is free at the start.
    pub gpu_memory_bytes: Option<u64>,
    /// The clock for deadlines and pauses.
    pub clock: Clock,
}
