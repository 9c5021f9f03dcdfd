//! Bytes to named tensors and parameters: safetensors, npy and JSON.
//!
//! Guarantees: no input makes a decoder panic; a header's size is checked before anything is allocated for it; tensors
//! share the body's memory. Must not: judge what a tensor means (that is `batch`), or know where the bytes came from.

pub(super) mod error;
pub mod json;
pub mod npy;
pub mod safetensors;
pub(super) mod tensor;

use super::parameters::Parameters;

pub use error::DecodeError;
pub(crate) use tensor::byte_length;
pub use tensor::{Element, Tensor};

/// The longest header of a safetensors or npy body.
pub(crate) const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The longest JSON body: text is for curl, tensors are for trainers.
pub(crate) const MAX_JSON_BYTES: usize = 4 * 1024 * 1024;

/// The tensors of a body, and the query's parameters joined with those of the body.
pub type Decoded = (Vec<Tensor>, Parameters);
