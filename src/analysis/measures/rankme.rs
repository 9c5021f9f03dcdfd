//! RankMe (C7; Garrido et al., arXiv 2210.02885).

use kernels::lanczos::Estimate;

use super::evidence::Evidence;
use super::rank::entropy;
use super::table::Measured;

/// Fills RankMe from the eigenvalues of Z^T Z / N, or of Sigma: singular values are sqrt(N lambda), and the ratio drops N.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    let (how, solved, rows) = (evidence.rankme, evidence.solved, evidence.rows.moments.rows() as usize);
    let exact = if how.centered {
        solved.spectrum.as_ref().map(|spectrum| (&spectrum.values, spectrum.numeric_floor))
    } else {
        solved.second_moment.as_ref().map(|squares| (&squares.values, squares.floor))
    };
    if let Some((values, floor)) = exact {
        fill_exact(&values[..rows.min(values.len())], floor, how.epsilon, out);
    }
    let estimate = if how.centered { &solved.estimate } else { &solved.second_estimate };
    if let Some(estimate) = estimate {
        fill_estimate(estimate, rows, how.epsilon, out);
    }
}

/// The lower end of the interval takes the eigenvalues under the numeric floor as zero, the upper end as at the floor.
fn fill_exact(squares: &[f64], floor: f64, epsilon: f64, out: &mut Measured) {
    out.measures.rankme = rankme(squares, epsilon);
    if out.measures.rankme.is_none() || squares.iter().all(|square| *square > floor) {
        return;
    }
    let with = |under: f64| {
        let squares: Vec<f64> = squares.iter().map(|square| if *square <= floor { under } else { *square }).collect();
        rankme(&squares, epsilon)
    };
    if let (Some(a), Some(b)) = (with(0.0), with(floor)) {
        out.intervals.insert("rankme".to_string(), (a.min(b), a.max(b)));
    }
}

fn fill_estimate(squares: &Estimate, rows: usize, epsilon: f64, out: &mut Measured) {
    let rankme = squares.rankme(rows.min(squares.dim()), epsilon);
    out.measures.rankme = Some(rankme.value);
    out.intervals.insert("rankme".to_string(), rankme.interval);
    out.estimated.push("rankme".to_string());
}

fn rankme(squares: &[f64], epsilon: f64) -> Option<f64> {
    let total: f64 = squares.iter().map(|square| square.sqrt()).sum();
    (total > 0.0).then(|| entropy(squares.iter().map(|square| square.sqrt() / total + epsilon)).exp())
}
