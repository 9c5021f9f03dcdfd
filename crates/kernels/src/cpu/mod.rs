//! The CPU backend: second moments on our own tiles (`tiles`), large eigenvalue problems in two stages (`eigen`), and
//! faer for the rest.
//!
//! Guarantees: the same rows and number of threads give the same bits: one thread sums each entry of a result, in row
//! order. Must not: be called on a thread that serves sockets.

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
