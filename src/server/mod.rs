//! The sockets: who may come in, how long a connection may take, and which path is whose.
//!
//! Must not: know what a push means, or read a report.

mod access;
pub mod listen;
mod monitor;
mod patience;
mod routes;

pub use access::Access;
pub use routes::{metrics_router, router};
