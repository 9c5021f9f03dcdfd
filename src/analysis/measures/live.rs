//! Measures that need no eigenvalues: scale, centre, the stable rank and its nulls, views. O(d^2) at most.

use super::evidence::Evidence;
use super::rank::{entropy, entropy_rank_null, stable_rank_null};
use super::table::{Measured, Measures};
use crate::analysis::window::Accumulator;
use kernels::moments::{Moments, UnitMoments};

/// Fills C0, C2, C3, C4, D2 of C5, C6, the nulls, and T1 to T3.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    let (rows, m) = (evidence.rows, &mut out.measures);
    let moments = &rows.moments;
    let total = moments.total_variance();
    m.total_variance = Some(total);
    let energy = total + moments.mean_norm_squared();
    m.relative_variance = (energy > 0.0).then(|| total / energy);
    if let Some(statistics) = &rows.statistics {
        m.zero_rows = Some(statistics.zero_rows as f64);
        m.row_norm_min = Some(statistics.norm_min);
        m.row_norm_mean = Some(statistics.norm_sum / moments.rows() as f64);
        m.row_norm_max = Some(statistics.norm_max);
    }
    m.duplicate_rows = rows.reservoir.as_ref().map(|reservoir| reservoir.duplicates().round());
    if let Some(pairs) = &rows.pairs {
        m.positive_cosine = pairs.positive_cosine();
        m.alignment = m.positive_cosine.map(|cosine| 2.0 - 2.0 * cosine);
        m.view_mean_norm = pairs.view_mean_norm();
        m.view_correlation = pairs.view_correlation(total);
        (m.cross_correlation_diagonal, m.cross_correlation_off_diagonal) = pairs.cross_correlation();
    }
    if let Some(unit) = rows.unit.as_ref().filter(|unit| unit.rows > 0) {
        fill_unit(unit, rows.views, m);
    }
    m.signal_gap = m.positive_cosine.zip(m.mean_cosine).map(|(positive, negative)| positive - negative);
    fill_ranks(moments, rows, m);
}

fn fill_unit(unit: &UnitMoments, views: usize, m: &mut Measures) {
    let rows = unit.rows as f64;
    let s2: f64 = unit.mean.iter().map(|x| x * x).sum();
    m.center_norm = Some(s2.sqrt());
    m.residual_norm = Some((1.0 - s2).max(0.0).sqrt());
    let d = unit.mean.len() as f64;
    let deviations: f64 = unit.scatter.iter().map(|scatter| (scatter / rows).sqrt()).sum();
    m.scaled_std = Some(d.sqrt() * deviations / d);
    // s2 of C3. With several views the pairs from one sample are removed: (V N |s|^2 - 1 - (V - 1) c+) / (V (N - 1)).
    let v = views as f64;
    let same_sample = if views > 1 { m.positive_cosine.map(|cosine| (v - 1.0) * cosine) } else { Some(0.0) };
    m.mean_cosine = same_sample.filter(|_| rows > v).map(|same| (rows * s2 - 1.0 - same) / (rows - v));
}

fn fill_ranks(moments: &Moments, rows: &Accumulator, m: &mut Measures) {
    let d = moments.dim() as f64;
    let (v, samples) = (rows.views as f64, rows.samples as f64);
    let rho2 = m.view_correlation.unwrap_or(0.0).powi(2);
    // n_eff = V (N - 1) / (1 + (V - 1) rho^2): N - 1 for one view.
    let n = v * (samples - 1.0) / (1.0 + (v - 1.0) * rho2);
    if n > 0.0 {
        m.effective_rows = Some(n);
        m.stable_rank_null = Some(stable_rank_null(n, d));
        m.entropy_rank_null = Some(entropy_rank_null(n, d));
    }
    let total = moments.total_variance();
    if total <= 0.0 {
        return;
    }
    let scale = 1.0 / moments.rows() as f64;
    // The unit is a power of two near the trace: scaling by it changes no bit, and no square can over- or underflow.
    let unit = 2f64.powi(total.log2().floor().max(-1022.0) as i32);
    let frobenius_squared = moments.scatter().frobenius_squared_in(unit) * scale * scale;
    let trace = total / unit;
    m.stable_rank = Some(trace * trace / frobenius_squared);
    m.stable_rank_corrected = corrected(trace, frobenius_squared, n);
    m.diagonal_entropy_rank = Some(entropy((0..moments.dim()).map(|k| moments.variance(k) / total)).exp());
}

/// C6: t = tr S, f = |S|_F^2; F = n^2 / ((n - 1)(n + 2)) (f - t^2 / n) and T2 = t^2 - 2 F / n are unbiased for Gaussian
/// rows with n degrees of freedom; PRc = T2 / F. The ratio does not depend on how S is normalised.
fn corrected(t: f64, f: f64, n: f64) -> Option<f64> {
    if n <= 1.0 {
        return None;
    }
    let unbiased = n * n / ((n - 1.0) * (n + 2.0)) * (f - t * t / n);
    (unbiased > 0.0).then(|| (t * t - 2.0 * unbiased / n) / unbiased)
}
