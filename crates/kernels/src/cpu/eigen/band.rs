//! Dense symmetric to band: panel by panel, A <- Q^T A Q, almost entirely in matrix products on the tiles.
//!
//! Guarantees: the same bits for any number of threads: each sum has a fixed order. Must not: read the half of the
//! matrix that is not kept.
//!
//! With Q = I - V T V^T and Y = A V: Q^T A Q = A - V X^T - X V^T, X = Y T - V (T^T V^T Y T) / 2.

use faer::linalg::matmul::matmul;
use faer::reborrow::ReborrowMut;
use faer::{Accum, Mat, MatRef, Par};
use nalgebra::DMatrix;
use rayon::prelude::*;

use super::super::tiles::{ProductShape, Strided, StridedTile, TILE_ROWS, Tile, TilePlace, Tiles};
use super::chase::Band;
use super::panel::Panel;

/// Columns per panel, and so half the bandwidth: two tiles. A wider panel makes the products cheaper and the chase more
/// expensive.
const BANDWIDTH: usize = 48;
/// Rows and columns of the matrix that are multiplied at a time with V: a block of 300 KiB stays in the second cache.
const BLOCK: usize = 192;
/// Rows that one task updates: few enough pages for the first-level TLB.
const UPDATE_ROWS: usize = 64;
/// Rows of V and Y that one task multiplies.
const STEP_ROWS: usize = 512;
/// Partial sums of A V, for any number of threads: their order determines the bits.
const PARTS: usize = 4;

/// The upper half of a symmetric matrix by rows; the part from column `from` on is not reduced yet.
struct Upper<'a> {
    values: &'a mut [f64],
    n: usize,
    from: usize,
}

/// The band matrix with the eigenvalues of the matrix in the lower triangle.
pub(super) fn reduce(symmetric: &DMatrix<f64>, tiles: &Tiles) -> Band {
    let n = symmetric.nrows();
    // The lower triangle column by column is the upper one row by row.
    let mut values = symmetric.as_slice().to_vec();
    for k in (0..n.saturating_sub(BANDWIDTH + 1)).step_by(BANDWIDTH) {
        let from = k + BANDWIDTH;
        let height = n - from;
        let rows = &mut values[k * n..from * n];
        // Row by row these are the columns of the panel below the diagonal block.
        let mut columns: Vec<f64> = rows.chunks_exact(n).flat_map(|row| &row[from..]).copied().collect();
        let panel = Panel::factor(&mut columns, height);
        for (row, column) in rows.chunks_exact_mut(n).zip(columns.chunks_exact(height)) {
            row[from..].copy_from_slice(column);
        }
        let mut rest = Upper { values: &mut values, n, from };
        let product = rest.times(&panel, tiles);
        rest.update(&panel, &product, tiles.f64);
    }
    let mut band = Band::zeros(n, BANDWIDTH);
    for k in 0..n {
        band.set_column(k, &values[k * n + k..(k + 1) * n]);
    }
    band
}

impl Upper<'_> {
    fn order(&self) -> usize {
        self.n - self.from
    }

    /// The index of row i, column j of the remaining matrix.
    fn at(&self, i: usize, j: usize) -> usize {
        (self.from + i) * self.n + self.from + j
    }

    /// Y = A V, row by row, with the columns of V rounded up to whole tiles.
    fn times(&self, panel: &Panel, tiles: &Tiles) -> Vec<f64> {
        let order = self.order();
        let v = Transposed::new(panel, tiles);
        let part = |part: usize| {
            let mut y = vec![0.0; order * v.width()];
            let mut mirror = vec![0.0; BLOCK * BLOCK];
            for i in (part * BLOCK..order).step_by(PARTS * BLOCK) {
                self.diagonal_block(i, &mut mirror);
                v.multiply(Strided { values: &mirror, across: 1, along: BLOCK }, i, i, &mut y);
                for j in (i + BLOCK..order).step_by(BLOCK) {
                    // A block above the diagonal counts twice: as it is for the rows i, mirrored for the rows j.
                    let block = &self.values[self.at(i, j)..];
                    v.multiply(Strided { values: block, across: self.n, along: 1 }, i, j, &mut y);
                    v.multiply(Strided { values: block, across: 1, along: self.n }, j, i, &mut y);
                }
            }
            y
        };
        let mut parts: Vec<Vec<f64>> = (0..PARTS).into_par_iter().map(part).collect();
        let mut sum = parts.remove(0);
        for part in parts {
            for (sum, y) in sum.iter_mut().zip(part) {
                *sum += y;
            }
        }
        sum
    }

    /// Both halves of the diagonal block at row i.
    fn diagonal_block(&self, i: usize, mirror: &mut [f64]) {
        let length = BLOCK.min(self.order() - i);
        for r in 0..length {
            for c in r..length {
                let x = self.values[self.at(i + r, i + c)];
                mirror[r * BLOCK + c] = x;
                mirror[c * BLOCK + r] = x;
            }
        }
    }

    /// A <- A - V X^T - X V^T, on and above the diagonal.
    fn update(&mut self, panel: &Panel, product: &[f64], tile: Tile<f64>) {
        let (order, n, from) = (self.order(), self.n, self.from);
        let x = step(panel, product);
        let left = pairs(tile.width, panel.view(), x.as_ref(), -1.0);
        let right = pairs(tile.width, x.as_ref(), panel.view(), 1.0);
        let length = 2 * panel.count() * tile.width;
        let start = from * n;
        let strips = self.values[start..].par_chunks_mut(UPDATE_ROWS * n);
        strips.enumerate().for_each(|(strip, out)| {
            let rows = strip * UPDATE_ROWS..order.min((strip + 1) * UPDATE_ROWS);
            let base = start + rows.start * n;
            for p in rows.start / tile.width..order.div_ceil(tile.width) {
                let column = p * tile.width;
                for row in rows.clone().step_by(TILE_ROWS).take_while(|row| *row < column + tile.width) {
                    let height = TILE_ROWS.min(rows.end - row);
                    let (shape, row_at, column_at) = (ProductShape::Full(n), from + row, from + column);
                    let place = &mut TilePlace { out: &mut *out, base, shape, row: row_at, column: column_at, height };
                    let q = row / tile.width;
                    let left = &left[q * length..(q + 1) * length];
                    tile.add(left, row % tile.width, &right[p * length..(p + 1) * length], place);
                }
            }
        });
    }
}

/// X = Y T - V (T^T V^T Y T) / 2.
fn step(panel: &Panel, product: &[f64]) -> Mat<f64> {
    let (height, count, t) = (panel.height, panel.count(), panel.t.as_ref());
    let (v, y) =
        (panel.view(), MatRef::from_row_major_slice(product, height, product.len() / height).subcols(0, count));
    let blocks: Vec<_> = (0..height).step_by(STEP_ROWS).map(|row| (row, STEP_ROWS.min(height - row))).collect();
    let parts: Vec<Mat<f64>> = blocks
        .par_iter()
        .map(|(row, rows)| {
            let mut part = Mat::zeros(count, count);
            let v = v.subrows(*row, *rows).transpose();
            matmul(part.as_mut(), Accum::Replace, v, y.subrows(*row, *rows), 1.0, Par::Seq);
            part
        })
        .collect();
    let inner = parts.into_iter().fold(Mat::zeros(count, count), |sum, part| sum + part);
    let inner = t.transpose() * inner * t;
    let mut x = Mat::zeros(height, count);
    x.as_mut().par_row_chunks_mut(STEP_ROWS).zip(blocks.par_iter()).for_each(|(mut x, (row, rows))| {
        matmul(x.rb_mut(), Accum::Replace, y.subrows(*row, *rows), t, 1.0, Par::Seq);
        matmul(x, Accum::Add, v.subrows(*row, *rows), inner.as_ref(), -0.5, Par::Seq);
    });
    x
}

/// Panels for the tiles of two matrices side by side, their columns as lanes, times `sign`.
fn pairs(width: usize, first: MatRef<'_, f64>, second: MatRef<'_, f64>, sign: f64) -> Vec<f64> {
    let (height, lanes) = (first.nrows(), first.ncols() + second.ncols());
    let mut panels = vec![0.0; height.div_ceil(width) * width * lanes];
    panels.par_chunks_exact_mut(lanes * width).enumerate().for_each(|(p, panel)| {
        let (row, rows) = (p * width, width.min(height - p * width));
        let columns = first.subrows(row, rows).col_iter().chain(second.subrows(row, rows).col_iter());
        for (lane, column) in panel.chunks_exact_mut(width).zip(columns) {
            for (out, x) in lane.iter_mut().zip(column.iter()) {
                *out = sign * x;
            }
        }
    });
    panels
}

/// V in panels whose lanes are its rows.
struct Transposed {
    height: usize,
    tile: StridedTile,
    tile_width: usize,
    panels: Vec<f64>,
}

impl Transposed {
    fn new(panel: &Panel, tiles: &Tiles) -> Self {
        let (height, tile_width) = (panel.height, tiles.f64.width);
        let mut panels = vec![0.0; panel.count().div_ceil(tile_width) * tile_width * height];
        for (k, column) in panel.v.chunks_exact(height).enumerate() {
            let panel = &mut panels[k / tile_width * tile_width * height..];
            for (lane, x) in panel.chunks_exact_mut(tile_width).zip(column) {
                lane[k % tile_width] = *x;
            }
        }
        Self { height, tile: tiles.f64_strided, tile_width, panels }
    }

    /// Columns, rounded up to whole tiles.
    fn width(&self) -> usize {
        self.panels.len() / self.height
    }

    /// Rows `to ..` of y += a block of at most BLOCK x BLOCK times rows `by ..` of V.
    fn multiply(&self, block: Strided<&[f64]>, to: usize, by: usize, y: &mut [f64]) {
        let (rows, lanes) = (BLOCK.min(self.height - to), BLOCK.min(self.height - by));
        for (p, panel) in self.panels.chunks_exact(self.tile_width * self.height).enumerate() {
            let right = &panel[by * self.tile_width..][..lanes * self.tile_width];
            for row in (0..rows).step_by(TILE_ROWS) {
                let height = TILE_ROWS.min(rows - row);
                let (shape, column) = (ProductShape::Full(self.width()), p * self.tile_width);
                let place = &mut TilePlace { out: &mut *y, base: 0, shape, row: to + row, column, height };
                let left = Strided { values: &block.values[row * block.across..], ..block };
                self.tile.add(left, right, place);
            }
        }
    }
}
