//! The eigenvalue problems of a window, and the dense kernels lent to the diagnostics.
//!
//! Guarantees: eigenvalues are checked before they are used; what cannot be had is left out, and the notes say why.

use nalgebra::DMatrix;

use super::line::Line;
use crate::analysis::measures::{Solved, uniformity};
use crate::analysis::methods::Kernels;
use crate::analysis::moments::Packed;
use crate::analysis::origin::{Origin, Origins, Precision};
use crate::analysis::reservoir;
use crate::analysis::spectrum::{self, Eigenvalues, Problem, Spectrum, SpectrumError};
use crate::analysis::window::Accumulator;
use crate::compute::ComputeError;

impl Line<'_> {
    /// The three spectra of a window. Each that cannot be had is left out, and the notes say why.
    pub(super) fn solve(&self, rows: &Accumulator, notes: &mut Vec<String>, failures: &mut usize) -> Solved {
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
        let moments = &rows.moments;
        let at_hand = spectrum::rows_at_hand(rows.reservoir.as_ref(), moments.dim());
        let (covariance, second_moment) = match &at_hand {
            Some(kept) => (self.by_gram(kept, moments.mean()), self.by_gram(kept, &vec![0.0; moments.dim()])),
            None => {
                (self.eigenvalues(&Problem::covariance(moments)), self.eigenvalues(&Problem::second_moment(moments)))
            }
        };
        let covariance = keep("the spectrum", covariance);
        let second_moment = keep("rankme", second_moment);
        let input_floor = spectrum::input_floor(rows.float, moments);
        let unit_rows = rows.reservoir.as_ref().map(|r| uniformity::UnitRows::of(r, moments.dim()));
        let (unit, unit_exact) = match (&rows.unit_scatter, &unit_rows) {
            (Some(scatter), _) => (keep("w2_uniformity", self.of_unit_scatter(rows, scatter)), true),
            (None, Some(unit)) if !unit.times.is_empty() => {
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
        if rows.reservoir.as_ref().is_some_and(|reservoir| !reservoir.complete()) {
            let sampled = if unit_exact {
                "uniformity and duplicate_rows"
            } else {
                "uniformity, w2_uniformity and duplicate_rows"
            };
            let (kept, total) = (reservoir::CAPACITY, moments.rows());
            notes.push(format!("{sampled} come from a sample of at most {kept} of {total} rows"));
        }
        let spectrum =
            covariance.map(|solved| Spectrum { values: solved.values, numeric_floor: solved.floor, input_floor });
        Solved { spectrum, second_moment, unit, uniformity, origins }
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

/// Eigenvalues that passed the checks, and what solved; nothing where all were zero.
type Checked = (Eigenvalues, Option<Origin>);

#[derive(Debug, thiserror::Error)]
enum SolveError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Spectrum(#[from] SpectrumError),
}
