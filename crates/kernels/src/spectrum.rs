//! Eigenvalues of a covariance: the matrix for the solver, the checks of its result, and the noise floors.
//!
//! Guarantees: a [`Spectrum`] has always been checked (sum = trace, sum of squares = squared Frobenius norm, all
//! finite, sorted, nothing clearly negative). Must not: solve (the backend does), or repair a result that fails a
//! check.

use nalgebra::DMatrix;

use crate::moments::Moments;
use crate::rows::Float;

/// A symmetric positive semidefinite matrix, scaled for the solver.
#[derive(Clone, Debug)]
pub struct EigenProblem<'a> {
    /// Entries in [-1, 1], the largest in [1/2, 1]; only the lower triangle counts.
    scaled: DMatrix<f64>,
    /// The matrix is `scaled` times this power of two: an exact factor, and no square of an entry can over- or
    /// underflow.
    scale: f64,
    /// How many eigenvalues the requested d x d matrix has; those that the Gram matrix lacks are zero.
    dim: usize,
    /// The moments that it comes from, for their kernel's rounding.
    rounding: Option<&'a Moments>,
}

/// Why a solver's answer is rejected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpectrumError {
    /// A value is NaN or infinite.
    #[error("the eigensolver returned a value that is not finite")]
    NotFinite,
    /// The number of values differs from the number of rows.
    #[error("the eigensolver returned {got} eigenvalues for a matrix of dimension {dim}")]
    WrongCount {
        /// How many came.
        got: usize,
        /// How many were expected.
        dim: usize,
    },
    /// The sum or the sum of squares does not match the matrix.
    #[error("the eigenvalues do not belong to the matrix: {what} is {got}, should be {expected} to within {tolerance}")]
    Mismatch {
        /// Sum, or sum of squares.
        what: &'static str,
        /// Its value for the eigenvalues.
        got: f64,
        /// Its value for the matrix.
        expected: f64,
        /// The difference that rounding can explain.
        tolerance: f64,
    },
    /// A negative eigenvalue, which a covariance cannot have.
    #[error(
        "the eigensolver returned {value} as an eigenvalue of a covariance; rounding explains no more than {tolerance} below zero"
    )]
    Negative {
        /// The most negative eigenvalue.
        value: f64,
        /// How far below zero rounding can explain.
        tolerance: f64,
    },
}

/// The eigenvalues of one matrix, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigenvalues {
    /// Descending, d of them, none below zero.
    pub values: Vec<f64>,
    /// The numeric noise floor: smaller eigenvalues are rounding.
    pub floor: f64,
}

/// Eigenvalues of the covariance with both noise floors, in the units of the eigenvalues.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Descending, d of them, none below zero.
    pub values: Vec<f64>,
    /// The floor left by the arithmetic of the kernel and the solver (C14).
    pub numeric_floor: f64,
    /// The floor left by rounding the rows to their own type (C14).
    pub input_floor: f64,
}

impl Spectrum {
    /// The larger of the two floors.
    pub fn floor(&self) -> f64 {
        self.numeric_floor.max(self.input_floor)
    }
}

impl<'a> EigenProblem<'a> {
    fn new(mut matrix: DMatrix<f64>, dim: usize, rounding: Option<&'a Moments>) -> Self {
        let mut largest = 0.0f64;
        for j in 0..matrix.ncols() {
            for i in j..matrix.nrows() {
                largest = largest.max(matrix[(i, j)].abs());
            }
        }
        let scale = if largest > 0.0 { 2f64.powi(largest.log2().floor() as i32 + 1) } else { 1.0 };
        matrix /= scale;
        Self { scaled: matrix, scale, dim, rounding }
    }

    /// Sigma = M2 / N.
    pub fn covariance(moments: &'a Moments) -> Self {
        Self::new(moments.scatter().to_full() / moments.rows() as f64, moments.dim(), Some(moments))
    }

    /// Z^T Z / N, uncentred, for RankMe.
    pub fn second_moment(moments: &'a Moments) -> Self {
        Self::new(second_moment(moments), moments.dim(), Some(moments))
    }

    /// From the smaller of X^T X and X X^T of a d x n matrix X.
    pub fn from_gram(gram: DMatrix<f64>, dim: usize) -> Self {
        Self::new(gram, dim, None)
    }

    /// The matrix for the solver; only the lower triangle is valid.
    pub fn matrix(&self) -> &DMatrix<f64> {
        &self.scaled
    }

    /// Whether every entry is zero.
    pub fn is_zero(&self) -> bool {
        (0..self.scaled.nrows()).all(|k| self.scaled[(k, k)] == 0.0)
    }

    /// Checks the solver's values, which may come in any order.
    ///
    /// # Errors
    /// If they cannot be the spectrum of the matrix.
    pub fn check(&self, mut raw: Vec<f64>) -> Result<Eigenvalues, SpectrumError> {
        let n = self.scaled.nrows();
        if raw.len() != n {
            return Err(SpectrumError::WrongCount { got: raw.len(), dim: n });
        }
        if raw.iter().any(|value| !value.is_finite()) {
            return Err(SpectrumError::NotFinite);
        }
        raw.sort_by(|a, b| b.total_cmp(a));
        let (trace, frobenius_squared) = invariants(&self.scaled);
        // A backward stable solver errs by |E|_F <= c eps sqrt(n) |A|_F, so the sum is off by at most sqrt(n) |E|_F and
        // the sum of squares by 2 |A|_F |E|_F. c = 32 leaves room for the solver's constants and still finds real
        // faults.
        let error = 32.0 * f64::EPSILON * (n as f64).sqrt() * frobenius_squared.sqrt();
        matches("the sum", raw.iter().sum(), trace, error * (n as f64).sqrt())?;
        let squares = raw.iter().map(|x| x * x).sum();
        matches("the sum of squares", squares, frobenius_squared, 2.0 * error * frobenius_squared.sqrt())?;
        let lowest = raw.last().copied().unwrap_or(0.0);
        let diagonal_norm = self.scaled.diagonal().norm();
        let largest = raw.first().copied().unwrap_or(0.0);
        let sums = self.rounding.map_or(0.0, |moments| moments.rounding() / self.scale);
        let rounding = rounding_floor(diagonal_norm, n, largest) + sums;
        // Far more than rounding: the matrix or the solver is wrong.
        let tolerance = 1e3 * rounding;
        if lowest < -tolerance {
            return Err(SpectrumError::Negative { value: lowest * self.scale, tolerance: tolerance * self.scale });
        }
        let mut values: Vec<f64> = raw.iter().map(|value| value.max(0.0) * self.scale).collect();
        values.resize(self.dim, 0.0);
        // The most negative eigenvalue shows the size of rounding: a free lower bound on the floor.
        Ok(Eigenvalues { values, floor: rounding.max(-lowest) * self.scale })
    }
}

/// E[z z^T] = M2 / N + mu mu^T, uncentred.
pub fn second_moment(moments: &Moments) -> DMatrix<f64> {
    let mut matrix = moments.scatter().to_full() / moments.rows() as f64;
    let mean = moments.mean();
    for (j, mean_j) in mean.iter().enumerate() {
        for (i, mean_i) in mean.iter().enumerate() {
            matrix[(i, j)] += mean_i * mean_j;
        }
    }
    matrix
}

fn invariants(lower: &DMatrix<f64>) -> (f64, f64) {
    let (mut trace, mut squares) = (0.0, 0.0);
    for j in 0..lower.ncols() {
        trace += lower[(j, j)];
        // Column by column: equal small squares added one by one to a large sum are all rounded the same way.
        let below: f64 = lower.column(j).iter().skip(j + 1).map(|x| x * x).sum();
        squares += lower[(j, j)].powi(2) + 2.0 * below;
    }
    (trace, squares)
}

fn matches(what: &'static str, got: f64, expected: f64, tolerance: f64) -> Result<(), SpectrumError> {
    if (got - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(SpectrumError::Mismatch { what, got, expected, tolerance })
}

/// The error that f64 arithmetic leaves on an eigenvalue that should be zero: the sums of the kernel, and the solver.
///
/// Rounding gives the entries of Sigma independent errors of about eps sigma_i sigma_j; such a matrix has a spectral norm
/// of about 2 eps |diag Sigma| (twice the largest column norm: the edge of Wigner's semicircle). A Householder reduction
/// and QR add eps lambda_1 a few times over, which grows slowly with the dimension.
/// On exactly rank-deficient integer data, d 16 to 1024, N 40 to 20,000, the largest error seen was between a third and
/// a sixth of this (`tests/it/spectra.rs` holds that it is never above). Large eigenvalues carry a relative error of
/// about n eps besides, as from any QR iteration.
pub(crate) fn rounding_floor(diagonal_norm: f64, n: usize, largest: f64) -> f64 {
    f64::EPSILON * (2.0 * diagonal_norm + (1.0 + (n as f64).powf(0.25)) * largest)
}

/// C14, input quantisation: u^2 / 3 max_k E z_k^2 (1 + sqrt(d / N))^2: rounding to a type of unit roundoff u adds to each
/// coordinate an independent error of variance up to u^2 z^2 / 3, whose largest eigenvalue is at the Marchenko-Pastur edge.
pub fn input_floor(float: Float, moments: &Moments) -> f64 {
    quantisation(float, moments.rows() as usize, moments.dim(), moments.largest_mean_square())
}

/// The same, for `rows` x `dim` values with a largest mean square max_k E z_k^2.
pub(crate) fn quantisation(float: Float, rows: usize, dim: usize, largest_mean_square: f64) -> f64 {
    let edge = 1.0 + (dim as f64 / rows as f64).sqrt();
    float.unit_roundoff().powi(2) / 3.0 * largest_mean_square * edge * edge
}

/// The numeric floor if no spectrum was computed; lambda_1 is at most the trace.
pub fn numeric_floor_without_spectrum(moments: &Moments) -> f64 {
    let squares: f64 = (0..moments.dim()).map(|k| moments.variance(k).powi(2)).sum();
    rounding_floor(squares.sqrt(), moments.dim(), moments.total_variance()) + moments.rounding()
}

/// Weighted rows around a centre as the columns of a d x k matrix X, so that X X^T = sum_i w_i (x_i - c)(x_i - c)^T / W.
pub fn weighted_columns(rows: &[(Vec<f64>, f64)], centre: &[f64]) -> DMatrix<f64> {
    let total: f64 = rows.iter().map(|(_, weight)| weight).sum();
    let mut x = DMatrix::zeros(centre.len(), rows.len());
    for (mut column, (row, weight)) in x.column_iter_mut().zip(rows) {
        let scale = (weight / total).sqrt();
        for (out, (value, centre)) in column.iter_mut().zip(row.iter().zip(centre)) {
            *out = scale * (value - centre);
        }
    }
    x
}
