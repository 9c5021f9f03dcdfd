//! The terms of VICReg's and Barlow Twins' losses, from the moments of a whole window.
//!
//! Sources: Bardes, Ponce and LeCun, ICLR 2022, equations 1 to 6; Zbontar et al., ICML 2021, equation 1 (the sum off
//! the diagonal is over C_kl squared).

use super::table::{BarlowDiagnostics, VicregDiagnostics};
use kernels::packed::Packed;
use kernels::view_moments::ViewMoments;

/// Added to the variance under VICReg's root, so that its gradient stays finite at a constant.
const VARIANCE_EPSILON: f64 = 1e-4;

/// VICReg's three terms, unweighted, for the first two views.
pub(super) fn vicreg(pairs: &ViewMoments, gamma: f64) -> VicregDiagnostics {
    let n = pairs.samples() as f64;
    if n < 2.0 {
        return VicregDiagnostics::default();
    }
    let term = |of: &dyn Fn(&Packed) -> f64| pairs.scatters().map(of).iter().sum::<f64>() / 2.0;
    let variance = |scatter: &Packed| {
        let dim = scatter.dim();
        let hinge = |k: usize| (gamma - (scatter.diagonal(k) / (n - 1.0) + VARIANCE_EPSILON).sqrt()).max(0.0);
        (0..dim).map(hinge).sum::<f64>() / dim as f64
    };
    let covariance = |scatter: &Packed| {
        let dim = scatter.dim();
        let on: f64 = (0..dim).map(|k| (scatter.diagonal(k) / (n - 1.0)).powi(2)).sum();
        (scatter.frobenius_squared_in(n - 1.0) - on) / dim as f64
    };
    VicregDiagnostics {
        invariance: Some(pairs.mean_squared_difference()),
        variance: Some(term(&variance)),
        covariance: Some(term(&covariance)),
    }
}

pub(super) fn barlow(pairs: &ViewMoments, lambda: f64) -> BarlowDiagnostics {
    let (on, off) = pairs.barlow_terms();
    BarlowDiagnostics { invariance: Some(on), redundancy: Some(lambda * off) }
}
