//! The CPU backend: second moments on tiles of our own (`tiles`), large eigenvalue problems in two stages (`eigen`), all
//! else by faer.
//!
//! Guarantees: the same rows and number of threads give the same bits: each entry of a result is summed by one thread,
//! in row order, whatever the timing. Must not: be called on a thread that serves sockets.

mod columns;
mod device;
mod eigen;
mod panels;
mod products;
mod sums;
mod symmetric;
mod tiles;
mod vectors;

pub use device::Cpu;
