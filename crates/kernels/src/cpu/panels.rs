//! Packs a block of rows into panels for the tiles, around a shift.
//!
//! Guarantees: a lane holds the value minus the shift, rounded once. Must not: multiply.

use half::f16;

use super::tiles::{Tile, WIDTH_32, WIDTH_64};
use super::vectors::wide;
use crate::fast_sums::F32_BLOCK_ROWS;
use crate::rows::{Float, Rows};

/// Rows multiplied at a time (512 rows are 256 lanes of bf16 pairs).
pub(super) const BLOCK_ROWS: usize = F32_BLOCK_ROWS;

/// Rows packed at a time: several blocks, one after another into the same tile of the product while that is in the
/// first cache. This way the product, which is larger than the caches, is read and written a quarter as often.
pub(super) const PACKED_ROWS: usize = 4 * BLOCK_ROWS;

/// A block of whole rows in their own type.
#[derive(Clone, Copy)]
pub(super) struct RowBlock<'a> {
    pub(super) float: Float,
    /// Row-major.
    pub(super) bytes: &'a [u8],
    pub(super) dim: usize,
}

impl<'a> RowBlock<'a> {
    /// At most [`PACKED_ROWS`] rows from row `first` on; `scratch` holds them where they do not stand row after row.
    pub(super) fn new(rows: &'a Rows, first: usize, scratch: &'a mut Vec<u8>) -> Self {
        let count = PACKED_ROWS.min(rows.len() - first);
        Self { float: rows.float(), bytes: rows.block(first, count, scratch), dim: rows.dim() }
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() / (self.float.size() * self.dim)
    }
}

/// A block of rows in panels of W columns, the last one padded with zeros.
pub(super) struct Panels<T> {
    width: usize,
    lanes: usize,
    values: Vec<T>,
}

impl<T: Copy + Default> Panels<T> {
    /// Allocates for blocks of at most `lanes` lanes of `dim` columns.
    pub(super) fn new(tile: Tile<T>, lanes: usize, dim: usize) -> Self {
        let width = tile.width;
        Self { width, lanes, values: vec![T::default(); dim.div_ceil(width) * width * lanes] }
    }

    /// W, the columns per panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn panel(&self, p: usize) -> &[T] {
        let length = self.width * self.lanes;
        &self.values[p * length..(p + 1) * length]
    }

    /// The numbered panels to pack, from the first to the one with column `dim - 1`.
    pub(super) fn start_block(&mut self, lanes: usize, dim: usize) -> impl Iterator<Item = (usize, &mut [T])> {
        self.lanes = lanes;
        let length = self.width * lanes;
        self.values[..dim.div_ceil(self.width) * length].chunks_exact_mut(length).enumerate()
    }
}

pub(super) trait PanelLane: Copy + Default + Send + Sync {
    /// Rows per lane.
    const ROWS: usize;
    /// Packs the columns from `column` on, minus their part of `shift`.
    fn pack(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [Self]);
}

impl PanelLane for f64 {
    const ROWS: usize = 1;

    fn pack(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [f64]) {
        pack_f64(source, column, shift, panel);
    }
}

impl PanelLane for f32 {
    const ROWS: usize = 1;

    fn pack(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [f32]) {
        pack_f32(source, column, shift, panel);
    }
}

/// Pairs of bf16 unchanged: they have no shift.
impl PanelLane for u32 {
    const ROWS: usize = 2;

    fn pack(source: RowBlock<'_>, column: usize, _: &[f64], panel: &mut [u32]) {
        pack_bf16(source, column, panel);
    }
}

wide!(fn pack_f64(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [f64]) = pack_f64_body);
wide!(fn pack_f32(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [f32]) = pack_f32_body);
wide!(fn pack_bf16(source: RowBlock<'_>, column: usize, panel: &mut [u32]) = pack_bf16_body);

#[inline(always)]
fn pack_f64_body<const FUSED: bool>(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [f64]) {
    let shift = part::<f64, WIDTH_64>(shift, column, |c| c);
    match source.float {
        Float::F64 => shifted(source, column, &shift, panel, |b, c: f64| f64::from_le_bytes(b) - c),
        Float::F32 => shifted(source, column, &shift, panel, |b, c: f64| f64::from(f32::from_le_bytes(b)) - c),
        Float::F16 => shifted(source, column, &shift, panel, |b, c: f64| f16::from_le_bytes(b).to_f64() - c),
        Float::Bf16 => shifted(source, column, &shift, panel, |b, c: f64| f64::from(bf16_value(b)) - c),
    }
}

#[inline(always)]
fn pack_f32_body<const FUSED: bool>(source: RowBlock<'_>, column: usize, shift: &[f64], panel: &mut [f32]) {
    let shift = part::<f32, WIDTH_32>(shift, column, |c| c as f32);
    match source.float {
        Float::F64 => {
            shifted(source, column, &shift, panel, |b, c: f32| (f64::from_le_bytes(b) - f64::from(c)) as f32);
        }
        Float::F32 => shifted(source, column, &shift, panel, |b, c: f32| f32::from_le_bytes(b) - c),
        Float::F16 => shifted(source, column, &shift, panel, |b, c: f32| f16::from_le_bytes(b).to_f32() - c),
        Float::Bf16 => shifted(source, column, &shift, panel, |b, c: f32| bf16_value(b) - c),
    }
}

/// The shift of a panel's columns, in the panel's type.
#[inline(always)]
fn part<T: Copy + Default, const W: usize>(shift: &[f64], column: usize, of: impl Fn(f64) -> T) -> [T; W] {
    let mut part = [T::default(); W];
    for (out, shift) in part.iter_mut().zip(&shift[column..]) {
        *out = of(*shift);
    }
    part
}

/// `value` of every entry and its column's shift, lane by lane.
#[inline(always)]
fn shifted<T: Copy + Default, const S: usize, const W: usize>(
    source: RowBlock<'_>,
    column: usize,
    shift: &[T; W],
    panel: &mut [T],
    value: impl Fn([u8; S], T) -> T,
) {
    let columns = column..source.dim.min(column + W);
    let rows = source.bytes.as_chunks::<S>().0.chunks_exact(source.dim);
    for (row, lane) in rows.zip(panel.as_chunks_mut::<W>().0) {
        let row = &row[columns.clone()];
        if let Ok(row) = <&[[u8; S]; W]>::try_from(row) {
            for ((out, x), shift) in lane.iter_mut().zip(row).zip(shift) {
                *out = value(*x, *shift);
            }
            continue;
        }
        *lane = [T::default(); W];
        for ((out, x), shift) in lane.iter_mut().zip(row).zip(shift) {
            *out = value(*x, *shift);
        }
    }
}

#[inline(always)]
fn pack_bf16_body<const FUSED: bool>(source: RowBlock<'_>, column: usize, panel: &mut [u32]) {
    match source.float {
        Float::Bf16 => pairs(source, column, panel, u16::from_le_bytes),
        // The upper halves of f32 values whose lower halves are zero.
        _ => pairs(source, column, panel, |[_, _, low, high]: [u8; 4]| u16::from_le_bytes([low, high])),
    }
}

#[inline(always)]
fn pairs<const S: usize>(source: RowBlock<'_>, column: usize, panel: &mut [u32], bits: impl Fn([u8; S]) -> u16) {
    let dim = source.dim;
    let columns = column..dim.min(column + WIDTH_32);
    for (rows, lane) in source.bytes.as_chunks::<S>().0.chunks(2 * dim).zip(panel.as_chunks_mut::<WIDTH_32>().0) {
        let (low, high) = rows.split_at(dim);
        let low = &low[columns.clone()];
        let high = if high.is_empty() { &[][..] } else { &high[columns.clone()] };
        if let (Ok(low), Ok(high)) = (<&[[u8; S]; WIDTH_32]>::try_from(low), <&[[u8; S]; WIDTH_32]>::try_from(high)) {
            for ((out, low), high) in lane.iter_mut().zip(low).zip(high) {
                *out = u32::from(bits(*low)) | u32::from(bits(*high)) << 16;
            }
            continue;
        }
        *lane = [0; WIDTH_32];
        for (out, low) in lane.iter_mut().zip(low) {
            *out = u32::from(bits(*low));
        }
        for (out, high) in lane.iter_mut().zip(high) {
            *out |= u32::from(bits(*high)) << 16;
        }
    }
}

#[inline(always)]
pub(super) fn bf16_value(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}
