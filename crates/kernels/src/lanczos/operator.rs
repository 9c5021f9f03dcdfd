//! The matrix whose spectrum is estimated, as a product with a block of vectors, and the random signs that probe it.
//!
//! Must not: form anything d x d.

use nalgebra::{DMatrix, DVector};

use crate::moments::Moments;
use crate::packed::Packed;
use crate::spectrum::rounding_floor;

/// The most directions that are deflated.
pub(crate) const DIRECTIONS: usize = 128;

/// Random vectors of the quadrature.
pub(crate) const PROBES: usize = 32;

/// A X of a packed matrix.
pub type Times<'a> = &'a dyn Fn(&Packed, &DMatrix<f64>) -> Result<DMatrix<f64>, String>;

/// Eigenvalues, descending, and their eigenvectors.
pub type Eigenvectors<'a> = &'a dyn Fn(&DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), String>;

/// The kernels used by the iteration.
pub struct LanczosKernels<'a> {
    /// For the moments' triangle.
    pub times: Times<'a>,
    /// For a small matrix.
    pub eigenvectors: Eigenvectors<'a>,
}

/// The covariance, or the uncentred second moment, divided by a power of two near its trace: no square can over- or
/// underflow.
pub struct Operator<'a> {
    pub(super) moments: &'a Moments,
    /// mu / sqrt(unit); `None` for the covariance.
    pub(super) mean: Option<DVector<f64>>,
    pub(super) unit: f64,
    pub(super) trace: f64,
}

impl<'a> Operator<'a> {
    /// Sigma = M2 / N.
    pub fn covariance(moments: &'a Moments) -> Self {
        Self::new(moments, moments.total_variance(), false)
    }

    /// Z^T Z / N = Sigma + mu mu^T.
    pub fn second_moment(moments: &'a Moments) -> Self {
        Self::new(moments, moments.total_variance() + moments.mean_norm_squared(), true)
    }

    fn new(moments: &'a Moments, trace: f64, uncentred: bool) -> Self {
        // Below 2^-900 everything counts as zero, and 1 / (N unit) stays finite.
        let unit = 2f64.powi(trace.log2().floor().clamp(-900.0, 1000.0) as i32);
        let root = unit.sqrt();
        let mean = uncentred.then(|| DVector::from_iterator(moments.dim(), moments.mean().iter().map(|x| x / root)));
        Self { moments, mean, unit, trace: trace / unit }
    }

    /// Whether every entry is zero.
    pub fn is_zero(&self) -> bool {
        self.trace == 0.0
    }

    pub(super) fn dim(&self) -> usize {
        self.moments.dim()
    }

    /// The factor 1 / (N unit) of M2.
    pub(super) fn scale(&self) -> f64 {
        1.0 / self.moments.rows() as f64 / self.unit
    }

    pub(super) fn apply(&self, x: &DMatrix<f64>, kernels: &LanczosKernels<'_>) -> Result<DMatrix<f64>, String> {
        let mut product = (kernels.times)(self.moments.scatter(), &(x * self.scale()))?;
        if let Some(mean) = &self.mean {
            product.ger(1.0, mean, &x.tr_mul(mean), 1.0);
        }
        if product.iter().all(|value| value.is_finite()) {
            return Ok(product);
        }
        Err("a product with the covariance is not finite".to_string())
    }

    /// |A|_F^2 and |diag A|.
    pub(super) fn norms(&self) -> (f64, f64) {
        let (scale, mut squares, mut diagonal) = (self.scale(), 0.0, 0.0);
        for i in 0..self.dim() {
            let shift = |j: usize| self.mean.as_ref().map_or(0.0, |mean| mean[i] * mean[j]);
            let mut row = 0.0;
            for (j, value) in self.moments.scatter().row(i).iter().enumerate() {
                row += (value * scale + shift(j)).powi(2);
            }
            let own = (self.moments.scatter().diagonal(i) * scale + shift(i)).powi(2);
            squares += 2.0 * row - own;
            diagonal += own;
        }
        (squares, diagonal.sqrt())
    }

    /// The numeric noise floor for this largest eigenvalue.
    pub(super) fn floor(&self, diagonal_norm: f64, largest: f64) -> f64 {
        let sums = self.moments.rounding() / self.unit;
        rounding_floor(diagonal_norm, self.dim(), largest) + sums
    }
}

/// Random signs from a seed: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(super) struct Signs(pub(super) u64);

impl Signs {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn block(&mut self, rows: usize, columns: usize) -> DMatrix<f64> {
        DMatrix::from_fn(rows, columns, |_, _| if self.next() >> 63 == 0 { 1.0 } else { -1.0 })
    }
}

/// X <- X - Q Q^T X.
pub(super) fn project_out(q: &nalgebra::DMatrixView<'_, f64>, x: &mut DMatrix<f64>) {
    if q.ncols() > 0 {
        let along = (x.transpose() * q).transpose();
        x.gemm(-1.0, q, &along, 1.0);
    }
}
