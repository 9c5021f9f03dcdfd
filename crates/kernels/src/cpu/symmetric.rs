//! A packed symmetric matrix times a block of vectors: for iterations on a matrix too large to copy.
//!
//! Guarantees: the packed triangle is read once per call, and nothing d x d is allocated; the same bits for any number
//! of threads: a fixed number of partial sums, added in order. Must not: read the other triangle, which does not exist.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use nalgebra::DMatrix;
use rayon::prelude::*;

use super::device::Cpu;
use crate::packed::Packed;

/// Rows and columns that are unpacked at a time: a block of 300 KiB stays in the second cache.
const BLOCK: usize = 192;
/// Partial sums, for any number of threads: their order determines the bits.
const PARTS: usize = 4;

impl Cpu {
    /// A X. Each part takes every fourth strip of rows, so that all have about as much of the triangle.
    pub(super) fn packed_times(&self, a: &Packed, x: &DMatrix<f64>) -> DMatrix<f64> {
        let (dim, width) = x.shape();
        let view = MatRef::from_column_major_slice(x.as_slice(), dim, width);
        let part = |part: usize| {
            let mut sum = Mat::<f64>::zeros(dim, width);
            let mut block = vec![0.0; BLOCK * BLOCK];
            for start in (part * BLOCK..dim).step_by(PARTS * BLOCK) {
                add_strip(a, start..dim.min(start + BLOCK), view, sum.as_mut(), &mut block);
            }
            sum
        };
        let parts: Vec<Mat<f64>> = if self.threads_for(dim * dim * width) == 1 {
            (0..PARTS).map(part).collect()
        } else {
            self.solvers.install(|| (0..PARTS).into_par_iter().map(part).collect())
        };
        let mut product = DMatrix::zeros(dim, width);
        for sum in &parts {
            for (k, mut column) in product.column_iter_mut().enumerate() {
                for (i, out) in column.iter_mut().enumerate() {
                    *out += sum[(i, k)];
                }
            }
        }
        product
    }
}

/// Adds the product of the rows `rows` of the triangle, and of their mirror image above the diagonal, with X.
fn add_strip(a: &Packed, rows: Range<usize>, x: MatRef<'_, f64>, mut sum: MatMut<'_, f64>, block: &mut [f64]) {
    let height = rows.len();
    let of_rows = x.subrows(rows.start, height);
    for start in (0..rows.start).step_by(BLOCK) {
        let width = BLOCK.min(rows.start - start);
        for (out, i) in block.chunks_exact_mut(width).zip(rows.clone()) {
            out.copy_from_slice(&a.row(i)[start..start + width]);
        }
        let tile = MatRef::from_row_major_slice(&block[..height * width], height, width);
        // A block left of the diagonal counts twice: as it is for its rows, mirrored for its columns.
        let here = sum.as_mut().subrows_mut(rows.start, height);
        matmul(here, Accum::Add, tile, x.subrows(start, width), 1.0, Par::Seq);
        let mirrored = sum.as_mut().subrows_mut(start, width);
        matmul(mirrored, Accum::Add, tile.transpose(), of_rows, 1.0, Par::Seq);
    }
    for (r, i) in rows.clone().enumerate() {
        for (c, value) in a.row(i)[rows.start..].iter().enumerate() {
            block[r * height + c] = *value;
            block[c * height + r] = *value;
        }
    }
    let tile = MatRef::from_row_major_slice(&block[..height * height], height, height);
    matmul(sum.subrows_mut(rows.start, height), Accum::Add, tile, of_rows, 1.0, Par::Seq);
}
