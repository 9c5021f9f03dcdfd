//! What one view predicts of the other, linearly: canonical correlations, Gaussian mutual information (T5), and the R^2
//! of the best linear predictor (P4; an identity has nothing left to learn, zero means that the views share nothing).

use nalgebra::DMatrix;

use super::kernels::DiagnosticKernels;
use super::table::MutualInformationDiagnostics;
use kernels::view_moments::ViewMoments;

/// Samples per dimension that canonical correlations need: at N <= 2 d pure noise has correlations of 1.
pub(super) const ROWS_PER_DIM: f64 = 10.0;

/// Ridge, relative to the mean variance: above f64's rounding of any spectrum, below the resolution of f32 rows.
const RIDGE: f64 = 1e-9;

/// A correlation counts as 1 if 1 - rho^2 is below this: the mutual information is then infinite.
const COPIES: f64 = 1e-8;

pub(super) struct Shared {
    /// R^2 of view 2 from view 1.
    pub(super) linear_r2: Option<f64>,
    pub(super) information: MutualInformationDiagnostics,
}

/// `None` with too few samples, or if a view has no variance.
pub(super) fn shared(pairs: &ViewMoments, kernels: &DiagnosticKernels<'_>) -> Result<Option<Shared>, String> {
    let [first, second] = pairs.scatters();
    let (samples, dim) = (pairs.samples() as f64, first.dim());
    let (trace, second_trace) = (first.trace(), second.trace());
    if samples < ROWS_PER_DIM * dim as f64 || trace <= 0.0 || second_trace <= 0.0 {
        return Ok(None);
    }
    let half = (kernels.whiten)(&ridge(first.to_full()), pairs.cross())?;
    let linear_r2 = half.norm_squared() / second_trace;
    let whitened = (kernels.whiten)(&ridge(second.to_full()), &half.transpose())?;
    let squares = (kernels.eigenvalues)(&(&whitened * whitened.transpose()))?;
    let correlations: Vec<f64> = squares.iter().map(|square| square.clamp(0.0, 1.0).sqrt()).collect();
    let infinite = squares.iter().any(|square| 1.0 - square < COPIES);
    let value: f64 = squares.iter().map(|square| -0.5 * (1.0 - square.clamp(0.0, 1.0)).ln()).sum();
    Ok(Some(Shared {
        linear_r2: Some(linear_r2.min(1.0)),
        information: MutualInformationDiagnostics {
            value: (!infinite).then_some(value),
            mean_correlation: Some(correlations.iter().sum::<f64>() / dim as f64),
            top_correlation: correlations.first().copied(),
        },
    }))
}

/// A scatter matrix with a small ridge that keeps dead directions from dividing by zero.
pub(super) fn ridge(mut scatter: DMatrix<f64>) -> DMatrix<f64> {
    let dim = scatter.nrows();
    let added = RIDGE * scatter.trace() / dim as f64;
    for k in 0..dim {
        scatter[(k, k)] += added;
    }
    scatter
}
