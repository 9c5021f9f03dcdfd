//! Second moments and cross moments of rows: the arithmetic, the shift, and the loop over blocks.
//!
//! Guarantees: one thread sums each entry of a result in row order, so the same rows give the same bits for any number
//! of threads. Must not: choose an arithmetic whose rounding the result does not carry.

use std::ops::Range;

use nalgebra::DMatrix;
use rayon::prelude::*;

use super::columns::ColumnSums;
use super::device::{Cpu, even_strips};
use super::panels::{BLOCK_ROWS, PACKED_ROWS, PanelLane, Panels, RowBlock};
use super::tiles::{ProductShape, TILE_ROWS, Tile, TilePlace};
use crate::backend::CenteredRows;
use crate::fast_sums::{blocks, keeps_enough, summed};
use crate::moments::Moments;
use crate::packed::Packed;
use crate::provenance::{Device, Precision, Provenance};
use crate::rows::{Float, Rows};
use crate::spectrum;

/// Mean squares for which f32 neither overflows nor underflows in a way that matters.
const F32_RANGE: Range<f64> = 1e-20..1e20;

/// Strips per thread: on a shared machine a thread is held up at times, and the others then take its strips.
const STRIPS_A_THREAD: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum SumKernel {
    F64,
    /// Around the mean, in f32.
    F32,
    /// Pairs of bf16 unchanged, in f32.
    Bf16,
}

impl SumKernel {
    fn provenance(self) -> Provenance {
        let kernel = match self {
            SumKernel::F64 => "f64",
            SumKernel::F32 => "f32",
            SumKernel::Bf16 => "bf16",
        };
        Provenance { device: Device::Cpu, kernel }
    }
}

/// What a batch's columns show about the rounding to expect.
struct Spread {
    variances: Vec<f64>,
    squared_means: Vec<f64>,
}

impl Spread {
    fn from_sums(sums: &ColumnSums) -> Self {
        Self {
            variances: sums.variances().collect(),
            squared_means: sums.means().map(|(mean, _)| mean * mean).collect(),
        }
    }

    /// The expected bound on the kernel's rounding, for a batch with a stable rank of 16; few batches are below that.
    fn rounding(&self, kernel: SumKernel, rows: usize) -> f64 {
        let largest = self.variances.iter().sum::<f64>() / 4.0;
        let blocks = blocks(kernel.provenance().kernel, rows).expect("its own word");
        blocks.map_or(0.0, |blocks| blocks.expected(&self.variances, &self.squared_means, largest))
    }

    /// max_k E z_k^2
    fn largest_mean_square(&self) -> f64 {
        self.variances.iter().zip(&self.squared_means).map(|(v, m)| v + m).fold(0.0, f64::max)
    }

    /// Whether no coordinate's mean exceeds its spread: pairs cannot subtract a mean, and a coordinate that hardly
    /// varies repeats the same product in each row, so its rounding errors add up.
    fn means_are_small(&self) -> bool {
        self.variances.iter().zip(&self.squared_means).all(|(variance, square)| square <= variance)
    }
}

impl Cpu {
    pub(super) fn sum_moments(&self, rows: &Rows, precision: Precision) -> Moments {
        let (n, d) = (rows.len(), rows.dim());
        let threads = self.threads_for(n * d * d / 2);
        let sums = self.column_sums(rows, threads);
        let spread = Spread::from_sums(&sums);
        let (kernel, limit) = self.choose(rows, precision, &spread);
        let moments = self.sum_by(kernel, rows, &sums, &spread);
        if kernel == SumKernel::F64 || keeps_enough(&moments, limit) {
            moments
        } else {
            self.sum_by(SumKernel::F64, rows, &sums, &spread)
        }
    }

    fn sum_by(&self, kernel: SumKernel, rows: &Rows, sums: &ColumnSums, spread: &Spread) -> Moments {
        let (n, d) = (rows.len(), rows.dim());
        let shift: Vec<f64> = sums
            .means()
            .map(|(mean, _)| match kernel {
                SumKernel::F64 => mean,
                SumKernel::F32 => f64::from(mean as f32),
                SumKernel::Bf16 => 0.0,
            })
            .collect();
        // The difference of shift and mean: M2 = sum (x - shift)(x - shift)^T - n delta delta^T.
        let delta: Vec<f64> = sums.means().zip(&shift).map(|((mean, rest), shift)| (mean - shift) + rest).collect();
        let mut scatter = minus_outer(n as f64, &delta);
        match kernel {
            SumKernel::F64 => self.add_blocks(self.tiles.f64, rows, &shift, &mut scatter),
            SumKernel::F32 => self.add_blocks(self.tiles.f32, rows, &shift, &mut scatter),
            SumKernel::Bf16 => {
                let tile = self.tiles.bf16.expect("the kernel is chosen only where the processor has it");
                self.add_blocks(tile, rows, &shift, &mut scatter);
            }
        }
        let mut errors = Vec::new();
        for (k, variance) in spread.variances.iter().enumerate() {
            let diagonal = &mut scatter[ProductShape::Lower.start(k) + k];
            if kernel != SumKernel::F64 {
                *diagonal = variance * n as f64;
            }
            // A sum of squares is not negative; anything below zero is rounding.
            *diagonal = diagonal.max(0.0);
        }
        if kernel != SumKernel::F64 {
            for (k, exact) in sums.neighbours().enumerate() {
                errors.push(scatter[ProductShape::Lower.start(k + 1) + k] - exact);
            }
        }
        let scatter = Packed::from_rows(d, scatter).expect("as long as it was made");
        let mean = sums.means().map(|(mean, _)| mean).collect();
        summed(kernel.provenance(), n, mean, scatter, errors).expect("its own word")
    }

    /// sum_i (a_i - mean_a)(b_i - mean_b)^T, in f32 if the moments of both were summed faster than in f64.
    pub(super) fn sum_cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> DMatrix<f64> {
        let fast = [a.moments, b.moments].iter().all(|moments| {
            let by_fast = moments.provenances().iter().all(|provenance| provenance.kernel != "f64");
            by_fast && !moments.provenances().is_empty() && F32_RANGE.contains(&moments.largest_mean_square())
        });
        let (n, d) = (a.rows.len(), a.rows.dim());
        if !fast {
            let mut product = DMatrix::zeros(d, d);
            self.add_cross(self.tiles.f64, a, b, &mut product);
            return product;
        }
        // Around the means as f32 holds them; the difference is corrected here.
        let lacks = |mean: &[f64]| mean.iter().map(|x| x - f64::from(*x as f32)).collect::<Vec<_>>();
        let (delta_a, delta_b) = (lacks(a.moments.mean()), lacks(b.moments.mean()));
        let mut product = DMatrix::from_fn(d, d, |i, j| -(n as f64) * delta_a[i] * delta_b[j]);
        self.add_cross(self.tiles.f32, a, b, &mut product);
        product
    }

    /// A kernel faster than f64 if allowed: if requested, or if its expected loss is below the noise that the rows' own
    /// type has left in their second moment (C14). Also returns how much it may lose.
    fn choose(&self, rows: &Rows, precision: Precision, spread: &Spread) -> (SumKernel, f64) {
        let (largest, n) = (spread.largest_mean_square(), rows.len());
        if precision == Precision::F64 || !F32_RANGE.contains(&largest) {
            return (SumKernel::F64, 0.0);
        }
        let float = rows.resolution();
        let noise = spectrum::quantisation(float, n, rows.dim(), largest);
        let bf16 =
            (float == Float::Bf16 && self.tiles.bf16.is_some() && spread.means_are_small()).then_some(SumKernel::Bf16);
        let mut faster = bf16.into_iter().chain([SumKernel::F32]);
        match precision {
            Precision::Fast => (faster.next().unwrap_or(SumKernel::F32), f64::INFINITY),
            _ => (faster.find(|k| spread.rounding(*k, n) <= noise).unwrap_or(SumKernel::F64), noise),
        }
    }

    fn column_sums(&self, rows: &Rows, threads: usize) -> ColumnSums {
        let strips = even_strips(rows.dim(), threads).into_par_iter().filter(|columns| !columns.is_empty());
        let mut parts =
            self.pool.install(|| strips.map(|columns| ColumnSums::from_rows(rows, columns)).collect::<Vec<_>>());
        let mut sums = parts.remove(0);
        parts.into_iter().for_each(|part| sums.append(part));
        sums
    }

    /// out += sum (x - shift)(x - shift)^T, its packed lower triangle.
    fn add_blocks<T: PanelLane>(&self, tile: Tile<T>, rows: &Rows, shift: &[f64], out: &mut [f64]) {
        let (n, d) = (rows.len(), rows.dim());
        let threads = self.threads_for(n * d * d / 2);
        let mut panels = Panels::new(tile, PACKED_ROWS.min(n).div_ceil(T::ROWS), d);
        let mut scratch = Vec::new();
        for first in (0..n).step_by(PACKED_ROWS) {
            self.pack(&mut panels, RowBlock::new(rows, first, &mut scratch), shift, threads);
            let panels = &panels;
            let whole = Strip { shape: ProductShape::Lower, rows: 0..d, out: &mut *out };
            self.by_rows(whole, threads, |strip| add_strip(tile, panels, panels, strip));
        }
    }

    /// `product` += sum (a - mean_a)(b - mean_b)^T.
    fn add_cross<T: PanelLane>(
        &self,
        tile: Tile<T>,
        a: CenteredRows<'_>,
        b: CenteredRows<'_>,
        product: &mut DMatrix<f64>,
    ) {
        let (n, d) = (a.rows.len(), a.rows.dim());
        let threads = self.threads_for(n * d * d);
        let lanes = PACKED_ROWS.min(n).div_ceil(T::ROWS);
        let (mut of_a, mut of_b) = (Panels::new(tile, lanes, d), Panels::new(tile, lanes, d));
        let mut scratch = Vec::new();
        for first in (0..n).step_by(PACKED_ROWS) {
            self.pack(&mut of_a, RowBlock::new(a.rows, first, &mut scratch), a.moments.mean(), threads);
            self.pack(&mut of_b, RowBlock::new(b.rows, first, &mut scratch), b.moments.mean(), threads);
            let (of_a, of_b) = (&of_a, &of_b);
            // In column-major memory these are rows to the tiles, so b is the left operand.
            let whole = Strip { shape: ProductShape::Full(d), rows: 0..d, out: product.as_mut_slice() };
            self.by_rows(whole, threads, |strip| add_strip(tile, of_b, of_a, strip));
        }
    }

    fn pack<T: PanelLane>(&self, panels: &mut Panels<T>, source: RowBlock<'_>, shift: &[f64], threads: usize) {
        let width = panels.width();
        let pack = |(p, panel): (usize, &mut [T])| T::pack(source, p * width, shift, panel);
        let blocks = panels.start_block(source.len().div_ceil(T::ROWS), source.dim);
        if threads == 1 {
            blocks.for_each(pack);
        } else {
            let blocks: Vec<_> = blocks.collect();
            self.pool.install(|| blocks.into_par_iter().for_each(pack));
        }
    }

    /// Runs `work` on strips of a whole product.
    fn by_rows(&self, whole: Strip<'_>, threads: usize, work: impl Fn(Strip<'_>) + Sync) {
        if threads == 1 {
            work(whole);
            return;
        }
        let Strip { shape, rows, out } = whole;
        let mut rest = out;
        let mut parts = Vec::new();
        for rows in strips(shape, rows.len(), threads * STRIPS_A_THREAD) {
            let (out, others) = rest.split_at_mut(shape.start(rows.end) - shape.start(rows.start));
            rest = others;
            parts.push(Strip { shape, rows, out });
        }
        self.pool.install(|| parts.into_par_iter().for_each(&work));
    }
}

/// Whole rows of a product.
struct Strip<'a> {
    shape: ProductShape,
    rows: Range<usize>,
    /// Their entries.
    out: &'a mut [f64],
}

/// Adds left^T right on a strip of the product.
fn add_strip<T: PanelLane>(tile: Tile<T>, left: &Panels<T>, right: &Panels<T>, strip: Strip<'_>) {
    let Strip { shape, rows: strip, out } = strip;
    let base = shape.start(strip.start);
    // Panel by panel of the right operand, which stays in the cache while the left one passes by.
    for column in (0..shape.end(strip.end - 1)).step_by(tile.width) {
        let right = right.panel(column / tile.width);
        // Strips and panels start at multiples of the tile's height: the triangle has nothing above this row.
        let first = if matches!(shape, ProductShape::Lower) { strip.start.max(column) } else { strip.start };
        for row in (first..strip.end).step_by(TILE_ROWS) {
            let height = TILE_ROWS.min(strip.end - row);
            let place = &mut TilePlace { out: &mut *out, base, shape, row, column, height };
            let block = BLOCK_ROWS / T::ROWS * tile.width;
            for (left, right) in left.panel(row / tile.width).chunks(block).zip(right.chunks(block)) {
                tile.add(left, row % tile.width, right, place);
            }
        }
    }
}

/// - n delta delta^T, its packed lower triangle.
fn minus_outer(n: f64, delta: &[f64]) -> Vec<f64> {
    let d = delta.len();
    let mut out = vec![0.0; ProductShape::Lower.start(d)];
    if delta.iter().any(|x| *x != 0.0) {
        for (i, delta_i) in delta.iter().enumerate() {
            let scaled = -n * delta_i;
            for (out, delta_j) in
                out[ProductShape::Lower.start(i)..ProductShape::Lower.start(i + 1)].iter_mut().zip(delta)
            {
                *out = scaled * delta_j;
            }
        }
    }
    out
}

/// Row ranges of about equal areas, starting at multiples of the tile's height.
fn strips(shape: ProductShape, height: usize, parts: usize) -> Vec<Range<usize>> {
    let end = |part: usize| {
        let share = part as f64 / parts as f64;
        let share = if matches!(shape, ProductShape::Lower) { share.sqrt() } else { share };
        let end = (share * height as f64) as usize / TILE_ROWS * TILE_ROWS;
        if part == parts { height } else { end }
    };
    let ends: Vec<usize> = (0..=parts).map(end).collect();
    ends.windows(2).map(|pair| pair[0]..pair[1]).filter(|strip| !strip.is_empty()).collect()
}
