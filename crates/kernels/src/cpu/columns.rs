//! Column sums of a batch: means, and in f64 what a faster kernel is compared with.
//!
//! Guarantees: one thread sums each column, from the first row to the last, so the results do not depend on the number
//! of threads. Must not: keep rows.

use std::ops::Range;

use half::f16;

use super::panels::{BLOCK_ROWS, RowBlock, bf16_value};
use super::vectors::{multiply_add, wide};
use crate::rows::{Float, Rows};

/// The first row, and sums around it, for some columns.
#[derive(Clone, Debug)]
pub(super) struct ColumnSums {
    rows: usize,
    /// The first row: it is close to all others, so a large common offset costs no digits. One column more than there
    /// are sums, unless these are the last columns.
    first: Vec<f64>,
    /// sum (x - first)
    sum: Vec<f64>,
    /// sum (x - first)^2
    squares: Vec<f64>,
    /// sum (x - first)(y - first), with y in the next column; the last column of all has none.
    products: Vec<f64>,
}

impl ColumnSums {
    /// Sums over the columns `columns`.
    pub(super) fn from_rows(rows: &Rows, columns: Range<usize>) -> Self {
        let (dim, width) = (rows.dim(), columns.len());
        let mut first = vec![0.0; dim];
        rows.read(0, 1, &mut first);
        // One column more, for the last product.
        let first = first[columns.start..dim.min(columns.end + 1)].to_vec();
        let zeros = || vec![0.0; width];
        let mut sums = Self { rows: rows.len(), first, sum: zeros(), squares: zeros(), products: zeros() };
        let mut scratch = Vec::new();
        for first in (0..rows.len()).step_by(BLOCK_ROWS) {
            let count = BLOCK_ROWS.min(rows.len() - first);
            let source = RowBlock { float: rows.float(), bytes: rows.block(first, count, &mut scratch), dim };
            add(&mut sums, source, columns.start);
        }
        sums
    }

    /// Appends the sums of further columns.
    pub(super) fn append(&mut self, mut other: Self) {
        self.first.truncate(self.sum.len());
        self.first.append(&mut other.first);
        self.sum.append(&mut other.sum);
        self.squares.append(&mut other.squares);
        self.products.append(&mut other.products);
    }

    /// Column means, each as a value and its rounding error.
    pub(super) fn means(&self) -> impl Iterator<Item = (f64, f64)> {
        let n = self.rows as f64;
        self.first.iter().zip(&self.sum).map(move |(first, sum)| {
            // Knuth's exact sum of two numbers.
            let step = sum / n;
            let mean = first + step;
            let part = mean - first;
            (mean, (first - (mean - part)) + (step - part))
        })
    }

    /// Column variances, with 1/N.
    pub(super) fn variances(&self) -> impl Iterator<Item = f64> {
        let n = self.rows as f64;
        self.sum.iter().zip(&self.squares).map(move |(sum, square)| (square / n - (sum / n) * (sum / n)).max(0.0))
    }

    /// Centred sums of products of columns (k, k + 1), one less than columns.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = f64> {
        let n = self.rows as f64;
        self.products.iter().zip(self.sum.windows(2)).map(move |(product, sum)| product - sum[0] * sum[1] / n)
    }
}

wide!(
    /// Adds a block of rows to the sums of the columns from `offset` on.
    fn add(sums: &mut ColumnSums, source: RowBlock<'_>, offset: usize) = add_body
);

#[inline(always)]
fn add_body<const FUSED: bool>(sums: &mut ColumnSums, source: RowBlock<'_>, offset: usize) {
    match source.float {
        Float::F64 => add_rows::<FUSED, 8>(sums, source, offset, f64::from_le_bytes),
        Float::F32 => add_rows::<FUSED, 4>(sums, source, offset, |b| f64::from(f32::from_le_bytes(b))),
        Float::F16 => add_rows::<FUSED, 2>(sums, source, offset, |b| f16::from_le_bytes(b).to_f64()),
        Float::Bf16 => add_rows::<FUSED, 2>(sums, source, offset, |b| f64::from(bf16_value(b))),
    }
}

#[inline(always)]
fn add_rows<const FUSED: bool, const S: usize>(
    sums: &mut ColumnSums,
    source: RowBlock<'_>,
    offset: usize,
    value: impl Fn([u8; S]) -> f64,
) {
    let reach = sums.first.len();
    let mut row = vec![0.0; reach];
    for values in source.bytes.as_chunks::<S>().0.chunks_exact(source.dim) {
        for ((out, x), first) in row.iter_mut().zip(&values[offset..offset + reach]).zip(&sums.first) {
            *out = value(*x) - first;
        }
        for ((sum, square), x) in sums.sum.iter_mut().zip(&mut sums.squares).zip(&row) {
            *sum += x;
            *square = multiply_add::<FUSED>(*x, *x, *square);
        }
        for ((product, x), y) in sums.products.iter_mut().zip(&row).zip(&row[1..]) {
            *product = multiply_add::<FUSED>(*x, *y, *product);
        }
    }
}
