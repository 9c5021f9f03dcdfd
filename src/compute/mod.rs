//! Batches and windows on a device: `reduce` sums a batch, `solve` finds a window's spectra. Then the devices other than
//! this process's own processor (libtorch on the CPU or a card, in a process of its own), and the choice between them.
//!
//! The kernels themselves, and what a device must be able to do, are the crate `kernels`.

pub mod choose;
pub mod lend;
pub mod reduce;
pub mod resources;
pub mod solve;
#[cfg(feature = "torch")]
pub mod torch;
#[cfg(target_os = "linux")]
pub mod worker;

/// Bytes of rows that a device holds at a time: enough to keep it busy, little compared to what a card has.
pub const SLAB_BYTES: usize = 64 << 20;
