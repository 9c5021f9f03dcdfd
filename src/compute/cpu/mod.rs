//! The CPU backend: second moments on tiles of our own (`tiles`), large eigenvalue problems in two stages (`eigen`), all
//! else by faer.
//!
//! Guarantees: the same rows and number of threads give the same bits: each entry of a result is summed by one thread,
//! in row order, whatever the timing. Must not: be called on a thread that serves sockets.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod columns;
mod eigen;
mod panels;
mod sums;
mod symmetric;
mod tiles;
mod vectors;

use std::sync::Arc;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_solve;
use faer::{Accum, MatMut, MatRef, Par, Side};
use nalgebra::DMatrix;
use rayon::ThreadPool;

use self::tiles::Tiles;
use super::{ACCUMULATE_NICENESS, Backend, ComputeError, SPECTRUM_NICENESS, Solution, give_way};
use crate::analysis::floats::Rows;
use crate::analysis::moments::{Moments, Packed};
use crate::analysis::origin::{Device, Origin, Precision};

/// Below this many multiply-adds a product is not worth waking a second thread.
const PARALLEL_FROM: usize = 1 << 22;

/// faer on this machine's cores.
pub struct Cpu {
    /// For products.
    pool: Arc<ThreadPool>,
    /// For eigenvalues, which may take seconds.
    solvers: Arc<ThreadPool>,
    tiles: Tiles,
}

impl Cpu {
    /// A backend whose large products run on `threads` threads of its own.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, ComputeError> {
        let pool = |name: &'static str, niceness| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads.max(1))
                .thread_name(move |i| format!("{name}-{i}"))
                .start_handler(move |_| give_way(niceness))
                .build();
            pool.map(Arc::new).map_err(|e| ComputeError::Device(format!("cannot start {threads} threads: {e}")))
        };
        Ok(Self {
            pool: pool("kernel", ACCUMULATE_NICENESS)?,
            solvers: pool("solver", SPECTRUM_NICENESS)?,
            tiles: Tiles::detect(),
        })
    }

    fn threads_for(&self, multiply_adds: usize) -> usize {
        if multiply_adds < PARALLEL_FROM { 1 } else { self.pool.current_num_threads() }
    }
}

impl Backend for Cpu {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError> {
        Ok(self.sum_moments(rows, precision))
    }

    fn cross(&self, a: (&Rows, &Moments), b: (&Rows, &Moments)) -> Result<DMatrix<f64>, ComputeError> {
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
            return Ok(Solution { values, origin: Origin { device: Device::Cpu, kernel: "two-stage" } });
        }
        let view = MatRef::from_column_major_slice(symmetric.as_slice(), dim, dim);
        // One thread: faer's tridiagonal reduction is bound by memory, and the other cores serve the doors.
        faer::set_global_parallelism(Par::Seq);
        let values = view.self_adjoint_eigenvalues(Side::Lower).map_err(|_| ComputeError::NoConvergence { dim })?;
        Ok(Solution { values, origin: Origin { device: Device::Cpu, kernel: "faer" } })
    }

    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError> {
        let dim = symmetric.nrows();
        let view = MatRef::from_column_major_slice(symmetric.as_slice(), dim, dim);
        faer::set_global_parallelism(Par::Seq);
        let solved = view.self_adjoint_eigen(Side::Lower).map_err(|_| ComputeError::NoConvergence { dim })?;
        // faer orders them ascending.
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

impl Cpu {
    /// Runs `work` on each strip of whole columns, one thread a strip.
    fn by_strips<F>(&self, product: &mut DMatrix<f64>, strips: &[std::ops::Range<usize>], work: F)
    where
        F: Fn(std::ops::Range<usize>, MatMut<'_, f64>) + Sync,
    {
        let n = product.nrows();
        let mut rest = product.as_mut_slice();
        let mut parts = Vec::new();
        for strip in strips {
            let (mine, others) = rest.split_at_mut(n * strip.len());
            rest = others;
            parts.push((strip.clone(), mine));
        }
        let run = |(columns, slice): (std::ops::Range<usize>, &mut [f64])| {
            let width = columns.len();
            work(columns, MatMut::from_column_major_slice_mut(slice, n, width));
        };
        if parts.len() == 1 {
            parts.into_iter().for_each(run);
            return;
        }
        self.pool.scope(|scope| {
            for part in parts {
                let run = &run;
                scope.spawn(move |_| run(part));
            }
        });
    }
}

/// Columns `columns` of the lower triangle of X X^T, added to `out` (n x width).
fn lower_product(x: MatRef<'_, f64>, columns: std::ops::Range<usize>, out: MatMut<'_, f64>) {
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

/// Column ranges of a lower triangle with equal areas: the first t of p strips end at n (1 - sqrt(1 - t / p)).
fn triangle_strips(n: usize, parts: usize) -> Vec<std::ops::Range<usize>> {
    strips(n, parts, |share| 1.0 - (1.0 - share).sqrt())
}

fn even_strips(n: usize, parts: usize) -> Vec<std::ops::Range<usize>> {
    strips(n, parts, |share| share)
}

fn strips(n: usize, parts: usize, end: impl Fn(f64) -> f64) -> Vec<std::ops::Range<usize>> {
    let ends: Vec<usize> = (0..=parts).map(|t| (end(t as f64 / parts as f64) * n as f64).round() as usize).collect();
    ends.windows(2).map(|pair| pair[0]..pair[1]).collect()
}
