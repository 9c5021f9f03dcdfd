//! All eigenvalues of a large symmetric matrix, without eigenvectors: dense to band by matrix products, band to
//! tridiagonal by bulge chasing, and the root-free QL iteration.
//!
//! Guarantees: orthogonal similarity throughout, so errors are a few units of rounding of the largest eigenvalue; the
//! same bits for any number of threads. Must not: check what it returns (`EigenProblem::check` does).
//!
//! Why our own code: a one-stage reduction (faer's, LAPACK's sytrd) spends half of its flops in matrix-vector products,
//! which read the whole matrix once per column: it is limited by memory bandwidth. Two stages read it once per block of
//! columns. Only eigenvectors would make the second stage expensive, and none are needed here. Figures:
//! `benches/README.md`.
//!
//! Based on Bischof, Lang and Sun, A framework for symmetric band reduction, ACM Trans. Math. Softw. 26 (2000).

mod band;
mod chase;
mod panel;
mod tridiagonal;

use nalgebra::DMatrix;
use rayon::ThreadPool;

use super::tiles::Tiles;

/// From this dimension on two stages are faster than one (measured on one and two threads).
pub(super) const TWO_STAGES_FROM: usize = 384;

/// Eigenvalues of the matrix in the lower triangle, in any order. `None` without convergence.
pub(super) fn eigenvalues(symmetric: &DMatrix<f64>, tiles: &Tiles, pool: &ThreadPool) -> Option<Vec<f64>> {
    let (mut diagonal, mut off) = pool.install(|| band::reduce(symmetric, tiles).into_tridiagonal());
    tridiagonal::eigenvalues(&mut diagonal, &mut off)?;
    Some(diagonal)
}
