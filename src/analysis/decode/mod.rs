//! Bytes to named tensors and parameters: safetensors, npy and JSON.
//!
//! Guarantees: no bytes make a decoder panic; a header is bounded before anything is allocated for it; tensors share
//! the body's memory. Must not: judge what a tensor means (that is `batch`), or know where the bytes came from.

pub mod json;
pub mod npy;
pub mod safetensors;

use bytes::Bytes;
use kernels::rows::{Float, Order, RowsError};

use super::parameters::Parameters;

/// The longest header of a safetensors or npy body, in bytes.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The longest JSON body, in bytes: text is for curl, tensors are for trainers.
pub const MAX_JSON_BYTES: usize = 4 * 1024 * 1024;

/// Why bytes are not a batch. Each message names the value, the limit and the way out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not what the format or the contract says.
    #[error("{0}")]
    Malformed(String),
    /// Sizes that do not agree with each other.
    #[error("{0}")]
    WrongLength(String),
    /// A type that is not taken.
    #[error("{0}")]
    UnsupportedType(String),
    /// Over a limit.
    #[error("{what}: the limit is {limit}")]
    TooLarge {
        /// What is too large, with its size and the way out.
        what: String,
        /// The limit it is over.
        limit: u64,
    },
    /// A value that is NaN, infinite, or too large to square.
    #[error(
        "tensor {tensor} holds {value} at row {row}, column {column}; {rows} of its rows are not finite or above 1e140 in magnitude: drop such rows before the push"
    )]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The first such row.
        row: usize,
        /// Its first such column.
        column: usize,
        /// The value there, as text.
        value: String,
        /// How many rows hold such values.
        rows: usize,
    },
}

impl From<RowsError> for DecodeError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Empty(what) => Self::Malformed(what),
            RowsError::WrongLength(what) => Self::WrongLength(what),
        }
    }
}

/// What a tensor's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Numbers.
    Float(Float),
    /// Signed 64-bit integers.
    I64,
    /// Signed 32-bit integers.
    I32,
}

impl Element {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Element::Float(float) => float.size(),
            Element::I64 => 8,
            Element::I32 => 4,
        }
    }

    /// The type of a safetensors type word (`F32`, `BF16`, `I64`, ...), which the gRPC header uses too.
    ///
    /// # Errors
    /// `UnsupportedType` for any other word.
    pub fn of_word(tensor: &str, word: &str) -> Result<Self, DecodeError> {
        match word {
            "F64" => Ok(Element::Float(Float::F64)),
            "F32" => Ok(Element::Float(Float::F32)),
            "F16" => Ok(Element::Float(Float::F16)),
            "BF16" => Ok(Element::Float(Float::Bf16)),
            "I64" => Ok(Element::I64),
            "I32" => Ok(Element::I32),
            _ => Err(DecodeError::UnsupportedType(format!(
                "tensor {} has type {}: embeddings are F64, F32, F16 or BF16, indices I64 or I32",
                super::parameters::shorten(tensor),
                super::parameters::shorten(word)
            ))),
        }
    }
}

/// A named array as it stands in a body; `bytes` is as long as the shape says.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name: `z`, `z1`, `teacher1`, ...
    pub name: String,
    /// The type of its values.
    pub element: Element,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Memory order.
    pub order: Order,
    /// Its little-endian values.
    pub bytes: Bytes,
}

impl Tensor {
    /// A row-major tensor over `bytes`.
    ///
    /// # Errors
    /// `WrongLength` when the sizes do not multiply to the length.
    pub fn new(name: &str, element: Element, shape: Vec<usize>, bytes: Bytes) -> Result<Self, DecodeError> {
        let size = byte_length(&shape, element);
        if size != Some(bytes.len()) {
            return Err(DecodeError::WrongLength(format!(
                "tensor {} of shape {shape:?} with values of {} bytes does not fit {} bytes of data",
                super::parameters::shorten(name),
                element.size(),
                bytes.len()
            )));
        }
        Ok(Self { name: name.to_string(), element, shape, order: Order::RowMajor, bytes })
    }
}

/// Bytes of an array, or `None` when they overflow.
pub fn byte_length(shape: &[usize], element: Element) -> Option<usize> {
    shape.iter().try_fold(element.size(), |size, n| size.checked_mul(*n))
}

/// What a body holds: its tensors, with its parameters added to those of the query.
pub type Decoded = (Vec<Tensor>, Parameters);
