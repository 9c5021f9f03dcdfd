//! What is written on the wire: answers, refusals and gRPC messages, each shape once, with its schema.
//!
//! Must not: serve, or decide anything.

pub mod extract;
pub mod problem;
pub mod proto;
pub mod status;
pub mod views;
