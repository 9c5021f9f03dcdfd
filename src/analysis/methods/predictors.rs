//! A linear predictor p = W z against F = E[z z^T] (P4): DirectPred's alignment of eigenspaces.
//!
//! Source: Tian, Chen and Ganguli, ICML 2021 (arXiv 2102.06810), section 3: gradient descent makes W and F commute.

use nalgebra::DMatrix;

use super::kernels::DiagnosticKernels;
use crate::analysis::measures::Measures;
use kernels::moments::Moments;
use kernels::spectrum::second_moment;

/// (eigenvector alignment, commutator).
pub(super) fn against_second_moment(
    weight: &DMatrix<f64>,
    moments: &Moments,
    measures: &Measures,
    kernels: &DiagnosticKernels<'_>,
) -> Result<(Option<f64>, Option<f64>), String> {
    let f = second_moment(moments);
    let (scale, weight_norm) = (f.norm(), weight.norm());
    if scale <= 0.0 || weight_norm <= 0.0 {
        return Ok((None, None));
    }
    let commutator = (weight * &f - &f * weight).norm() / (weight_norm * scale);
    let (values, vectors) = (kernels.eigenvectors)(&f)?;
    let floor = measures.noise_floor.unwrap_or(0.0);
    let (mut sum, mut count) = (0.0, 0.0);
    for (value, vector) in values.iter().zip(vectors.column_iter()) {
        let image = weight * vector;
        let length = image.norm();
        if *value > floor && length > 0.0 {
            sum += image.dot(&vector).abs() / length;
            count += 1.0;
        }
    }
    Ok(((count > 0.0).then(|| sum / count), Some(commutator)))
}
