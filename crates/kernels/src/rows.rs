//! Embedding rows as they arrived: N x d numbers in their own type and order, read as f64 in blocks.
//!
//! Guarantees: a value read is exactly the value sent; the bytes need no alignment. Must not: copy the whole array, or
//! trust a size that was not checked at construction.

use bytes::Bytes;
use half::{bf16, f16};
use strum::{EnumString, IntoStaticStr};

/// Larger magnitudes overflow f64 when squared and summed, so they are refused like infinities.
/// 1e140 squared, times 2^63 rows, is below f64::MAX (1.8e308).
pub const LARGEST_VALUE: f64 = 1e140;

/// Rows converted at a time for the means.
const MEAN_BLOCK: usize = 64;

/// The floating-point types that embeddings may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Float {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl Float {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Float::F64 => 8,
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }

    /// Unit roundoff u: half the distance from 1 to the next number.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            Float::F64 => f64::EPSILON / 2.0,
            Float::F32 => f64::from(f32::EPSILON) / 2.0,
            Float::F16 => 2f64.powi(-11),
            Float::Bf16 => 2f64.powi(-8),
        }
    }
}

/// Which index runs fastest in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Row after row (C order).
    RowMajor,
    /// Column after column (Fortran order).
    ColumnMajor,
}

/// Bytes that are not an N x d array.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// No rows, or no columns.
    #[error("{0}")]
    Empty(String),
    /// The sizes do not match the number of bytes.
    #[error("{0}")]
    WrongLength(String),
}

/// An N x d array of embeddings (rows = samples), N >= 1 and d >= 1, every value finite.
#[derive(Clone, Debug)]
pub struct Rows {
    float: Float,
    order: Order,
    rows: usize,
    dim: usize,
    bytes: Bytes,
}

impl Rows {
    /// Interprets `bytes` as a `rows` x `dim` little-endian array.
    ///
    /// # Errors
    /// `WrongLength` if the sizes do not match the length; `Empty` for an empty array.
    pub fn new(float: Float, order: Order, shape: (usize, usize), bytes: Bytes) -> Result<Self, RowsError> {
        let (rows, dim) = shape;
        if rows == 0 || dim == 0 {
            return Err(RowsError::Empty(format!(
                "an array of {rows} x {dim} holds nothing: send at least one row and one column"
            )));
        }
        let expected = rows.checked_mul(dim).and_then(|n| n.checked_mul(float.size()));
        if expected != Some(bytes.len()) {
            return Err(RowsError::WrongLength(format!(
                "an array of {rows} x {dim} values of {} bytes does not fit {} bytes of data",
                float.size(),
                bytes.len()
            )));
        }
        Ok(Self { float, order, rows, dim, bytes })
    }

    /// Row-major f64 values made in this program (JSON, generated data).
    ///
    /// # Errors
    /// As [`Rows::new`].
    pub fn from_f64(shape: (usize, usize), values: &[f64]) -> Result<Self, RowsError> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self::new(Float::F64, Order::RowMajor, shape, bytes.into())
    }

    /// Number of rows N.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Always false: an empty array is refused at construction.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Number of columns d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The type of the values.
    pub fn float(&self) -> Float {
        self.float
    }

    /// The index of [`Rows::bytes`] that runs fastest.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The values as they arrived, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes rows `first .. first + count` into `out` as row-major f64, count x d.
    pub fn read(&self, first: usize, count: usize, out: &mut [f64]) {
        let size = self.float.size();
        let out = &mut out[..count * self.dim];
        if self.order == Order::RowMajor {
            let bytes = &self.bytes[first * self.dim * size..(first + count) * self.dim * size];
            convert(self.float, bytes, out.iter_mut());
            return;
        }
        for column in 0..self.dim {
            let start = (column * self.rows + first) * size;
            let bytes = &self.bytes[start..start + count * size];
            convert(self.float, bytes, out[column..].iter_mut().step_by(self.dim));
        }
    }

    /// Column `column` as f64, N values.
    pub fn column(&self, column: usize) -> Vec<f64> {
        let size = self.float.size();
        let (first, step) = match self.order {
            Order::RowMajor => (column, self.dim),
            Order::ColumnMajor => (column * self.rows, 1),
        };
        let mut values = vec![0.0; self.rows];
        for (row, value) in values.iter_mut().enumerate() {
            let start = (first + row * step) * size;
            convert(self.float, &self.bytes[start..start + size], std::iter::once(value));
        }
        values
    }

    /// The bytes of rows `first .. first + count`, row-major in the rows' own type: borrowed, or copied into `scratch`
    /// for an array in column order.
    pub fn block<'a>(&'a self, first: usize, count: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let size = self.float.size();
        if self.order == Order::RowMajor {
            return &self.bytes[first * self.dim * size..(first + count) * self.dim * size];
        }
        scratch.resize(count * self.dim * size, 0);
        for column in 0..self.dim {
            let start = (column * self.rows + first) * size;
            let values = self.bytes[start..start + count * size].chunks_exact(size);
            for (row, value) in values.enumerate() {
                let at = (row * self.dim + column) * size;
                scratch[at..at + size].copy_from_slice(value);
            }
        }
        scratch
    }

    /// Whether every value is a bf16 value, and they use all of its digits: bf16 itself, or f32 rounded to it. Of
    /// rounded values half have the last digit set; of small whole numbers, which fit bf16 without rounding, hardly
    /// any.
    pub fn holds_bf16(&self) -> bool {
        match self.float {
            Float::Bf16 => true,
            Float::F32 => {
                let mut odd = 0;
                // In pieces, so that other values are found early.
                self.bytes.as_chunks::<4>().0.chunks(4096).all(|values| {
                    odd += values.iter().filter(|b| b[2] & 1 == 1).count();
                    values.iter().fold(0, |bits, b| bits | b[0] | b[1]) == 0
                }) && odd >= self.rows * self.dim / 4
            }
            Float::F16 | Float::F64 => false,
        }
    }

    /// The type that the values have been rounded to.
    pub fn resolution(&self) -> Float {
        if self.holds_bf16() { Float::Bf16 } else { self.float }
    }

    /// The rows of nonzero norm divided by it, as f64; `None` if all are zero.
    pub fn unit(&self) -> Option<Rows> {
        let mut bytes = Vec::with_capacity(self.rows * self.dim * 8);
        let mut row = vec![0.0; self.dim];
        for index in 0..self.rows {
            self.read(index, 1, &mut row);
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if norm > 0.0 {
                bytes.extend(row.iter().flat_map(|x| (x / norm).to_le_bytes()));
            }
        }
        let rows = bytes.len() / (8 * self.dim);
        Self::new(Float::F64, Order::RowMajor, (rows, self.dim), bytes.into()).ok()
    }

    /// Column means, d values. Summed around the first row, so that a large common offset costs no digits.
    pub fn mean(&self) -> Vec<f64> {
        let mut shift = vec![0.0; self.dim];
        self.read(0, 1, &mut shift);
        let mut sum = vec![0.0; self.dim];
        let mut block = vec![0.0; MEAN_BLOCK.min(self.rows) * self.dim];
        for first in (0..self.rows).step_by(MEAN_BLOCK) {
            let count = MEAN_BLOCK.min(self.rows - first);
            self.read(first, count, &mut block);
            for row in block[..count * self.dim].chunks_exact(self.dim) {
                for ((sum, x), shift) in sum.iter_mut().zip(row).zip(&shift) {
                    *sum += x - shift;
                }
            }
        }
        sum.iter().zip(&shift).map(|(sum, shift)| shift + sum / self.rows as f64).collect()
    }

    /// Row and column of the first value (in row order) that is not finite or too large to square, and how many rows
    /// hold such a value.
    pub fn first_unusable(&self) -> Option<Unusable> {
        if all_usable(self.float, &self.bytes) {
            return None;
        }
        let mut row = vec![0.0; self.dim];
        let mut found: Option<Unusable> = None;
        for index in 0..self.rows {
            self.read(index, 1, &mut row);
            let Some(column) = row.iter().position(|x| x.is_nan() || x.abs() > LARGEST_VALUE) else { continue };
            match &mut found {
                Some(unusable) => unusable.rows += 1,
                None => found = Some(Unusable { row: index, column, value: row[column], rows: 1 }),
            }
        }
        found
    }
}

/// Why an array cannot be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unusable {
    /// First such row, from 0.
    pub row: usize,
    /// Its first such column, from 0.
    pub column: usize,
    /// The value there.
    pub value: f64,
    /// How many rows hold such values.
    pub rows: usize,
}

fn convert<'a>(float: Float, bytes: &[u8], out: impl Iterator<Item = &'a mut f64>) {
    match float {
        Float::F64 => {
            for (to, from) in out.zip(bytes.as_chunks().0) {
                *to = f64::from_le_bytes(*from);
            }
        }
        Float::F32 => {
            for (to, from) in out.zip(bytes.as_chunks().0) {
                *to = f64::from(f32::from_le_bytes(*from));
            }
        }
        Float::F16 => {
            for (to, from) in out.zip(bytes.as_chunks().0) {
                *to = f16::from_le_bytes(*from).to_f64();
            }
        }
        Float::Bf16 => {
            for (to, from) in out.zip(bytes.as_chunks().0) {
                *to = bf16::from_le_bytes(*from).to_f64();
            }
        }
    }
}

/// One pass over the exponents, at memory speed: an all-ones exponent is an infinity or a NaN.
fn all_usable(float: Float, bytes: &[u8]) -> bool {
    match float {
        Float::F64 => {
            bytes.as_chunks().0.iter().fold(true, |ok, b| ok & (f64::from_le_bytes(*b).abs() <= LARGEST_VALUE))
        }
        Float::F32 => {
            bytes.as_chunks().0.iter().fold(true, |ok, b| ok & (u32::from_le_bytes(*b) & 0x7f80_0000 != 0x7f80_0000))
        }
        Float::F16 => bytes.as_chunks().0.iter().fold(true, |ok, b| ok & (u16::from_le_bytes(*b) & 0x7c00 != 0x7c00)),
        Float::Bf16 => bytes.as_chunks().0.iter().fold(true, |ok, b| ok & (u16::from_le_bytes(*b) & 0x7f80 != 0x7f80)),
    }
}
