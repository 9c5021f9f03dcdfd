//! What the measures of a window are computed from.

use kernels::lanczos::Estimate;
use kernels::provenance::Provenances;
use kernels::spectrum::{Eigenvalues, Spectrum, input_floor, numeric_floor_without_spectrum};
use kernels::uniformity::Uniformity;

use super::settings::RankMe;
use crate::analysis::window::Accumulator;

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

/// One window's rows and their solved spectra.
pub(super) struct Evidence<'a> {
    pub(super) rows: &'a Accumulator,
    pub(super) solved: &'a Solved,
    pub(super) rankme: RankMe,
    /// From the rounding of the rows to their own type, in units of the eigenvalues.
    pub(super) input_floor: f64,
    /// From the arithmetic of the kernel and the solver.
    pub(super) numeric_floor: f64,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(rows: &'a Accumulator, solved: &'a Solved, rankme: RankMe) -> Self {
        let by_spectrum = solved.spectrum.as_ref().map(|spectrum| spectrum.numeric_floor);
        let by_estimate = || solved.estimate.as_ref().map(Estimate::numeric_floor);
        let numeric_floor =
            by_spectrum.or_else(by_estimate).unwrap_or_else(|| numeric_floor_without_spectrum(&rows.moments));
        Self { rows, solved, rankme, input_floor: input_floor(rows.float, &rows.moments), numeric_floor }
    }

    /// The larger of the two floors.
    pub(super) fn floor(&self) -> f64 {
        self.input_floor.max(self.numeric_floor)
    }

    /// min(N - 1, d): eigenvalues of Sigma that can be above zero.
    pub(super) fn rank_cap(&self) -> usize {
        (self.rows.samples.saturating_sub(1) as usize).min(self.rows.moments.dim())
    }
}
