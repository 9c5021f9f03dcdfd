//! All measures of one window: one table of names, and the files that fill it.
//!
//! Guarantees: an undefined value is `None`, never NaN and never 0. Must not: judge.

mod alpha;
mod dims;
mod estimated;
mod live;
mod rank;
mod rankme;
mod table;
pub mod uniformity;

use kernels::lanczos::Estimate;
use kernels::provenance::Provenances;
use kernels::spectrum::{Eigenvalues, Spectrum, input_floor, numeric_floor_without_spectrum};

use super::window::Accumulator;
use uniformity::Uniformity;

pub(crate) use alpha::AlphaFit;
pub use rank::entropy_rank_null;
pub(super) use rank::{entropy, entropy_rank};
pub use rankme::RankMe;
pub use table::{Measured, Measures, TABLE};

/// The solvers' results for a window. A part is missing if it was skipped, failed, or lacked its input.
#[derive(Clone, Debug, Default)]
pub struct Solved {
    /// Spectrum of Sigma.
    pub spectrum: Option<Spectrum>,
    /// Eigenvalues of Z^T Z / N.
    pub second_moment: Option<Eigenvalues>,
    /// Estimate for Sigma, if it was too large to solve.
    pub estimate: Option<Estimate>,
    /// Estimate for Z^T Z / N, likewise.
    pub second_estimate: Option<Estimate>,
    /// Eigenvalues of the covariance of unit rows.
    pub unit: Option<Eigenvalues>,
    /// Uniformity (C12).
    pub uniformity: Option<Uniformity>,
    /// The solvers that were used.
    pub provenances: Provenances,
    /// Notes for the reader of the report.
    pub notes: Vec<String>,
    /// Number of solutions that failed their checks.
    pub failures: usize,
}

/// Fills the table.
pub fn measure(rows: &Accumulator, solved: &Solved, how: RankMe) -> Measured {
    let mut out = Measured::default();
    live::fill(rows, &mut out.measures);
    dims::fill(&rows.moments, &mut out.measures);
    let input = input_floor(rows.float, &rows.moments);
    let solved_floor = solved.spectrum.as_ref().map(|s| s.numeric_floor);
    let numeric = solved_floor
        .or_else(|| solved.estimate.as_ref().map(Estimate::numeric_floor))
        .unwrap_or_else(|| numeric_floor_without_spectrum(&rows.moments));
    let m = &mut out.measures;
    m.input_noise_floor = Some(input);
    m.numeric_noise_floor = Some(numeric);
    m.noise_floor = Some(input.max(numeric));
    if rows.moments.total_variance() <= input.max(numeric) {
        // No eigenvalue can exceed the floor: there is no structure to rank.
        m.stable_rank = None;
        m.stable_rank_corrected = None;
        m.diagonal_entropy_rank = None;
    }
    if let Some(spectrum) = &solved.spectrum {
        rank::fill(spectrum, rows.samples, &mut out);
    }
    if let Some(estimate) = &solved.estimate {
        estimated::fill(estimate, (input.max(numeric), rows.samples), &mut out);
    }
    let covariance = solved.spectrum.as_ref();
    let squares = if how.centered {
        covariance.map(|s| Eigenvalues { values: s.values.clone(), floor: s.numeric_floor })
    } else {
        solved.second_moment.clone()
    };
    if let Some(squares) = squares {
        rankme::fill(&squares, rows.moments.rows(), how.epsilon, &mut out);
    }
    let squares = if how.centered { &solved.estimate } else { &solved.second_estimate };
    if let Some(squares) = squares {
        estimated::fill_rankme(squares, rows.moments.rows(), how.epsilon, &mut out);
    }
    if let Some(unit) = &solved.unit {
        out.measures.w2_uniformity = Some(uniformity::w2(&unit.values));
    }
    if let Some(uniformity) = &solved.uniformity {
        out.measures.uniformity = Some(uniformity.value);
        if let Some(interval) = uniformity.interval {
            out.intervals.insert("uniformity".to_string(), interval);
            out.sampled = true;
        }
    }
    out
}
