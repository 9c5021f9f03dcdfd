//! The npy body (format versions 1 to 3): one N x d array, which is `z`.
//!
//! Guarantees: the header's size is checked before it is parsed, and parsing does not recurse; both memory orders are
//! accepted. Must not: copy the array, or accept the pickles and records that the format also allows.

use bytes::Bytes;

use super::{DecodeError, Element, MAX_HEADER_BYTES, Tensor};
use crate::analysis::text::shorten;
use kernels::rows::{Float, Order};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Decodes a whole body.
pub fn decode(body: &Bytes) -> Result<Tensor, DecodeError> {
    let (start, end) = header_range(body)?;
    let text = std::str::from_utf8(&body[start..end]).map_err(|_| malformed("the header is not UTF-8 text", ""))?;
    let header = Header::parse(text)?;
    let mut tensor = Tensor::new("z", Element::Float(header.float), header.shape, body.slice(end..))?;
    tensor.order = header.order;
    Ok(tensor)
}

/// An npy file with one f64 vector, for spectra.
pub(crate) fn encode_vector(values: &[f64]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({},), }}", values.len());
    // The data begins at a multiple of 64 bytes, after a newline.
    while !(MAGIC.len() + 4 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    out
}

/// The range of the header's text: after the magic, the version and a length of 2 bytes (version 1) or 4.
fn header_range(body: &[u8]) -> Result<(usize, usize), DecodeError> {
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
            return Err(DecodeError::Malformed(format!("npy version {other} is not supported: expected 1, 2 or 3")));
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
    Ok((start, start + length))
}

struct Header {
    float: Float,
    order: Order,
    shape: Vec<usize>,
}

impl Header {
    /// Parses a Python dictionary with three known keys, in any order.
    fn parse(text: &str) -> Result<Self, DecodeError> {
        let body = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let mut rest = body.ok_or_else(|| malformed("expected a dictionary", text))?.trim();
        let (mut float, mut order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest).ok_or_else(|| malformed("expected a key", rest))?;
            let after = after.strip_prefix(':').ok_or_else(|| malformed("expected a colon", after))?.trim_start();
            let after = match key {
                "descr" => {
                    let (word, after) = quoted(after).ok_or_else(|| unsupported(after))?;
                    float = Some(float_of(word)?);
                    after
                }
                "fortran_order" => {
                    let (word, after) = after.split_at(after.find([',', ' ']).unwrap_or(after.len()));
                    order = Some(match word {
                        "True" => Order::ColumnMajor,
                        "False" => Order::RowMajor,
                        _ => return Err(malformed("expected True or False for fortran_order", word)),
                    });
                    after.trim_start()
                }
                "shape" => {
                    let (numbers, after) = after
                        .strip_prefix('(')
                        .and_then(|t| t.split_once(')'))
                        .ok_or_else(|| malformed("expected a tuple as the shape", after))?;
                    shape = Some(sizes(numbers)?);
                    after.trim_start()
                }
                _ => return Err(malformed("unknown key", key)),
            };
            rest = match after.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if after.is_empty() => after,
                None => return Err(malformed("expected a comma", after)),
            };
        }
        match (float, order, shape) {
            (Some(float), Some(order), Some(shape)) => Ok(Self { float, order, shape }),
            _ => Err(malformed("expected the keys descr, fortran_order and shape", text)),
        }
    }
}

/// A quoted word at the start, and the text after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (word, after) = text[1..].split_once(quote)?;
    Some((word, after.trim_start()))
}

fn sizes(text: &str) -> Result<Vec<usize>, DecodeError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| malformed("expected whole numbers in the shape", part))).collect()
}

fn float_of(word: &str) -> Result<Float, DecodeError> {
    match word {
        "<f8" => Ok(Float::F64),
        "<f4" => Ok(Float::F32),
        "<f2" => Ok(Float::F16),
        _ => Err(unsupported(word)),
    }
}

fn unsupported(word: &str) -> DecodeError {
    DecodeError::UnsupportedType(format!(
        "the npy array has type {}: expected '<f8', '<f4' or '<f2'; convert with astype('<f4')",
        shorten(word)
    ))
}

fn malformed(what: &str, at: &str) -> DecodeError {
    DecodeError::Malformed(format!("not a valid npy header: {what}, at '{}'", shorten(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_reads_back() {
        let body = encode_vector(&[1.5, -2.0]);
        let tensor = decode(&body.clone().into()).unwrap();
        assert_eq!((tensor.shape, tensor.bytes.len()), (vec![2], 16));
        assert_eq!((body.len() - 16) % 64, 0);
    }
}
