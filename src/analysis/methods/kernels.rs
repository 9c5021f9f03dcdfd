//! The dense kernels that diagnostics need, lent by whoever has a device.

use kernels::moments::Moments;
use kernels::rows::Rows;
use nalgebra::DMatrix;

/// A kernel of one matrix. An error is a text for the report's notes.
pub type Unary<'a, T> = &'a dyn Fn(&DMatrix<f64>) -> Result<T, String>;
/// A kernel of two matrices.
pub type Binary<'a> = &'a dyn Fn(&DMatrix<f64>, &DMatrix<f64>) -> Result<DMatrix<f64>, String>;

/// The dense kernels that diagnostics need, lent by whoever has a device.
pub struct DiagnosticKernels<'a> {
    /// Moments of rows.
    pub moments: &'a dyn Fn(&Rows) -> Result<Moments, String>,
    /// A^T B.
    pub inner: Binary<'a>,
    /// Eigenvalues of a positive semidefinite matrix, descending.
    pub eigenvalues: Unary<'a, Vec<f64>>,
    /// Eigenvalues of a symmetric matrix, descending, and their eigenvectors in the columns.
    pub eigenvectors: Unary<'a, (Vec<f64>, DMatrix<f64>)>,
    /// L^-1 B for A = L L^T, A symmetric positive definite.
    pub whiten: Binary<'a>,
}
