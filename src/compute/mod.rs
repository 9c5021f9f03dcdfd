//! Batches and windows on a device: `reduce` sums a batch, `solve` finds a window's spectra. Also the devices outside
//! this process (libtorch on the CPU or a GPU, in a process of its own), and the choice between them.
//!
//! The kernels themselves, and the interface of a device, are in the crate `kernels`.

pub mod choose;
pub(crate) mod lend;
pub(crate) mod reduce;
pub mod resources;
pub(crate) mod solve;
#[cfg(feature = "torch")]
pub mod torch;
#[cfg(target_os = "linux")]
pub mod worker;

/// Bytes of rows that a device holds at a time: enough to keep it busy, little next to a GPU's memory.
pub(crate) const SLAB_BYTES: usize = 64 << 20;
