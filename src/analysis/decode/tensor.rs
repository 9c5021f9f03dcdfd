//! A named array as it is in a body.

use bytes::Bytes;
use kernels::rows::{Float, Order};

use super::error::DecodeError;
use crate::analysis::text::shorten;

/// What a tensor's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Floating-point numbers.
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

    /// Parses the type words of safetensors (`F32`, `BF16`, `I64`, ...), which the gRPC header uses too.
    ///
    /// # Errors
    /// `UnsupportedType` for any other word.
    pub fn parse(tensor: &str, word: &str) -> Result<Self, DecodeError> {
        match word {
            "F64" => Ok(Element::Float(Float::F64)),
            "F32" => Ok(Element::Float(Float::F32)),
            "F16" => Ok(Element::Float(Float::F16)),
            "BF16" => Ok(Element::Float(Float::Bf16)),
            "I64" => Ok(Element::I64),
            "I32" => Ok(Element::I32),
            _ => Err(DecodeError::UnsupportedType(format!(
                "tensor {} has type {}: embeddings are F64, F32, F16 or BF16, indices I64 or I32",
                shorten(tensor),
                shorten(word)
            ))),
        }
    }
}

/// A named array as it is in a body; the length of `bytes` matches the shape.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// `z`, `z1`, `teacher1`, ...
    pub name: String,
    pub(crate) element: Element,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Memory order.
    pub order: Order,
    /// Little-endian values.
    pub bytes: Bytes,
}

impl Tensor {
    /// A row-major tensor over `bytes`.
    ///
    /// # Errors
    /// `WrongLength` if the shape does not match the length.
    pub fn new(name: &str, element: Element, shape: Vec<usize>, bytes: Bytes) -> Result<Self, DecodeError> {
        let size = byte_length(&shape, element);
        if size != Some(bytes.len()) {
            return Err(DecodeError::WrongLength(format!(
                "tensor {} of shape {shape:?} with values of {} bytes does not fit {} bytes of data",
                shorten(name),
                element.size(),
                bytes.len()
            )));
        }
        Ok(Self { name: name.to_string(), element, shape, order: Order::RowMajor, bytes })
    }
}

/// The size of an array in bytes; `None` on overflow.
pub(crate) fn byte_length(shape: &[usize], element: Element) -> Option<usize> {
    shape.iter().try_fold(element.size(), |size, n| size.checked_mul(*n))
}
