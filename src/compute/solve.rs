//! The eigenvalue problems of a window: its covariance, its second moment and its unit rows.
//!
//! Guarantees: eigenvalues are checked before they are used; what is not available is left out, and the notes give the
//! reason; the memory of a solve is reserved first. Must not: pass an estimate off as a spectrum.

use std::sync::Arc;

use kernels::backend::{Backend, ComputeError};
use kernels::lanczos::{self, Estimate, Operator};
use kernels::packed::Packed;
use kernels::provenance::{Device, Provenance, Provenances};
use kernels::reservoir;
use kernels::spectrum::{self, EigenProblem, Eigenvalues, Spectrum};
use kernels::uniformity;

use super::lend::{CheckedEigenvalues, SolveError, eigenvalues};
use crate::analysis::measures::Solved;
use crate::analysis::window::Accumulator;
use crate::budget::{Budget, Reservation};

/// A device and the memory for its solves.
pub struct Solver {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// The memory for solves.
    pub memory: Arc<Budget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// The spectrum threads are behind.
    Behind,
    NotAsked,
}

impl SkipReason {
    fn note(self) -> &'static str {
        match self {
            SkipReason::Behind => "the eigenvalues of this window were skipped: the spectrum threads are behind",
            SkipReason::NotAsked => {
                "every batch of this window came with spectrum=false: measures that need eigenvalues are left out, and the window counts neither towards a collapse nor towards recovery"
            }
        }
    }

    pub(crate) fn solved(self) -> Solved {
        Solved { notes: vec![self.note().to_string()], ..Solved::default() }
    }
}

enum FoundSpectrum {
    All(CheckedEigenvalues),
    Part(Box<Estimate>),
}

/// The spectra of one window, collected one by one.
#[derive(Default)]
struct Findings {
    provenances: Provenances,
    notes: Vec<String>,
    failures: usize,
}

impl Findings {
    /// The eigenvalues; a failure is counted and noted.
    fn keep(&mut self, what: &str, result: Result<CheckedEigenvalues, SolveError>) -> Option<Eigenvalues> {
        match result {
            Ok(solved) => {
                self.provenances.extend(solved.provenance);
                Some(solved.eigenvalues)
            }
            Err(error) => {
                self.failures += 1;
                self.notes.push(format!("{what} could not be computed: {error}"));
                None
            }
        }
    }

    fn split(
        &mut self,
        what: &str,
        found: Result<FoundSpectrum, SolveError>,
    ) -> (Option<Eigenvalues>, Option<Estimate>) {
        match found {
            Ok(FoundSpectrum::Part(estimate)) => {
                self.provenances.insert(LANCZOS);
                (None, Some(*estimate))
            }
            Ok(FoundSpectrum::All(solved)) => (self.keep(what, Ok(solved)), None),
            Err(error) => (self.keep(what, Err(error)), None),
        }
    }
}

impl Solver {
    /// The three spectra of a window and its uniformity, as far as they are available.
    pub(crate) fn solve(&self, rows: &Accumulator) -> Solved {
        let moments = &rows.moments;
        let _memory = self.memory.reserve(self.scratch_bytes(rows));
        let mut findings = Findings::default();
        let [covariance, second_moment] = self.both(rows);
        let (covariance, estimate) = findings.split("the spectrum", covariance);
        let (second_moment, second_estimate) = findings.split("rankme", second_moment);
        let unit_rows = rows.reservoir.as_ref().map(|r| uniformity::UnitRows::from_sample(r, moments.dim()));
        let (unit, unit_exact) = self.unit_covariance(rows, unit_rows.as_ref(), &mut findings);
        let uniformity = unit_rows.and_then(|unit| {
            uniformity::uniformity(&unit, |a, b| self.backend.inner(a, b)).unwrap_or_else(|error| {
                findings.notes.push(format!("uniformity could not be computed: {error}"));
                None
            })
        });
        findings.notes.extend(sampled(rows, unit_exact));
        findings.notes.extend(self.estimated(moments.dim(), estimate.as_ref(), second_estimate.as_ref()));
        let input_floor = spectrum::input_floor(rows.float, moments);
        let spectrum =
            covariance.map(|solved| Spectrum { values: solved.values, numeric_floor: solved.floor, input_floor });
        let Findings { provenances, notes, failures } = findings;
        Solved { spectrum, second_moment, estimate, second_estimate, unit, uniformity, provenances, notes, failures }
    }

    /// Reserves memory for factorisations of d x d matrices in the diagnostics, of which those between views use eight
    /// at a time; `None` if the budget could never hold an exact solve.
    pub(crate) fn reserve_factorisations(&self, dim: usize) -> Option<Reservation> {
        self.memory.holds(exact_bytes(dim)).then(|| self.memory.reserve(64 * dim * dim))
    }

    /// The covariance and the second moment, one after the other: each releases its memory before the next reserves.
    fn both(&self, rows: &Accumulator) -> [Result<FoundSpectrum, SolveError>; 2] {
        let moments = &rows.moments;
        let dim = moments.dim();
        if let Some(kept) = rows.reservoir.as_ref().and_then(|sample| sample.fewer_than(dim)) {
            let covariance = self.by_gram(&kept, moments.mean()).map(FoundSpectrum::All);
            return [covariance, self.by_gram(&kept, &vec![0.0; dim]).map(FoundSpectrum::All)];
        }
        if self.memory.holds(exact_bytes(dim)) {
            let covariance = eigenvalues(&*self.backend, &EigenProblem::covariance(moments)).map(FoundSpectrum::All);
            return [
                covariance,
                eigenvalues(&*self.backend, &EigenProblem::second_moment(moments)).map(FoundSpectrum::All),
            ];
        }
        [self.estimate(&Operator::covariance(moments)), self.estimate(&Operator::second_moment(moments))]
    }

    /// The covariance of the unit rows, and whether it includes all of them.
    fn unit_covariance(
        &self,
        rows: &Accumulator,
        sample: Option<&uniformity::UnitRows>,
        findings: &mut Findings,
    ) -> (Option<Eigenvalues>, bool) {
        match (&rows.unit_scatter, sample) {
            (Some(scatter), _) if self.memory.holds(exact_bytes(scatter.dim())) => {
                (findings.keep("w2_uniformity", self.by_unit_scatter(rows, scatter)), true)
            }
            (_, Some(unit)) if !unit.times.is_empty() => {
                let (weighted, mean) = unit.weighted();
                (findings.keep("w2_uniformity", self.by_gram(&weighted, &mean)), unit.complete())
            }
            _ => (None, false),
        }
    }

    /// The most bytes that the solves of a window need, one after another.
    fn scratch_bytes(&self, rows: &Accumulator) -> usize {
        let dim = rows.moments.dim();
        let exact = exact_bytes(dim);
        let large = if self.memory.holds(exact) { exact } else { lanczos::scratch_bytes(dim) };
        let Some(reservoir) = &rows.reservoir else { return large };
        let kept = reservoir.distinct_kept();
        // The unit rows, the weighted rows, and those as a matrix; then the solve of the smaller Gram matrix.
        let sample = 24 * dim * kept + exact_bytes(kept.min(dim));
        if reservoir.complete() && kept < dim { sample } else { large.max(sample) }
    }

    fn estimated(&self, dim: usize, covariance: Option<&Estimate>, second: Option<&Estimate>) -> Option<String> {
        let named = [("entropy_rank", covariance), ("rankme", second)];
        let named: Vec<&str> = named.iter().filter(|(_, found)| found.is_some()).map(|(name, _)| *name).collect();
        let are =
            if named.len() > 1 { "are estimates, with their intervals" } else { "is an estimate, with its interval" };
        let (needed, limit) = (exact_bytes(dim), self.memory.limit());
        let mut text = format!(
            "the eigenvalues of d = {dim} would take {needed} bytes, --solver-bytes is {limit}: {} {are}",
            named.join(" and ")
        );
        if let Some(covariance) = covariance {
            let known = covariance.resolved().len();
            text += &format!("; the first {known} eigenvalues are Ritz values, the others are not known");
        }
        (!named.is_empty()).then_some(text)
    }

    /// The spectrum of a matrix too large to solve, as far as it can be estimated.
    fn estimate(&self, operator: &Operator<'_>) -> Result<FoundSpectrum, SolveError> {
        let text = |error: ComputeError| error.to_string();
        let kernels = lanczos::LanczosKernels {
            times: &|a, x| self.backend.symmetric_times(a, x).map_err(text),
            eigenvectors: &|matrix| self.backend.eigenvectors(matrix).map_err(text),
        };
        let estimate = Estimate::new(operator, &kernels).map_err(SolveError::Estimate)?;
        Ok(match estimate.all() {
            Some(eigenvalues) => {
                let provenance = (!operator.is_zero()).then_some(LANCZOS);
                FoundSpectrum::All(CheckedEigenvalues { eigenvalues, provenance })
            }
            None => FoundSpectrum::Part(Box::new(estimate)),
        })
    }

    /// Solves the smaller of X^T X and X X^T: they share their nonzero eigenvalues.
    fn by_gram(&self, rows: &[(Vec<f64>, f64)], centre: &[f64]) -> Result<CheckedEigenvalues, SolveError> {
        let x = spectrum::weighted_columns(rows, centre);
        let gram = self.backend.gram(&x, x.ncols() > x.nrows())?;
        eigenvalues(&*self.backend, &EigenProblem::from_gram(gram, centre.len()))
    }

    fn by_unit_scatter(&self, rows: &Accumulator, scatter: &Packed) -> Result<CheckedEigenvalues, SolveError> {
        let count = rows.unit.as_ref().map_or(rows.moments.rows(), |unit| unit.rows);
        eigenvalues(&*self.backend, &EigenProblem::from_gram(scatter.to_full() / count as f64, rows.moments.dim()))
    }
}

/// Estimates a spectrum; the products run in this process.
const LANCZOS: Provenance = Provenance { device: Device::Cpu, kernel: "lanczos" };

/// Bytes for all eigenvalues of a d x d matrix: the matrix, a copy by the solver or the worker (both with a libtorch
/// worker), and the solver's panels (mostly four partial products of 48 columns).
pub(crate) fn exact_bytes(dim: usize) -> usize {
    24 * dim * dim + 8192 * dim
}

/// A note on measures that come from a sample of the rows.
fn sampled(rows: &Accumulator, unit_exact: bool) -> Option<String> {
    rows.reservoir.as_ref().filter(|reservoir| !reservoir.complete())?;
    let sampled =
        if unit_exact { "uniformity and duplicate_rows" } else { "uniformity, w2_uniformity and duplicate_rows" };
    let (kept, total) = (reservoir::CAPACITY, rows.moments.rows());
    Some(format!("{sampled} come from a sample of at most {kept} of {total} rows"))
}
