//! Rows on their way into the tiles: column sums of a batch, and its blocks packed into panels around a shift.
//!
//! Guarantees: the results do not depend on the number of threads: each column is one thread's, from the first row to
//! the last. Must not: multiply.

use half::f16;

use super::tiles::Tile;
use crate::analysis::floats::{Float, Rows};

/// Rows packed and multiplied at a time: the longest sum that is carried in f32 (512 rows are 256 lanes of bf16 pairs).
pub(super) const BLOCK_ROWS: usize = 512;

/// Some columns of a block of rows of `dim` values, and room for one row of them.
struct Columns<'a> {
    dim: usize,
    offset: usize,
    row: &'a mut [f64],
}

/// First row, and sums around it, of some columns.
#[derive(Clone, Debug)]
pub(super) struct ColumnSums {
    /// Rows.
    rows: usize,
    /// The first row: values close to all others, so that a large common offset costs no digits.
    first: Vec<f64>,
    /// sum (x - first)
    sum: Vec<f64>,
    /// sum (x - first)^2
    squares: Vec<f64>,
    /// sum (x - first)(y - first), y in the next column; the last column of all has none.
    products: Vec<f64>,
}

impl ColumnSums {
    /// Of the columns `columns`.
    pub(super) fn of(rows: &Rows, columns: std::ops::Range<usize>) -> Self {
        let (dim, width) = (rows.dim(), columns.len());
        let mut first = vec![0.0; dim];
        rows.read(0, 1, &mut first);
        // One column further, for the last product.
        let reach = columns.start..dim.min(columns.end + 1);
        let first = first[reach.clone()].to_vec();
        let mut sums = Self {
            rows: rows.len(),
            first,
            sum: vec![0.0; width],
            squares: vec![0.0; width],
            products: vec![0.0; width],
        };
        let mut row = vec![0.0; reach.len()];
        let mut scratch = Vec::new();
        for first in (0..rows.len()).step_by(BLOCK_ROWS) {
            let count = BLOCK_ROWS.min(rows.len() - first);
            let bytes = rows.block(first, count, &mut scratch);
            let columns = |row| Columns { dim, offset: columns.start, row };
            match rows.float() {
                Float::F64 => sums.add(bytes, columns(&mut row), f64::from_le_bytes),
                Float::F32 => sums.add(bytes, columns(&mut row), |b| f64::from(f32::from_le_bytes(b))),
                Float::F16 => sums.add(bytes, columns(&mut row), |b| f16::from_le_bytes(b).to_f64()),
                Float::Bf16 => sums.add(bytes, columns(&mut row), |b| f64::from(bf16_value(b))),
            }
        }
        sums
    }

    fn add<const S: usize>(&mut self, bytes: &[u8], columns: Columns<'_>, value: impl Fn([u8; S]) -> f64) {
        for row in bytes.as_chunks::<S>().0.chunks_exact(columns.dim) {
            let values = row[columns.offset..columns.offset + columns.row.len()].iter();
            for ((out, x), first) in columns.row.iter_mut().zip(values).zip(&self.first) {
                *out = value(*x) - first;
            }
            for ((sum, square), x) in self.sum.iter_mut().zip(&mut self.squares).zip(&*columns.row) {
                *sum += x;
                *square += x * x;
            }
            for (product, pair) in self.products.iter_mut().zip(columns.row.windows(2)) {
                *product += pair[0] * pair[1];
            }
        }
    }

    /// Puts the sums of further columns behind these.
    pub(super) fn append(&mut self, mut other: Self) {
        self.first.truncate(self.sum.len());
        self.first.append(&mut other.first);
        self.sum.append(&mut other.sum);
        self.squares.append(&mut other.squares);
        self.products.append(&mut other.products);
    }

    /// Column means, each as a value and the rest that it lacks.
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

    /// Column variances, with 1/N: an estimate where one row lies far from the others.
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

fn bf16_value(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// A block of rows in panels of W columns, the last one filled up with zeros.
pub(super) struct Panels<T> {
    width: usize,
    lanes: usize,
    values: Vec<T>,
}

impl<T: Copy + Default> Panels<T> {
    /// Room for blocks of at most `lanes` lanes of `dim` columns.
    pub(super) fn new(tile: Tile<T>, lanes: usize, dim: usize) -> Self {
        let width = tile.width;
        Self { width, lanes, values: vec![T::default(); dim.div_ceil(width) * width * lanes] }
    }

    /// W.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Panel `p`.
    pub(super) fn panel(&self, p: usize) -> &[T] {
        let length = self.width * self.lanes;
        &self.values[p * length..(p + 1) * length]
    }

    /// The panels from the first to the one that column `dim - 1` is in, each with its number, to be packed.
    pub(super) fn start_block(&mut self, lanes: usize, dim: usize) -> impl Iterator<Item = (usize, &mut [T])> {
        self.lanes = lanes;
        let length = self.width * lanes;
        self.values[..dim.div_ceil(self.width) * length].chunks_exact_mut(length).enumerate()
    }
}

/// Values of a panel: `x - shift`, in the arithmetic of the tile.
pub(super) trait Lane: Copy + Default + Send + Sync {
    /// Rows that one lane holds.
    const ROWS: usize;
    /// Packs the columns from `column` on of a block of whole rows of `dim` values.
    fn pack(float: Float, bytes: &[u8], at: (usize, usize), shift: &[f64], panel: &mut [Self], width: usize);
}

impl Lane for f64 {
    const ROWS: usize = 1;

    fn pack(float: Float, bytes: &[u8], at: (usize, usize), shift: &[f64], panel: &mut [f64], width: usize) {
        match float {
            Float::F64 => shifted(bytes, at, shift, (panel, width), |b, c: f64| f64::from_le_bytes(b) - c),
            Float::F32 => shifted(bytes, at, shift, (panel, width), |b, c: f64| f64::from(f32::from_le_bytes(b)) - c),
            Float::F16 => shifted(bytes, at, shift, (panel, width), |b, c: f64| f16::from_le_bytes(b).to_f64() - c),
            Float::Bf16 => shifted(bytes, at, shift, (panel, width), |b, c: f64| f64::from(bf16_value(b)) - c),
        }
    }
}

impl Lane for f32 {
    const ROWS: usize = 1;

    fn pack(float: Float, bytes: &[u8], at: (usize, usize), shift: &[f64], panel: &mut [f32], width: usize) {
        match float {
            // Rounded once, after the shift.
            Float::F64 => shifted(bytes, at, shift, (panel, width), |b, c: f64| (f64::from_le_bytes(b) - c) as f32),
            Float::F32 => shifted(bytes, at, shift, (panel, width), |b, c: f64| f32::from_le_bytes(b) - c as f32),
            Float::F16 => {
                shifted(bytes, at, shift, (panel, width), |b, c: f64| f16::from_le_bytes(b).to_f32() - c as f32)
            }
            Float::Bf16 => shifted(bytes, at, shift, (panel, width), |b, c: f64| bf16_value(b) - c as f32),
        }
    }
}

/// `value` of every entry and its column's shift, lane after lane.
fn shifted<T: Copy + Default, const S: usize>(
    bytes: &[u8],
    (dim, column): (usize, usize),
    shift: &[f64],
    (panel, width): (&mut [T], usize),
    value: impl Fn([u8; S], f64) -> T,
) {
    let columns = width.min(dim - column);
    let shift = &shift[column..column + columns];
    for (row, lane) in bytes.as_chunks::<S>().0.chunks_exact(dim).zip(panel.chunks_exact_mut(width)) {
        let (lane, rest) = lane.split_at_mut(columns);
        for ((out, x), shift) in lane.iter_mut().zip(&row[column..column + columns]).zip(shift) {
            *out = value(*x, *shift);
        }
        rest.fill(T::default());
    }
}

/// Pairs of bf16 as they are: there is no shift.
impl Lane for u32 {
    const ROWS: usize = 2;

    fn pack(float: Float, bytes: &[u8], at: (usize, usize), _: &[f64], panel: &mut [u32], width: usize) {
        match float {
            Float::Bf16 => pairs(bytes, at, (panel, width), u16::from_le_bytes),
            // The upper halves of f32 values whose lower halves are zero.
            _ => pairs(bytes, at, (panel, width), |[_, _, low, high]: [u8; 4]| u16::from_le_bytes([low, high])),
        }
    }
}

fn pairs<const S: usize>(
    bytes: &[u8],
    (dim, column): (usize, usize),
    (panel, width): (&mut [u32], usize),
    bits: impl Fn([u8; S]) -> u16,
) {
    let columns = width.min(dim - column);
    let rows: Vec<&[[u8; S]]> =
        bytes.as_chunks::<S>().0.chunks_exact(dim).map(|row| &row[column..column + columns]).collect();
    for (pair, lane) in rows.chunks(2).zip(panel.chunks_exact_mut(width)) {
        let (lane, rest) = lane.split_at_mut(columns);
        match pair {
            [low, high] => {
                for ((out, low), high) in lane.iter_mut().zip(*low).zip(*high) {
                    *out = u32::from(bits(*low)) | u32::from(bits(*high)) << 16;
                }
            }
            _ => {
                for (out, low) in lane.iter_mut().zip(pair[0]) {
                    *out = u32::from(bits(*low));
                }
            }
        }
        rest.fill(0);
    }
}
