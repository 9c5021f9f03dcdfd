//! What the eigenvalues say: ranks (C5), RankMe (C7), ratios (C8), cumulative variance (C9), alpha (C10).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ComponentsForVariance, Measured, Measures};
use kernels::spectrum::{Eigenvalues, Spectrum};

/// Epsilon of RankMe (Garrido et al., arXiv 2210.02885).
pub const RANKME_EPSILON: f64 = 1e-7;

/// Over what alpha was fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlphaFit {
    /// First rank, from 1.
    pub first_rank: usize,
    /// Last rank.
    pub last_rank: usize,
    /// Root mean square of the weighted residuals of ln lambda.
    pub residual: f64,
}

/// Stable rank of isotropic Gaussian rows with n degrees of freedom: n d / (n + d).
pub fn stable_rank_null(n: f64, d: f64) -> f64 {
    n * d / (n + d)
}

/// Entropy rank of the same: r exp(-r / (2 m)), r = min(n, d), m = max(n, d) (Page's mean entropy).
pub fn entropy_rank_null(n: f64, d: f64) -> f64 {
    let (r, m) = (n.min(d), n.max(d));
    r * (-r / (2.0 * m)).exp()
}

/// log10 lambda_1 / lambda_rank. An eigenvalue under the floor has no ratio: what it would say is rounding.
fn decades(values: &[f64], floor: f64, rank: usize) -> Option<f64> {
    let value = *values.get(rank.checked_sub(1)?)?;
    (value > floor).then(|| (values[0] / value).log10())
}

/// C8 from the eigenvalues that are known, the first ones; `r` is the rank cap.
pub(super) fn fill_ratios((values, floor): (&[f64], f64), r: usize, m: &mut Measures) {
    m.log10_top_to_last = decades(values, floor, r);
    m.log10_top_to_median = decades(values, floor, r.div_ceil(2));
    m.log10_top_to_tenth = decades(values, floor, 10);
}

/// Fills everything that the spectrum of Sigma alone decides; `samples` is N.
pub(super) fn fill(spectrum: &Spectrum, samples: u64, out: &mut Measured) {
    let values = &spectrum.values;
    let floor = spectrum.floor();
    let above = values.iter().take_while(|value| **value > floor).count();
    let m = &mut out.measures;
    m.numerical_rank = Some(above as f64);
    if above == 0 {
        m.stable_rank = None;
        m.stable_rank_corrected = None;
        m.diagonal_entropy_rank = None;
        return;
    }
    let total: f64 = values.iter().sum();
    m.entropy_rank = Some(entropy(values.iter().map(|value| value / total)).exp());
    m.intrinsic_dimension = Some(total / values[0]);

    fill_ratios((values, floor), (samples.saturating_sub(1) as usize).min(values.len()), m);
    if samples > values.len() as u64 {
        m.ln_first_to_last = decades(values, floor, values.len()).map(|decades| decades * std::f64::consts::LN_10);
    }

    let cumulative: Vec<f64> = values
        .iter()
        .scan(0.0, |sum, value| {
            *sum += value / total;
            Some(*sum)
        })
        .collect();
    // The last sum may miss 1 by rounding; every share is below it.
    m.components_for_variance =
        ComponentsForVariance::by(|share| Some(cumulative.partition_point(|sum| *sum < share) as f64 + 1.0));
    let d = values.len() as f64;
    m.cumulative_variance_area = Some((cumulative.iter().sum::<f64>() - cumulative[values.len() - 1] / 2.0) / d);

    if let Some((alpha, fit)) = alpha(&values[..above]) {
        m.alpha = Some(alpha);
        out.alpha_fit = Some(fit);
    }
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

/// How RankMe is taken: at least five incompatible versions of it are in use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RankMe {
    /// Added to each share; 1e-7 in the paper, 1e-5 in stable-pretraining.
    pub epsilon: f64,
    /// Of the centred rows; the paper's are not.
    pub centered: bool,
}

impl Default for RankMe {
    fn default() -> Self {
        Self { epsilon: RANKME_EPSILON, centered: false }
    }
}

impl RankMe {
    /// As a run's parameters ask.
    pub fn from_scalars(scalars: &BTreeMap<&'static str, f64>) -> Self {
        Self {
            epsilon: scalars.get("rankme_epsilon").copied().unwrap_or(RANKME_EPSILON),
            centered: scalars.get("rankme_centered").is_some_and(|centered| *centered != 0.0),
        }
    }
}

/// RankMe from the eigenvalues of Z^T Z / N: singular values are sqrt(N lambda), and the ratio drops N.
///
/// The interval is what RankMe reads when the eigenvalues under the numeric floor are all zero, and all at the floor.
pub(super) fn fill_rankme(squares: &Eigenvalues, rows: u64, epsilon: f64, out: &mut Measured) {
    let count = (rows as usize).min(squares.values.len());
    let values = &squares.values[..count];
    let rankme = |squares: Vec<f64>| rankme(&squares, epsilon);
    out.measures.rankme = rankme(values.to_vec());
    let floor = squares.floor;
    if out.measures.rankme.is_some() && values.iter().any(|value| *value <= floor) {
        let with =
            |under: f64| rankme(values.iter().map(|value| if *value <= floor { under } else { *value }).collect());
        if let (Some(a), Some(b)) = (with(0.0), with(floor)) {
            out.intervals.insert("rankme".to_string(), (a.min(b), a.max(b)));
        }
    }
}

fn rankme(squares: &[f64], epsilon: f64) -> Option<f64> {
    let total: f64 = squares.iter().map(|square| square.sqrt()).sum();
    (total > 0.0).then(|| entropy(squares.iter().map(|square| square.sqrt() / total + epsilon)).exp())
}

/// -sum p ln p in nats, with 0 ln 0 = 0.
pub(in crate::analysis) fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}
