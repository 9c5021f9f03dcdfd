//! The doors: HTTP and gRPC on one port. Each builds the same raw batch and calls the same `Inbox::submit`.
//!
//! Guarantees: memory is admitted before it is filled; a slow or broken client costs one connection. Must not: decode on
//! a thread that serves sockets when the body is large, or validate twice what the inbox validates.

mod access;
mod body;
mod convert;
pub mod grpc;
pub mod http;
pub mod listen;
mod patience;

use std::sync::Arc;

pub use access::{Access, guard};
pub use body::Bodies;

use crate::pipeline::Inbox;
use crate::publish::Service;

/// What bounds the doors.
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// Largest body, decompressed.
    pub max_body_bytes: usize,
    /// Bytes of all bodies in flight.
    pub in_flight_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Seconds for a request's header.
    pub header_timeout_s: u64,
    /// Seconds that a body may stand still.
    pub body_idle_timeout_s: u64,
    /// Lowest average rate of a body, bytes a second.
    pub min_body_rate: u64,
}

/// gRPC chunks are at most this long.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;

/// gRPC messages are decoded up to this length.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// What both doors need.
#[derive(Clone)]
pub struct Doors {
    /// Where pushes go.
    pub inbox: Arc<Inbox>,
    /// Where bodies are received.
    pub bodies: Arc<Bodies>,
    /// The counters.
    pub service: Arc<Service>,
}

/// Bodies up to this length are decoded where they arrive: handing them to another thread costs more.
const INLINE_BYTES: usize = 64 * 1024;

/// Submits on a thread that may be busy, unless the body is small.
async fn submit(
    doors: &Doors,
    raw: crate::pipeline::RawBatch,
) -> Result<crate::pipeline::Accepted, crate::error::Refusal> {
    if raw.origin.body.len() <= INLINE_BYTES {
        return doors.inbox.submit(raw);
    }
    let inbox = Arc::clone(&doors.inbox);
    tokio::task::spawn_blocking(move || inbox.submit(raw)).await.unwrap_or_else(|error| {
        Err(crate::error::Refusal::new(crate::error::Code::Internal, format!("the batch could not be taken: {error}")))
    })
}
