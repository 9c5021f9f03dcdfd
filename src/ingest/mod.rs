//! How pushes come in: HTTP and gRPC on one port build the same push and submit it to the same pipeline.
//!
//! Guarantees: memory is admitted before it is filled; a slow or broken client costs one connection. Must not: decode on
//! a thread that serves sockets when the body is large, or validate twice what the pipeline validates.

mod body;
pub mod grpc;
pub mod http;
mod submit;

pub use body::{Bodies, IngestLimits};
pub use grpc::{MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES};
pub use submit::Ingest;
