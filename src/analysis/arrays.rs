//! Tensors as arrays of usable numbers: the right type and shape, every value finite.

use kernels::rows::{Float, Order, Rows};

use super::decode::error::DecodeError;
use super::decode::tensor::{Element, Tensor};

/// The largest dimension d of a layer. Its accumulator takes 4 d (d + 1) bytes, 1 GiB at this size.
pub(crate) const MAX_DIM: usize = 16_384;

/// A finite N x d array of at most `widest` columns.
pub(super) fn matrix(tensor: Tensor, widest: usize) -> Result<Rows, DecodeError> {
    let name = tensor.name;
    let Element::Float(float) = tensor.element else {
        return Err(DecodeError::UnsupportedType(format!(
            "tensor {name} holds integers: embeddings are F64, F32, F16 or BF16"
        )));
    };
    let [rows, dim] = tensor.shape[..] else {
        return Err(DecodeError::Malformed(format!(
            "tensor {name} has shape {:?}: embeddings are N x d; flatten or pool what comes before the last dimension",
            tensor.shape
        )));
    };
    if dim > widest {
        return Err(DecodeError::TooLarge {
            what: format!("tensor {name} has dimension {dim}; project or pool it first"),
            limit: widest as u64,
        });
    }
    let rows = Rows::new(float, tensor.order, (rows, dim), tensor.bytes)?;
    usable(&name, &rows)?;
    Ok(rows)
}

fn usable(tensor: &str, rows: &Rows) -> Result<(), DecodeError> {
    match rows.first_unusable() {
        None => Ok(()),
        Some(bad) => Err(DecodeError::NotFinite {
            tensor: tensor.to_string(),
            row: bad.row,
            column: bad.column,
            value: written(bad.value),
            rows: bad.rows,
        }),
    }
}

fn finite(tensor: &Tensor) -> Result<(), DecodeError> {
    if tensor.shape.contains(&0) {
        return Err(DecodeError::Malformed(format!("tensor {} is empty: leave it out", tensor.name)));
    }
    let Element::Float(float) = tensor.element else { return Ok(()) };
    let rows = Rows::new(float, Order::RowMajor, flat_shape(&tensor.shape), tensor.bytes.clone())?;
    usable(&tensor.name, &rows)
}

/// Writes 1e300 with its exponent, not its 300 zeros.
fn written(value: f64) -> String {
    if value.is_finite() { format!("{value:e}") } else { value.to_string() }
}

fn flat_shape(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [first, rest @ ..] => (*first, rest.iter().product()),
    }
}

/// A tensor as f64 values, for the small arrays of pushed moments.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f64>, DecodeError> {
    let count: usize = tensor.shape.iter().product();
    match tensor.element {
        Element::Float(float) if count > 0 => {
            finite(tensor)?;
            let rows = Rows::new(float, Order::RowMajor, (1, count), tensor.bytes.clone())?;
            let mut out = vec![0.0; count];
            rows.read(0, 1, &mut out);
            Ok(out)
        }
        Element::I64 if count > 0 => {
            Ok(tensor.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect())
        }
        Element::I32 if count > 0 => {
            Ok(tensor.bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect())
        }
        _ => Err(DecodeError::Malformed(format!("tensor {} is empty", tensor.name))),
    }
}

/// The float type of a tensor; integers count as F64.
pub(super) fn float_type(tensor: &Tensor) -> Float {
    match tensor.element {
        Element::Float(float) => float,
        Element::I64 | Element::I32 => Float::F64,
    }
}
