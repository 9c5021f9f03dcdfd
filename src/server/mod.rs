//! The sockets: access control, connection timeouts, and routing.
//!
//! Must not: know what a push means, or read a report.

mod access;
pub(crate) mod listen;
mod monitor;
mod patience;
mod routes;

pub(crate) use access::Access;
pub(crate) use routes::{metrics_router, router};
