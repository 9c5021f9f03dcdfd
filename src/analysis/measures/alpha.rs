//! The power-law exponent of the eigenvalues (C10, alpha-ReQ: Agrawal et al., NeurIPS 2022).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The ranks that alpha was fitted over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlphaFit {
    /// The first rank, from 1.
    pub first_rank: usize,
    /// The last rank.
    pub last_rank: usize,
    /// Root mean square of the weighted residuals of ln lambda.
    pub residual: f64,
}

/// Least squares of ln lambda_i on -ln i with weights 1/i over ranks 11 to 100 of the eigenvalues above the floor
/// (alpha-ReQ: Agrawal et al., NeurIPS 2022). `None` under ten points.
pub(super) fn alpha(above_floor: &[f64]) -> Option<(f64, AlphaFit)> {
    let (first, last) = (11, above_floor.len().min(100));
    if last + 1 < first + 10 {
        return None;
    }
    let points = || {
        (first..=last).map(|i| {
            let rank = i as f64;
            (1.0 / rank, -rank.ln(), above_floor[i - 1].ln())
        })
    };
    let weight: f64 = points().map(|(w, _, _)| w).sum();
    let mean_x = points().map(|(w, x, _)| w * x).sum::<f64>() / weight;
    let mean_y = points().map(|(w, _, y)| w * y).sum::<f64>() / weight;
    let xx: f64 = points().map(|(w, x, _)| w * (x - mean_x).powi(2)).sum();
    let xy: f64 = points().map(|(w, x, y)| w * (x - mean_x) * (y - mean_y)).sum();
    let slope = xy / xx;
    let squares: f64 = points().map(|(w, x, y)| w * (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    Some((slope, AlphaFit { first_rank: first, last_rank: last, residual: (squares / weight).sqrt() }))
}
