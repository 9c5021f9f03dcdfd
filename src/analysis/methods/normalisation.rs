//! The same layer before and after batch norm (P5): finds a collapse that batch norm hides by scaling it up again.
//!
//! With eps in its denominator, batch norm maps a standard deviation s to gamma s / sqrt(s^2 + eps): s from 1 down to
//! 0.01 moves the variance after it from 1.000 to 0.909 at eps = 1e-5. The remaining signal and the noise are scaled up
//! together, by the stiffness gamma / sqrt(s^2 + eps).

use super::measured_layer::MeasuredLayer;
use super::table::BatchNormDiagnostics;

/// Below this standard deviation, in units of sqrt(eps), epsilon dominates batch norm.
const LIMIT: f64 = 10.0;

/// A smaller scale counts as zero: the layer after it shows nothing.
const LEAST_GAMMA: f64 = 1e-6;

/// From the measured layer before and after batch norm.
pub(super) fn around(pre: &MeasuredLayer<'_>, post: &MeasuredLayer<'_>, eps: f64, gamma: f64) -> BatchNormDiagnostics {
    let before = &pre.rows.moments;
    let dim = before.dim() as f64;
    let stiffness = (0..before.dim()).map(|k| gamma / (before.variance(k) + eps).sqrt()).sum::<f64>() / dim;
    let after = post.rows.moments.total_variance() / post.rows.moments.dim() as f64;
    BatchNormDiagnostics {
        pre_std: Some((before.total_variance() / dim).sqrt()),
        pre_std_limit: Some(LIMIT * eps.sqrt()),
        pre_mean_cosine: pre.measures.mean_cosine,
        post_variance_share: (gamma.abs() >= LEAST_GAMMA).then(|| after / (gamma * gamma)),
        stiffness: stiffness.is_finite().then_some(stiffness),
        pre_center_norm: pre.measures.center_norm,
        post_center_norm: post.measures.center_norm,
    }
}
