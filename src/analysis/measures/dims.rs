//! Coordinates that died or copy each other (C11), computed from the covariance alone.

use super::evidence::Evidence;
use super::table::Measured;

/// A coordinate is dead if Var_k is at most this share of the mean variance.
const DEAD_SHARE: f64 = 1e-6;

/// A coordinate is a copy if |correlation| is above this.
const COPY_CORRELATION: f64 = 0.99;

/// Fills dead_dims, duplicate_dims and correlation_energy.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    let (moments, m) = (&evidence.rows.moments, &mut out.measures);
    let d = moments.dim();
    let limit = DEAD_SHARE * moments.total_variance() / d as f64;
    // 1 / sigma_k; zero for dead coordinates.
    let scale: Vec<f64> = (0..d)
        .map(|k| if moments.variance(k) > limit { 1.0 / moments.scatter().diagonal(k).sqrt() } else { 0.0 })
        .collect();
    let live = scale.iter().filter(|scale| **scale > 0.0).count();
    m.dead_dims = Some((d - live) as f64);
    let (mut energy, mut copies) = (0.0, 0usize);
    for i in 0..d {
        let mut largest = 0.0f64;
        for (value, scale_j) in moments.scatter().row(i)[..i].iter().zip(&scale) {
            let r = value * scale[i] * scale_j;
            energy += r * r;
            largest = largest.max(r.abs());
        }
        copies += usize::from(largest > COPY_CORRELATION);
    }
    m.duplicate_dims = Some(copies as f64);
    let pairs = live * live.saturating_sub(1) / 2;
    m.correlation_energy = (pairs > 0).then(|| energy / pairs as f64);
}
