//! The messages on the wire: answers, refusals and gRPC messages, each defined once, with its schema.
//!
//! Must not: serve, or decide anything.

pub(crate) mod extract;
pub(crate) mod problem;
pub mod proto;
pub(crate) mod status;
pub mod views;
