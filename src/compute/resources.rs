//! What a backend may use.

use std::sync::Arc;
use std::time::Duration;

/// Time since some start, which never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// See the file's head.
#[derive(Clone)]
pub struct BackendResources {
    /// Threads of large products.
    pub threads: usize,
    /// How long a compute worker may take to get ready, and how much longer a job may take than its size explains.
    pub patience: Duration,
    /// Bytes of a card's memory that the compute workers may take; `None`: a quarter of what is free at the start.
    pub gpu_memory_bytes: Option<u64>,
    /// For deadlines and pauses.
    pub clock: Clock,
}
