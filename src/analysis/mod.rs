//! The pure room: what a batch means, what it adds to a window, and what the window shows.
//!
//! Guarantees: the same inputs give the same bits. Must not: open sockets or files, read a clock, start threads,
//! lock, log, or name any other room. Time, devices and parallelism come in as arguments.

pub(crate) mod arrays;
pub mod batch;
pub(crate) mod companions;
pub mod decode;
pub mod measures;
pub mod methods;
pub mod parameters;
pub mod part;
pub(crate) mod pushed;
pub mod report;
pub mod role;
pub(crate) mod text;
pub mod verdict;
pub mod window;
