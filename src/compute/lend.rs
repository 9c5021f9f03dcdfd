//! A device's kernels as plain functions, for the pure code of the diagnostics.

use kernels::backend::{Backend, ComputeError};
use kernels::provenance::{Precision, Provenance};
use kernels::spectrum::{EigenProblem, Eigenvalues, SpectrumError};
use nalgebra::DMatrix;

use crate::analysis::methods::DiagnosticKernels;

#[derive(Debug, thiserror::Error)]
pub(super) enum SolveError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Spectrum(#[from] SpectrumError),
    #[error("{0}")]
    Estimate(String),
}

pub(super) struct CheckedEigenvalues {
    pub(super) eigenvalues: Eigenvalues,
    /// The solver used; `None` if all eigenvalues are zero.
    pub(super) provenance: Option<Provenance>,
}

pub(super) fn eigenvalues(backend: &dyn Backend, problem: &EigenProblem) -> Result<CheckedEigenvalues, SolveError> {
    if problem.is_zero() {
        let eigenvalues = problem.check(vec![0.0; problem.matrix().nrows()])?;
        return Ok(CheckedEigenvalues { eigenvalues, provenance: None });
    }
    let solution = backend.eigenvalues(problem.matrix())?;
    Ok(CheckedEigenvalues { eigenvalues: problem.check(solution.values)?, provenance: Some(solution.provenance) })
}

/// Runs `work` with the device's kernels; a device error becomes a text for the report's notes.
pub(crate) fn with_kernels<T>(backend: &dyn Backend, work: impl FnOnce(&DiagnosticKernels<'_>) -> T) -> T {
    let text = |error: ComputeError| error.to_string();
    let solve = |matrix: &DMatrix<f64>| {
        let problem = EigenProblem::from_gram(matrix.clone(), matrix.nrows());
        eigenvalues(backend, &problem).map(|solved| solved.eigenvalues.values).map_err(|error| error.to_string())
    };
    work(&DiagnosticKernels {
        moments: &|rows| backend.moments(rows, Precision::F64).map_err(text),
        inner: &|a, b| backend.inner(a, b).map_err(text),
        eigenvalues: &solve,
        eigenvectors: &|matrix| backend.eigenvectors(matrix).map_err(text),
        whiten: &|a, b| backend.whiten(a, b).map_err(text),
    })
}
