//! All eigenvalues of a large symmetric matrix, without eigenvectors: dense to band by matrix products, band to
//! tridiagonal by bulge chasing, and the root-free QL iteration.
//!
//! Guarantees: an orthogonal similarity all the way, so errors are a few units of rounding of the largest eigenvalue; the
//! same bits whatever the number of threads. Must not: check what it returns (`EigenProblem::check` does).
//!
//! Why own code: a one-stage reduction (faer's, LAPACK's sytrd) spends half of its flops in matrix-vector products, which
//! read the whole matrix once a column: it runs at the speed of the memory. Two stages read it once a block of columns.
//! Only eigenvectors would make the second stage dear, and none are wanted here. Figures: `benches/README.md`.
//!
//! RowBlock: Bischof, Lang and Sun, A framework for symmetric band reduction, ACM Trans. Math. Softw. 26 (2000).

mod band;
mod chase;
mod panel;
mod tridiagonal;

use nalgebra::DMatrix;
use rayon::ThreadPool;

use super::tiles::Tiles;

/// From this dimension on two stages are faster than one (measured on one and two threads).
pub(super) const TWO_STAGES_FROM: usize = 384;

/// Eigenvalues of the matrix in the lower triangle, in any order. `None`: no convergence.
pub(super) fn eigenvalues(symmetric: &DMatrix<f64>, tiles: &Tiles, pool: &ThreadPool) -> Option<Vec<f64>> {
    let (mut diagonal, mut off) = pool.install(|| band::reduce(symmetric, tiles).into_tridiagonal());
    tridiagonal::eigenvalues(&mut diagonal, &mut off)?;
    Some(diagonal)
}
