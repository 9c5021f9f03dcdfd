//! The interface of a device: second moments of rows, products, and factorisations of symmetric matrices.
//!
//! Guarantees: rows go in in their own type; f64 moments and eigenvalues come out on the host. Must not: know what is
//! measured, or keep anything between calls.

use nalgebra::DMatrix;

use crate::fault::Listener;
use crate::moments::Moments;
use crate::packed::Packed;
use crate::provenance::{Device, Precision, Provenance};
use crate::rows::Rows;

/// Why a kernel has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ComputeError {
    /// The eigensolver did not converge.
    #[error("the eigensolver did not converge on a matrix of dimension {dim}")]
    NoConvergence {
        /// The matrix's dimension.
        dim: usize,
    },
    /// A matrix to be whitened has a direction without variance.
    #[error("a matrix of dimension {dim} is not positive definite: some direction has no variance")]
    NotPositiveDefinite {
        /// The matrix's dimension.
        dim: usize,
    },
    /// The device's memory is too small for the job.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device failed.
    #[error("{0}")]
    Device(String),
}

/// Rows to be taken around their mean.
#[derive(Clone, Copy)]
pub struct CenteredRows<'a> {
    /// The rows.
    pub rows: &'a Rows,
    /// Their moments: the mean, and in what arithmetic it was summed.
    pub moments: &'a Moments,
}

impl<'a> CenteredRows<'a> {
    /// Rows with their moments.
    pub fn new(rows: &'a Rows, moments: &'a Moments) -> Self {
        Self { rows, moments }
    }
}

/// Eigenvalues, and the solver that computed them.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// All of them, in any order.
    pub values: Vec<f64>,
    /// The device and solver.
    pub provenance: Provenance,
}

/// A device: faer in this process, or libtorch in a separate one. Tests have failing ones.
pub trait Backend: Send + Sync {
    /// The device's name.
    fn device(&self) -> Device;

    /// From now on, reports device failures that were recovered from to `listener`. The kernels of this process have
    /// nothing to report.
    fn on_event(&self, _listener: Listener) {}

    /// Moments of the rows, reduced around their own mean, with the rounding that a kernel coarser than f64 leaves.
    ///
    /// # Errors
    /// If the device fails.
    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError>;

    /// sum_i (a_i - mean_a)(b_i - mean_b)^T of two aligned arrays of rows; d x d.
    ///
    /// # Errors
    /// If the device fails.
    fn cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> Result<DMatrix<f64>, ComputeError>;

    /// X^T X of a d x n matrix (n x n), or with `outer` X X^T (d x d). Only the lower triangle is valid.
    ///
    /// # Errors
    /// If the device fails.
    fn gram(&self, x: &DMatrix<f64>, outer: bool) -> Result<DMatrix<f64>, ComputeError>;

    /// A^T B of a d x n and a d x m matrix.
    ///
    /// # Errors
    /// If the device fails.
    fn inner(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError>;

    /// A X of a packed symmetric matrix and a d x b block of vectors, without a d x d copy. This is a plain version; a
    /// device that needs speed overrides it.
    ///
    /// # Errors
    /// If the device fails.
    fn symmetric_times(&self, a: &Packed, x: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let mut product = DMatrix::zeros(a.dim(), x.ncols());
        for (k, x) in x.column_iter().enumerate() {
            for i in 0..a.dim() {
                for (j, value) in a.row(i)[..i].iter().enumerate() {
                    product[(i, k)] += value * x[j];
                    product[(j, k)] += value * x[i];
                }
                product[(i, k)] += a.diagonal(i) * x[i];
            }
        }
        Ok(product)
    }

    /// All eigenvalues of the symmetric matrix in the lower triangle.
    ///
    /// # Errors
    /// If the solver does not converge or the device fails.
    fn eigenvalues(&self, symmetric: &DMatrix<f64>) -> Result<Solution, ComputeError>;

    /// All eigenvalues, descending, of the symmetric matrix in the lower triangle, and their unit eigenvectors, in the
    /// columns.
    ///
    /// # Errors
    /// If the solver does not converge or the device fails.
    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError>;

    /// L^-1 B, for the Cholesky factor L of the symmetric positive definite matrix in the lower triangle of `a`.
    ///
    /// # Errors
    /// If `a` is not positive definite or the device fails.
    fn whiten(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError>;
}
