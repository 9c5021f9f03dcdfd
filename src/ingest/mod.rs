//! Receives pushes: HTTP and gRPC on one port build the same push and submit it to the same pipeline.
//!
//! Guarantees: memory is admitted before it is filled; a slow or broken client costs one connection. Must not: decode
//! large bodies on a thread that serves sockets, or repeat the pipeline's checks.

mod body;
pub(crate) mod grpc;
pub(crate) mod http;
mod submit;

pub(crate) use body::{Bodies, IngestLimits};
pub(crate) use grpc::{MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES};
pub(crate) use submit::Ingest;
