//! The first eigenvalues: a block Krylov space from random signs, and its Ritz pairs.
//!
//! Guarantees: an orthonormal basis whatever the rank of the matrix; the Ritz values that are kept are an unbroken row
//! from the largest, each with a small residual. Must not: use anything of the matrix but its products.
//!
//! Musco and Musco, Randomized block Krylov methods, NIPS 2015; residuals and Ritz values: Parlett, The Symmetric Eigenvalue
//! Problem, 1980, sections 4.5 and 11.

use nalgebra::DMatrix;

use super::operator::{DIRECTIONS, LanczosKernels, Operator, Signs, project_out};

/// Vectors per product: as many copies of one eigenvalue can be found at a time.
pub(super) const BLOCK: usize = 32;

/// Dimension of the Krylov space: ten blocks. With fewer, the last of 128 directions do not converge on lambda ~ 1/i.
pub(super) const KRYLOV: usize = 320;

/// A Ritz value counts as known if |A q - theta q| / theta is at most this: some eigenvalue is that near.
const RESIDUAL: f64 = 0.02;

/// The part of a vector that must remain after projections for it to be a direction and not rounding.
const LEFT: f64 = 1e-8;

/// Converged Ritz pairs.
pub(super) struct Deflated {
    /// Q, d x k.
    pub(super) vectors: DMatrix<f64>,
    /// theta, descending, each with |A q - theta q|.
    pub(super) values: Vec<(f64, f64)>,
    /// The largest Ritz value, kept or not, with its residual.
    pub(super) top: (f64, f64),
    /// The largest Ritz value that was not kept.
    pub(super) next: f64,
}

/// The converged Ritz pairs, at most [`DIRECTIONS`]; `floor` is the rounding of the largest eigenvalue.
pub(super) fn deflate(
    operator: &Operator<'_>,
    floor: f64,
    random: &mut Signs,
    kernels: &LanczosKernels<'_>,
) -> Result<Deflated, String> {
    let dim = operator.dim();
    let size = KRYLOV.min(dim.div_ceil(2));
    let (mut basis, mut image) = (DMatrix::zeros(dim, size), DMatrix::zeros(dim, size));
    let mut filled = 0;
    while filled < size {
        let width = BLOCK.min(size - filled);
        let next = match filled.checked_sub(BLOCK) {
            None => random.block(dim, width),
            Some(last) => image.columns(last, width).into_owned(),
        };
        extend(&mut basis, filled, next, floor, random);
        let block = basis.columns(filled, width).into_owned();
        image.columns_mut(filled, width).copy_from(&operator.apply(&block, kernels)?);
        filled += width;
    }
    let projected = basis.transpose() * &image;
    let (ritz, rotation) = (kernels.eigenvectors)(&((&projected + projected.transpose()) * 0.5))?;
    let rotation = rotation.columns(0, DIRECTIONS.min(size));
    let (mut vectors, images) = (&basis * rotation, &image * rotation);
    let pairs: Vec<(f64, f64)> = vectors
        .column_iter()
        .zip(images.column_iter())
        .map(|(q, image)| {
            let value = q.dot(&image);
            (value, (image - q * value).norm())
        })
        .collect();
    let kept = pairs.iter().take_while(|(value, residual)| *value > floor && *residual <= RESIDUAL * value).count();
    vectors = vectors.columns(0, kept).into_owned();
    let next = ritz.get(kept).copied().unwrap_or(0.0);
    let top = pairs.first().copied().unwrap_or_default();
    Ok(Deflated { vectors, values: pairs[..kept].to_vec(), top, next })
}

/// Makes `block` orthonormal to the first `filled` columns and writes it behind them. Vectors without a direction of
/// their own (below `floor`, or copies) are replaced by random signs.
fn extend(basis: &mut DMatrix<f64>, filled: usize, mut block: DMatrix<f64>, floor: f64, random: &mut Signs) {
    let (dim, width) = block.shape();
    // Twice is enough (Parlett, section 6.9); scaled in between, so that the second pass rounds what is left.
    let mut alive = vec![true; width];
    for _ in 0..2 {
        project_out(&basis.columns(0, filled), &mut block);
        for (mut column, alive) in block.column_iter_mut().zip(&mut alive) {
            let norm = column.norm();
            *alive &= norm > floor;
            if *alive {
                column /= norm;
            }
        }
    }
    for (k, alive) in alive.iter().enumerate() {
        let mut column = block.columns(k, 1).into_owned();
        project_out(&basis.columns(filled, k), &mut column);
        // A few random vectors in a row do not lie in a space of half the dimension.
        for _ in 0..8 {
            let norm = column.norm();
            if *alive && norm > LEFT || norm > 0.1 * (dim as f64).sqrt() {
                column /= norm;
                break;
            }
            column = random.block(dim, 1);
            project_out(&basis.columns(0, filled + k), &mut column);
        }
        for _ in 0..2 {
            project_out(&basis.columns(0, filled + k), &mut column);
            column /= column.norm();
        }
        basis.set_column(filled + k, &column.column(0));
    }
}
