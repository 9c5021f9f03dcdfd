//! The eigenvalue problems of a window, and the dense kernels lent to the diagnostics.
//!
//! Guarantees: eigenvalues are checked before they are used; what cannot be had is left out, and the notes say why; what
//! a solve takes is permitted first. Must not: pass an estimate off as a spectrum.

use nalgebra::DMatrix;

use super::line::Line;
use crate::analysis::lanczos::{self, Estimate, Operator};
use crate::analysis::measures::{Solved, uniformity};
use crate::analysis::methods::Kernels;
use crate::analysis::moments::Packed;
use crate::analysis::origin::{Device, Origin, Origins, Precision};
use crate::analysis::reservoir;
use crate::analysis::spectrum::{self, Eigenvalues, Problem, Spectrum, SpectrumError};
use crate::analysis::window::Accumulator;
use crate::compute::ComputeError;

impl Line<'_> {
    /// The three spectra of a window. Each that cannot be had is left out, and the notes say why.
    pub(super) fn solve(&self, rows: &Accumulator, notes: &mut Vec<String>, failures: &mut usize) -> Solved {
        let moments = &rows.moments;
        let _permit = self.room.enter(self.scratch_bytes(rows));
        let mut origins = Origins::new();
        let mut keep = |what: &str, result: Result<Checked, SolveError>| {
            result
                .map(|(solved, origin)| {
                    origins.extend(origin);
                    Some(solved)
                })
                .unwrap_or_else(|error| {
                    *failures += 1;
                    notes.push(format!("{what} could not be computed: {error}"));
                    None
                })
        };
        let [covariance, second_moment] = self.both(rows);
        let (covariance, estimate) = split(covariance, |result| keep("the spectrum", result));
        let (second_moment, second_estimate) = split(second_moment, |result| keep("rankme", result));
        let input_floor = spectrum::input_floor(rows.float, moments);
        let unit_rows = rows.reservoir.as_ref().map(|r| uniformity::UnitRows::of(r, moments.dim()));
        let (unit, unit_exact) = match (&rows.unit_scatter, &unit_rows) {
            (Some(scatter), _) if self.room.holds(exact_bytes(scatter.dim())) => {
                (keep("w2_uniformity", self.of_unit_scatter(rows, scatter)), true)
            }
            (_, Some(unit)) if !unit.times.is_empty() => {
                let (weighted, mean) = unit.weighted();
                (keep("w2_uniformity", self.by_gram(&weighted, &mean)), unit.complete())
            }
            _ => (None, false),
        };
        let uniformity = unit_rows.and_then(|unit| {
            uniformity::uniformity(&unit, |a, b| self.backend.inner(a, b)).unwrap_or_else(|error| {
                notes.push(format!("uniformity could not be computed: {error}"));
                None
            })
        });
        notes.extend(sampled(rows, unit_exact));
        if estimate.is_some() || second_estimate.is_some() {
            origins.insert(LANCZOS);
        }
        let estimated = [("entropy_rank", &estimate), ("rankme", &second_estimate)];
        notes.extend(self.estimated(moments.dim(), estimated));
        let spectrum =
            covariance.map(|solved| Spectrum { values: solved.values, numeric_floor: solved.floor, input_floor });
        Solved { spectrum, second_moment, estimate, second_estimate, unit, uniformity, origins }
    }

    /// The covariance and the second moment, one after the other: each gives its memory back before the next takes its own.
    fn both(&self, rows: &Accumulator) -> [Result<Found, SolveError>; 2] {
        let moments = &rows.moments;
        let dim = moments.dim();
        if let Some(kept) = spectrum::rows_at_hand(rows.reservoir.as_ref(), dim) {
            let covariance = self.by_gram(&kept, moments.mean()).map(Found::All);
            return [covariance, self.by_gram(&kept, &vec![0.0; dim]).map(Found::All)];
        }
        if self.room.holds(exact_bytes(dim)) {
            let covariance = self.eigenvalues(&Problem::covariance(moments)).map(Found::All);
            return [covariance, self.eigenvalues(&Problem::second_moment(moments)).map(Found::All)];
        }
        [self.estimate(&Operator::covariance(moments)), self.estimate(&Operator::second_moment(moments))]
    }

    /// Bytes that the solves of a window take at most, one after another.
    fn scratch_bytes(&self, rows: &Accumulator) -> usize {
        let dim = rows.moments.dim();
        let exact = exact_bytes(dim);
        let large = if self.room.holds(exact) { exact } else { lanczos::scratch_bytes(dim) };
        let Some(reservoir) = &rows.reservoir else { return large };
        let kept = reservoir.distinct_kept();
        // The unit rows, the weighted ones, and these as a matrix; then the smaller Gram matrix's solve.
        let sample = 24 * dim * kept + exact_bytes(kept.min(dim));
        if reservoir.complete() && kept < dim { sample } else { large.max(sample) }
    }

    /// What a reader should know of estimates.
    fn estimated(&self, dim: usize, estimates: [(&str, &Option<Estimate>); 2]) -> Option<String> {
        let named: Vec<&str> = estimates.iter().filter(|(_, found)| found.is_some()).map(|(name, _)| *name).collect();
        let are =
            if named.len() > 1 { "are estimates, with their intervals" } else { "is an estimate, with its interval" };
        let (needed, limit) = (exact_bytes(dim), self.room.limit());
        let mut text = format!(
            "the eigenvalues of d = {dim} would take {needed} bytes, --solver-bytes is {limit}: {} {are}",
            named.join(" and ")
        );
        if let Some(covariance) = estimates[0].1 {
            let known = covariance.resolved().len();
            text += &format!("; the first {known} eigenvalues are Ritz values, the others are not known");
        }
        (!named.is_empty()).then_some(text)
    }

    /// The spectrum of a matrix too large to be solved, as far as it can be known.
    fn estimate(&self, operator: &Operator<'_>) -> Result<Found, SolveError> {
        let text = |error: ComputeError| error.to_string();
        let kernels = lanczos::Kernels {
            times: &|a, x| self.backend.symmetric_times(a, x).map_err(text),
            eigenvectors: &|matrix| self.backend.eigenvectors(matrix).map_err(text),
        };
        let estimate = Estimate::of(operator, &kernels).map_err(SolveError::Estimate)?;
        let origin = (!operator.is_zero()).then_some(LANCZOS);
        Ok(match estimate.all() {
            Some(all) => Found::All((all, origin)),
            None => Found::Part(Box::new(estimate)),
        })
    }

    fn eigenvalues(&self, problem: &Problem) -> Result<Checked, SolveError> {
        if problem.is_zero() {
            return Ok((problem.check(vec![0.0; problem.matrix().nrows()])?, None));
        }
        let solution = self.backend.eigenvalues(problem.matrix())?;
        Ok((problem.check(solution.values)?, Some(solution.origin)))
    }

    /// Through the smaller of X^T X and X X^T: they share their nonzero eigenvalues.
    fn by_gram(&self, rows: &[(Vec<f64>, f64)], centre: &[f64]) -> Result<Checked, SolveError> {
        let x = spectrum::weighted_columns(rows, centre);
        let gram = self.backend.gram(&x, x.ncols() > x.nrows())?;
        self.eigenvalues(&Problem::of_gram(gram, centre.len()))
    }

    fn of_unit_scatter(&self, rows: &Accumulator, scatter: &Packed) -> Result<Checked, SolveError> {
        let count = rows.unit.as_ref().map_or(rows.moments.rows(), |unit| unit.rows);
        self.eigenvalues(&Problem::of_gram(scatter.to_full() / count as f64, rows.moments.dim()))
    }

    /// Runs `work` with the backend's kernels behind plain functions.
    pub(super) fn with_kernels<T>(&self, work: impl FnOnce(&Kernels<'_>) -> T) -> T {
        let text = |error: ComputeError| error.to_string();
        let eigenvalues = |matrix: &DMatrix<f64>| {
            let dim = matrix.nrows();
            self.eigenvalues(&Problem::of_gram(matrix.clone(), dim))
                .map(|(solved, _)| solved.values)
                .map_err(|e| e.to_string())
        };
        work(&Kernels {
            moments: &|rows| self.backend.moments(rows, Precision::F64).map_err(text),
            inner: &|a, b| self.backend.inner(a, b).map_err(text),
            eigenvalues: &eigenvalues,
            eigenvectors: &|matrix| self.backend.eigenvectors(matrix).map_err(text),
            whiten: &|a, b| self.backend.whiten(a, b).map_err(text),
        })
    }
}

/// By what a spectrum is estimated: the products are this process's own.
const LANCZOS: Origin = Origin { device: Device::Cpu, kernel: "lanczos" };

/// Bytes that all eigenvalues of a d x d matrix take: the matrix, the solver's copy of it or the worker's, with a libtorch
/// worker both, and the solver's panels (four partial products of 48 columns are most of them).
pub fn exact_bytes(dim: usize) -> usize {
    24 * dim * dim + 8192 * dim
}

/// Eigenvalues that passed the checks, and what solved; nothing where all were zero.
type Checked = (Eigenvalues, Option<Origin>);

/// What was found of a spectrum.
enum Found {
    All(Checked),
    Part(Box<Estimate>),
}

/// Which measures come from a sample of the rows.
fn sampled(rows: &Accumulator, unit_exact: bool) -> Option<String> {
    rows.reservoir.as_ref().filter(|reservoir| !reservoir.complete())?;
    let sampled =
        if unit_exact { "uniformity and duplicate_rows" } else { "uniformity, w2_uniformity and duplicate_rows" };
    let (kept, total) = (reservoir::CAPACITY, rows.moments.rows());
    Some(format!("{sampled} come from a sample of at most {kept} of {total} rows"))
}

/// The eigenvalues that `keep` keeps, or the estimate.
fn split(
    found: Result<Found, SolveError>,
    keep: impl FnOnce(Result<Checked, SolveError>) -> Option<Eigenvalues>,
) -> (Option<Eigenvalues>, Option<Estimate>) {
    match found {
        Ok(Found::Part(estimate)) => (None, Some(*estimate)),
        Ok(Found::All(solved)) => (keep(Ok(solved)), None),
        Err(error) => (keep(Err(error)), None),
    }
}

#[derive(Debug, thiserror::Error)]
enum SolveError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Spectrum(#[from] SpectrumError),
    #[error("{0}")]
    Estimate(String),
}
