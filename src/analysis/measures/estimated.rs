//! What an estimated spectrum shows: ranks with intervals, and the other measures that the known eigenvalues decide.
//!
//! Guarantees: a value filled here is what `rank` would have filled, or has an interval. Must not: fill a measure that
//! depends on unknown eigenvalues.

use super::alpha::alpha;
use super::evidence::Evidence;
use super::noise::leave_without_structure;
use super::rank::fill_ratios;
use super::table::{ComponentsForVariance, Measured};

/// Fills every measure that can be determined.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    let Some(estimate) = &evidence.solved.estimate else { return };
    let floor = evidence.floor();
    let values = estimate.resolved();
    let m = &mut out.measures;
    if estimate.largest() <= floor {
        // Nothing exceeds the floor: the largest eigenvalue is the best known of all.
        m.numerical_rank = Some(0.0);
        leave_without_structure(m);
        return;
    }
    // D2 <= D1 <= exp H(diag Sigma), and both are exact.
    let (low, high) = (m.stable_rank.unwrap_or(1.0), m.diagonal_entropy_rank.unwrap_or(estimate.dim() as f64));
    let within = |x: f64| x.min(high).max(low);
    let rank = estimate.entropy_rank();
    m.entropy_rank = Some(within(rank.value));
    out.intervals.insert("entropy_rank".to_string(), (within(rank.interval.0), within(rank.interval.1)));
    let intrinsic = estimate.intrinsic_dimension();
    m.intrinsic_dimension = Some(intrinsic.value);
    out.intervals.insert("intrinsic_dimension".to_string(), intrinsic.interval);
    out.estimated.extend(["entropy_rank", "intrinsic_dimension"].map(str::to_string));

    fill_ratios(&values, floor, evidence.rank_cap(), m);

    // A Ritz value is never above its eigenvalue, and at most a residual below it: a count is known if both bounds
    // agree.
    let sums = |error: f64| {
        let terms = values.iter().zip(estimate.residuals());
        terms.scan(0.0, move |sum, (value, residual)| {
            *sum += value + error * residual;
            Some(*sum)
        })
    };
    m.components_for_variance = ComponentsForVariance::by(|share| {
        let reached = |error: f64| sums(error).position(|sum| sum >= share * estimate.total());
        reached(0.0).filter(|at| reached(1.0) == Some(*at)).map(|at| at as f64 + 1.0)
    });
    let above = values.iter().take_while(|value| **value > floor).count();
    if let Some((alpha, fit)) = alpha(&values[..above]) {
        m.alpha = Some(alpha);
        out.alpha_fit = Some(fit);
    }
}
