//! The dense kernels that diagnostics need; the device's owner provides them.

use kernels::moments::Moments;
use kernels::rows::Rows;
use nalgebra::DMatrix;

/// A kernel of one matrix. An error is a text for the report's notes.
pub(crate) type Unary<'a, T> = &'a dyn Fn(&DMatrix<f64>) -> Result<T, String>;
pub(crate) type Binary<'a> = &'a dyn Fn(&DMatrix<f64>, &DMatrix<f64>) -> Result<DMatrix<f64>, String>;

/// The dense kernels that diagnostics need; the device's owner provides them.
pub(crate) struct DiagnosticKernels<'a> {
    pub moments: &'a dyn Fn(&Rows) -> Result<Moments, String>,
    /// A^T B.
    pub inner: Binary<'a>,
    /// Eigenvalues of a positive semidefinite matrix, descending.
    pub eigenvalues: Unary<'a, Vec<f64>>,
    /// Eigenvalues of a symmetric matrix, descending, and its eigenvectors in the columns.
    pub eigenvectors: Unary<'a, (Vec<f64>, DMatrix<f64>)>,
    /// L^-1 B for A = L L^T, A symmetric positive definite.
    pub whiten: Binary<'a>,
}
