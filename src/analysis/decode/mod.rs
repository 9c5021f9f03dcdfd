//! Bytes to named tensors and parameters: safetensors, npy and JSON.
//!
//! Guarantees: no bytes make a decoder panic; a header is bounded before anything is allocated for it; tensors share
//! the body's memory. Must not: judge what a tensor means (that is `batch`), or know where the bytes came from.

pub(super) mod error;
pub mod json;
pub mod npy;
pub mod safetensors;
pub(super) mod tensor;

use super::parameters::Parameters;

pub use error::DecodeError;
pub use tensor::{Element, Tensor, byte_length};

/// The longest header of a safetensors or npy body, in bytes.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The longest JSON body, in bytes: text is for curl, tensors are for trainers.
pub const MAX_JSON_BYTES: usize = 4 * 1024 * 1024;

/// What a body holds: its tensors, with its parameters added to those of the query.
pub type Decoded = (Vec<Tensor>, Parameters);
