//! Moments that a trainer computed: checked tensors in place of rows.
//!
//! Guarantees: accepted moments can be those of real rows, up to the trainer's rounding. Must not: repair moments that
//! cannot.

use nalgebra::DMatrix;

use super::arrays::{MAX_DIM, float_type, values};
use super::decode::error::DecodeError;
use super::decode::tensor::Tensor;
use kernels::moments::{Moments, UnitMoments};
use kernels::packed::Packed;
use kernels::rows::Float;

/// Moments that a trainer computed and pushed instead of rows.
#[derive(Clone, Debug)]
pub struct PushedMoments {
    /// `count`, `mean`, `m2`.
    pub moments: Moments,
    /// `unit_mean` and `unit_variance`.
    pub unit: Option<UnitMoments>,
    /// `unit_m2`: the centred second moment of the unit rows.
    pub unit_scatter: Option<Packed>,
    /// The coarsest type among the tensors; it limits the precision of the trainer's sums.
    pub float: Float,
}

impl PushedMoments {
    /// From the tensors `count` (1), `mean` (d), `m2` (d x d or its packed lower triangle), and the unit fields.
    pub(super) fn from_tensors(tensors: &[Tensor]) -> Result<Self, DecodeError> {
        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let need = |name: &str| {
            find(name)
                .ok_or_else(|| DecodeError::Malformed(format!("moments need count, mean and m2: {name} is missing")))
        };
        let count = values(need("count")?)?;
        let rows = count[0];
        if count.len() != 1 || rows < 1.0 || rows.fract() != 0.0 || rows > 2f64.powi(53) {
            return Err(DecodeError::Malformed(format!(
                "count is {count:?}: it must be one whole number of rows, at least 1"
            )));
        }
        let mean = values(need("mean")?)?;
        if mean.len() > MAX_DIM {
            return Err(DecodeError::TooLarge {
                what: format!("mean has dimension {}", mean.len()),
                limit: MAX_DIM as u64,
            });
        }
        let scatter = scatter(need("m2")?, mean.len())?;
        let unit = match (find("unit_mean"), find("unit_variance")) {
            (Some(mean_tensor), Some(variance)) => {
                Some(unit(rows, mean.len(), &values(mean_tensor)?, &values(variance)?)?)
            }
            (None, None) => None,
            _ => {
                return Err(DecodeError::Malformed(
                    "unit_mean and unit_variance go together: send both or neither".into(),
                ));
            }
        };
        let unit_scatter = find("unit_m2").map(|tensor| scatter_of(tensor, mean.len())).transpose()?;
        let float = tensors.iter().map(float_type).max().unwrap_or(Float::F64);
        Ok(Self { moments: Moments::new(rows as u64, mean, scatter), unit, unit_scatter, float })
    }
}

fn scatter(tensor: &Tensor, dim: usize) -> Result<Packed, DecodeError> {
    let packed = scatter_of(tensor, dim)?;
    for k in 0..dim {
        if packed.diagonal(k) < 0.0 {
            return Err(DecodeError::Malformed(format!(
                "m2 holds {} at ({k}, {k}): a sum of squares is not negative; m2 is sum (z - mean)(z - mean)^T",
                packed.diagonal(k)
            )));
        }
    }
    // Cauchy and Schwarz: |m2_ij|^2 <= m2_ii m2_jj, with room for the trainer's rounding.
    for i in 0..dim {
        for (j, value) in packed.row(i).iter().enumerate() {
            let bound = (packed.diagonal(i) * packed.diagonal(j)).sqrt();
            if value.abs() > bound * (1.0 + 1e-3) + 1e-6 * packed.trace() / dim as f64 {
                return Err(DecodeError::Malformed(format!(
                    "m2 holds {value} at ({i}, {j}), above sqrt(m2_ii m2_jj) = {bound}: m2 is not a second moment"
                )));
            }
        }
    }
    Ok(packed)
}

fn scatter_of(tensor: &Tensor, dim: usize) -> Result<Packed, DecodeError> {
    let numbers = values(tensor)?;
    if tensor.shape == [dim, dim] {
        let full = DMatrix::from_row_slice(dim, dim, &numbers);
        let largest = full.amax();
        for i in 0..dim {
            for j in 0..i {
                if (full[(i, j)] - full[(j, i)]).abs() > 1e-3 * largest {
                    return Err(DecodeError::Malformed(format!(
                        "{} is not symmetric: {} at ({i}, {j}) but {} at ({j}, {i})",
                        tensor.name,
                        full[(i, j)],
                        full[(j, i)]
                    )));
                }
            }
        }
        return Ok(Packed::from_lower(&full));
    }
    let packed = (tensor.shape.len() == 1).then(|| Packed::from_rows(dim, numbers)).flatten();
    packed.ok_or_else(|| {
        DecodeError::WrongLength(format!(
            "{} has shape {:?} but mean has {dim} values: it must be {dim} x {dim}, or packed as {}",
            tensor.name,
            tensor.shape,
            dim * (dim + 1) / 2
        ))
    })
}

fn unit(rows: f64, dim: usize, mean: &[f64], variance: &[f64]) -> Result<UnitMoments, DecodeError> {
    if mean.len() != dim || variance.len() != dim {
        return Err(DecodeError::WrongLength(format!(
            "unit_mean has {} values, unit_variance {}, mean {dim}: they must agree",
            mean.len(),
            variance.len()
        )));
    }
    let total = mean.iter().map(|x| x * x).sum::<f64>() + variance.iter().sum::<f64>();
    if variance.iter().any(|v| *v < 0.0) || total > 1.0 + 1e-2 {
        return Err(DecodeError::Malformed(format!(
            "unit_mean and unit_variance give |s|^2 + tr Sigma_u = {total}: for unit rows it is 1 (variance with 1/N)"
        )));
    }
    Ok(UnitMoments { rows: rows as u64, mean: mean.to_vec(), scatter: variance.iter().map(|v| v * rows).collect() })
}
