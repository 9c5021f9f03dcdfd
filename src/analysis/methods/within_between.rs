//! LiDAR (T4): how far apart the samples are, in units of how far apart the views of one sample are.
//!
//! Source: Thilak et al., ICLR 2024 (arXiv 2312.04000), section 3: the entropy rank of W^(-1/2) B W^(-1/2), with W the
//! within-sample covariance plus delta I and B the covariance of the sample means. By Cholesky, W = L L^T, and B = G G^T
//! with the samples' means in the columns of G: the eigenvalues are those of X X^T, X = L^-1 G. Computed this way they
//! stay non-negative up to rounding, however badly conditioned W is, as it is in a collapse.

use super::groups::Groups;
use super::kernels::DiagnosticKernels;
use super::table::LidarDiagnostics;
use crate::analysis::measures::entropy_rank;

/// The ridge on W, in squared units of the embedding as in the paper; LiDAR values compare only at the same ridge.
pub(crate) const DELTA: f64 = 1e-4;

/// `None` unless at least two ids have two rows each.
pub(super) fn lidar(groups: &Groups, kernels: &DiagnosticKernels<'_>) -> Result<Option<LidarDiagnostics>, String> {
    let several = |rows: u64| rows >= 2;
    let counted: Vec<_> = groups.by_id.values().filter(|group| several(group.rows)).collect();
    let ids = counted.len() as f64;
    if ids < 2.0 {
        return Ok(None);
    }
    let dim = groups.moments.dim();
    let rows: u64 = counted.iter().map(|group| group.rows).sum();
    let mut centre = vec![0.0; dim];
    for group in &counted {
        for (centre, mean) in centre.iter_mut().zip(&group.mean) {
            *centre += mean / ids;
        }
    }
    let means = groups.weighted_means(&centre, |group| f64::from(u8::from(several(group.rows))) / (ids - 1.0));
    // Ids with one row contribute to neither side.
    let mut within = (groups.moments.scatter().to_full() - groups.between()) / (rows as f64 - ids);
    for k in 0..dim {
        within[(k, k)] += DELTA;
    }
    let whitened = (kernels.whiten)(&within, &means)?;
    // X X^T and X^T X share their nonzero eigenvalues: the smaller one is solved.
    let gram = if dim <= whitened.ncols() { &whitened * whitened.transpose() } else { whitened.tr_mul(&whitened) };
    let eigenvalues = (kernels.eigenvalues)(&gram)?;
    Ok(Some(LidarDiagnostics {
        value: entropy_rank(&eigenvalues),
        delta: Some(DELTA),
        ids: Some(ids),
        rows_per_id: Some(rows as f64 / ids),
    }))
}
