//! The npy body (format versions 1 to 3): one N x d array, which is `z`.
//!
//! Guarantees: the header is bounded before it is parsed; both memory orders are taken as they are. Must not: copy
//! the array.

use bytes::Bytes;
use npyz::{DType, NpyHeader};

use super::{DecodeError, Element, MAX_HEADER_BYTES, Tensor};
use crate::analysis::floats::{Float, Order};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Decodes a whole body.
///
/// # Errors
/// Any [`DecodeError`] but `NotFinite`.
pub fn decode(body: &Bytes) -> Result<Tensor, DecodeError> {
    let header_end = header_end(body)?;
    let header = NpyHeader::from_reader(&body[..header_end])
        .map_err(|e| DecodeError::Malformed(format!("not a valid npy header: {e}")))?;
    let element = Element::Float(float_of(&header.dtype())?);
    let shape: Vec<usize> = header
        .shape()
        .iter()
        .map(|n| usize::try_from(*n))
        .collect::<Result<_, _>>()
        .map_err(|_| DecodeError::WrongLength(format!("the npy shape {:?} is too large", header.shape())))?;
    let mut tensor = Tensor::new("z", element, shape, body.slice(header_end..))?;
    if header.order() == npyz::Order::Fortran {
        tensor.order = Order::ColumnMajor;
    }
    Ok(tensor)
}

/// Where the header ends: after the magic, the version and a length of 2 bytes (version 1) or 4.
fn header_end(body: &[u8]) -> Result<usize, DecodeError> {
    let short = || DecodeError::WrongLength(format!("an npy body of {} bytes ends within its header", body.len()));
    let (magic, rest) = body.split_first_chunk::<6>().ok_or_else(short)?;
    if magic != MAGIC {
        return Err(DecodeError::Malformed("not an npy body: it does not begin with \\x93NUMPY".to_string()));
    }
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (start, length) = match version[0] {
        1 => (10, rest.first_chunk().map(|b| u32::from(u16::from_le_bytes(*b)))),
        2 | 3 => (12, rest.first_chunk().map(|b| u32::from_le_bytes(*b))),
        other => {
            return Err(DecodeError::Malformed(format!("npy version {other} is unknown: versions 1, 2 and 3 are taken")));
        }
    };
    let length = length.ok_or_else(short)? as usize;
    if length > MAX_HEADER_BYTES {
        return Err(DecodeError::TooLarge {
            what: format!("the npy header says it is {length} bytes long"),
            limit: MAX_HEADER_BYTES as u64,
        });
    }
    if body.len() < start + length {
        return Err(short());
    }
    Ok(start + length)
}

fn float_of(dtype: &DType) -> Result<Float, DecodeError> {
    let text = dtype.descr();
    match text.trim_matches(['\'', '"', ' ']) {
        "<f8" => Ok(Float::F64),
        "<f4" => Ok(Float::F32),
        "<f2" => Ok(Float::F16),
        _ => Err(DecodeError::UnsupportedType(format!(
            "the npy array has type {text}: '<f8', '<f4' and '<f2' are taken; convert with astype('<f4')"
        ))),
    }
}
