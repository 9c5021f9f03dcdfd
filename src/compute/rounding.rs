//! What a kernel coarser than f64 leaves in its sums, for the noise floor of a report.
//!
//! Must not: round; the kernels do.

use crate::analysis::moments::Packed;

/// Rows summed in f32 at a time, at most; the sums of such blocks are added in f64.
pub const F32_BLOCK_ROWS: usize = 512;

/// Spectral norm of the error that f32 products of at most [`F32_BLOCK_ROWS`] rows leave in the `scatter` of `rows` rows.
///
/// A sum of b products in f32, each partial sum rounded with unit roundoff u = 2^-24, errs like a random walk by about
/// u sqrt(b) times the sum of magnitudes (Higham and Mary 2019, probabilistic error analysis). That is at most
/// u sqrt(b) sigma_i sigma_j in entry (i, j) of the scatter, by Cauchy and Schwarz; rounding the centred rows to f32 adds
/// less. A matrix of independent entries e sigma_i sigma_j has a spectral norm of about 2 e |diag| (twice the largest
/// column norm: the edge of Wigner's semicircle), and |diag| <= |M2|_F. Rows of few distinct values repeat their
/// roundings, which then add up along the rows' own few directions: with those the largest error seen, of libtorch's
/// products at d 1 to 512 and N 300 to 4096, was 4.3 u sqrt(b) |M2|_F; with continuous rows it was under 1.5.
pub fn f32_rounding(scatter: &Packed, rows: usize) -> f64 {
    let unit_roundoff = f64::from(f32::EPSILON) / 2.0;
    let block = F32_BLOCK_ROWS.min(rows) as f64;
    // In units of the trace, for fourth powers may overflow.
    let trace = scatter.trace();
    if trace == 0.0 {
        return 0.0;
    }
    8.0 * unit_roundoff * block.sqrt() * scatter.frobenius_squared_in(trace).sqrt() * trace
}
