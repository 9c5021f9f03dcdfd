//! The backend's methods: which kernel does which job.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_solve;
use faer::{Accum, MatMut, MatRef, Par, Side};
use nalgebra::DMatrix;

use super::device::{Cpu, even_strips, triangle_strips};
use super::eigen;
use crate::backend::{Backend, CenteredRows, ComputeError, Solution};
use crate::moments::Moments;
use crate::packed::Packed;
use crate::provenance::{Device, Precision, Provenance};
use crate::rows::Rows;

impl Backend for Cpu {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError> {
        Ok(self.sum_moments(rows, precision))
    }

    fn cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> Result<DMatrix<f64>, ComputeError> {
        Ok(self.sum_cross(a, b))
    }

    fn gram(&self, x: &DMatrix<f64>, outer: bool) -> Result<DMatrix<f64>, ComputeError> {
        let view = MatRef::from_column_major_slice(x.as_slice(), x.nrows(), x.ncols());
        let view = if outer { view } else { view.transpose() };
        let n = view.nrows();
        let mut product = DMatrix::zeros(n, n);
        let strips = triangle_strips(n, self.threads_for(n * n * view.ncols() / 2));
        self.by_strips(&mut product, &strips, |columns, out| lower_product(view, columns, out));
        Ok(product)
    }

    fn inner(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let left = MatRef::from_column_major_slice(a.as_slice(), a.nrows(), a.ncols()).transpose();
        let right = MatRef::from_column_major_slice(b.as_slice(), b.nrows(), b.ncols());
        let mut product = DMatrix::zeros(a.ncols(), b.ncols());
        let strips = even_strips(b.ncols(), self.threads_for(a.nrows() * a.ncols() * b.ncols()));
        self.by_strips(&mut product, &strips, |columns, out| {
            matmul(out, Accum::Add, left, right.subcols(columns.start, columns.len()), 1.0, Par::Seq);
        });
        Ok(product)
    }

    fn symmetric_times(&self, a: &Packed, x: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        Ok(self.packed_times(a, x))
    }

    fn eigenvalues(&self, symmetric: &DMatrix<f64>) -> Result<Solution, ComputeError> {
        let dim = symmetric.nrows();
        if dim >= eigen::TWO_STAGES_FROM {
            let values = eigen::eigenvalues(symmetric, &self.tiles, &self.solvers);
            let values = values.ok_or(ComputeError::NoConvergence { dim })?;
            return Ok(Solution { values, provenance: Provenance { device: Device::Cpu, kernel: "two-stage" } });
        }
        let view = MatRef::from_column_major_slice(symmetric.as_slice(), dim, dim);
        // One thread: faer's tridiagonal reduction is limited by memory, and the other cores serve the endpoints.
        faer::set_global_parallelism(Par::Seq);
        let values = view.self_adjoint_eigenvalues(Side::Lower).map_err(|_| ComputeError::NoConvergence { dim })?;
        Ok(Solution { values, provenance: Provenance { device: Device::Cpu, kernel: "faer" } })
    }

    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError> {
        let dim = symmetric.nrows();
        let view = MatRef::from_column_major_slice(symmetric.as_slice(), dim, dim);
        faer::set_global_parallelism(Par::Seq);
        let solved = view.self_adjoint_eigen(Side::Lower).map_err(|_| ComputeError::NoConvergence { dim })?;
        // faer sorts them ascending.
        let last = dim.wrapping_sub(1);
        let values = (0..dim).map(|k| solved.S()[last - k]).collect();
        let vectors = DMatrix::from_fn(dim, dim, |i, k| solved.U()[(i, last - k)]);
        Ok((values, vectors))
    }

    fn whiten(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let (dim, columns) = b.shape();
        faer::set_global_parallelism(Par::Seq);
        let factor = MatRef::from_column_major_slice(a.as_slice(), dim, dim)
            .llt(Side::Lower)
            .map_err(|_| ComputeError::NotPositiveDefinite { dim })?;
        let mut solved = b.clone();
        let right = MatMut::from_column_major_slice_mut(solved.as_mut_slice(), dim, columns);
        triangular_solve::solve_lower_triangular_in_place(factor.L(), right, Par::Seq);
        Ok(solved)
    }
}

/// Columns `columns` of the lower triangle of X X^T, added to `out` (n x width).
fn lower_product(x: MatRef<'_, f64>, columns: Range<usize>, out: MatMut<'_, f64>) {
    let (n, start, width) = (x.nrows(), columns.start, columns.len());
    let right = x.subrows(start, width).transpose();
    let (_, lower) = out.split_at_row_mut(start);
    let (square, below) = lower.split_at_row_mut(width);
    triangular::matmul(
        square,
        BlockStructure::TriangularLower,
        Accum::Add,
        x.subrows(start, width),
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    let first_below = start + width;
    matmul(below, Accum::Add, x.subrows(first_below, n - first_below), right, 1.0, Par::Seq);
}
