//! Measures of the eigenvalues: ranks (C5), ratios (C8), cumulative variance (C9).

use super::alpha::alpha;
use super::evidence::Evidence;
use super::noise::leave_without_structure;
use super::table::{ComponentsForVariance, Measured, Measures};

/// Stable rank of isotropic Gaussian rows with n degrees of freedom: n d / (n + d).
pub(crate) fn stable_rank_null(n: f64, d: f64) -> f64 {
    n * d / (n + d)
}

/// Entropy rank of isotropic Gaussian rows: r exp(-r / (2 m)), r = min(n, d), m = max(n, d) (Page's mean entropy).
pub fn entropy_rank_null(n: f64, d: f64) -> f64 {
    let (r, m) = (n.min(d), n.max(d));
    r * (-r / (2.0 * m)).exp()
}

/// log10 lambda_1 / lambda_rank; `None` if lambda_rank is under the floor, where only rounding is left.
fn decades(values: &[f64], floor: f64, rank: usize) -> Option<f64> {
    let value = *values.get(rank.checked_sub(1)?)?;
    (value > floor).then(|| (values[0] / value).log10())
}

/// C8 from the known, leading eigenvalues; `r` is the rank cap.
pub(super) fn fill_ratios(values: &[f64], floor: f64, r: usize, m: &mut Measures) {
    m.log10_top_to_last = decades(values, floor, r);
    m.log10_top_to_median = decades(values, floor, r.div_ceil(2));
    m.log10_top_to_tenth = decades(values, floor, 10);
}

/// Fills the measures that depend only on the spectrum of Sigma.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    let Some(spectrum) = &evidence.solved.spectrum else { return };
    let values = &spectrum.values;
    let floor = spectrum.floor();
    let above = values.iter().take_while(|value| **value > floor).count();
    let m = &mut out.measures;
    m.numerical_rank = Some(above as f64);
    if above == 0 {
        leave_without_structure(m);
        return;
    }
    let total: f64 = values.iter().sum();
    m.entropy_rank = Some(entropy(values.iter().map(|value| value / total)).exp());
    m.intrinsic_dimension = Some(total / values[0]);

    fill_ratios(values, floor, evidence.rank_cap(), m);
    if evidence.rows.samples > values.len() as u64 {
        m.ln_first_to_last = decades(values, floor, values.len()).map(|decades| decades * std::f64::consts::LN_10);
    }

    let cumulative: Vec<f64> = values
        .iter()
        .scan(0.0, |sum, value| {
            *sum += value / total;
            Some(*sum)
        })
        .collect();
    // Rounding may keep the last sum below 1; every share is below it.
    m.components_for_variance =
        ComponentsForVariance::by(|share| Some(cumulative.partition_point(|sum| *sum < share) as f64 + 1.0));
    let d = values.len() as f64;
    m.cumulative_variance_area = Some((cumulative.iter().sum::<f64>() - cumulative[values.len() - 1] / 2.0) / d);

    if let Some((alpha, fit)) = alpha(&values[..above]) {
        m.alpha = Some(alpha);
        out.alpha_fit = Some(fit);
    }
}

/// -sum p ln p in nats, with 0 ln 0 = 0.
pub(in crate::analysis) fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}

/// exp of the entropy of non-negative weights; `None` if they sum to zero.
pub(in crate::analysis) fn entropy_rank(weights: &[f64]) -> Option<f64> {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return None;
    }
    Some(entropy(weights.iter().map(|w| w / total)).exp())
}
