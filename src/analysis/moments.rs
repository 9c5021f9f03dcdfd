//! `Moments` (n, mean, centred second moment) and its one `merge`: the commutative monoid that batches, threads,
//! workers and nodes all share.
//!
//! Guarantees: f64, centred, symmetric by storage (one triangle). The merge is Chan, Golub and LeVeque's pairwise
//! update (1979): delta = mu_B - mu_A, M2 = M2_A + M2_B + n_A n_B / (n_A + n_B) delta delta^T.
//! Must not: form Z^T Z / N - mu mu^T, which loses every digit exactly near a collapse.

use nalgebra::DMatrix;

use super::origin::{Origin, Origins};
use super::rounding::Rounding;

/// The lower triangle of a symmetric d x d matrix, row after row: entry (i, j), j <= i, stands at i (i + 1) / 2 + j.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    dim: usize,
    values: Vec<f64>,
}

impl Packed {
    /// The zero matrix.
    pub fn zeros(dim: usize) -> Self {
        Self { dim, values: vec![0.0; dim * (dim + 1) / 2] }
    }

    /// The lower triangle of a square matrix.
    pub fn from_lower(full: &DMatrix<f64>) -> Self {
        let dim = full.nrows();
        let mut packed = Self::zeros(dim);
        // Column by column, as nalgebra lays them out.
        for j in 0..dim {
            for (i, value) in full.column(j).iter().enumerate().skip(j) {
                packed.values[i * (i + 1) / 2 + j] = *value;
            }
        }
        packed
    }

    /// The whole matrix, both triangles.
    pub fn to_full(&self) -> DMatrix<f64> {
        let mut full = DMatrix::zeros(self.dim, self.dim);
        for i in 0..self.dim {
            for (j, value) in self.row(i).iter().enumerate() {
                full[(i, j)] = *value;
                full[(j, i)] = *value;
            }
        }
        full
    }

    /// The entries (i, 0) ..= (i, i) of the rows i = 0 .. d, one after another; `None` when they are not d (d + 1) / 2.
    pub fn from_rows(dim: usize, values: Vec<f64>) -> Option<Self> {
        (values.len() == dim * (dim + 1) / 2).then_some(Self { dim, values })
    }

    /// d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All entries, in order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Entries (i, 0) ..= (i, i).
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * (i + 1) / 2..(i + 1) * (i + 2) / 2]
    }

    /// Entry (i, i).
    pub fn diagonal(&self, i: usize) -> f64 {
        self.values[i * (i + 1) / 2 + i]
    }

    /// Sum of the diagonal.
    pub fn trace(&self) -> f64 {
        (0..self.dim).map(|i| self.diagonal(i)).sum()
    }

    /// Squared Frobenius norm of the whole matrix.
    pub fn frobenius_squared(&self) -> f64 {
        self.frobenius_squared_in(1.0)
    }

    /// The same in units of `unit`^2: fourth powers of what rows may hold overflow and underflow, shares of the trace do not.
    pub fn frobenius_squared_in(&self, unit: f64) -> f64 {
        const LANES: usize = 8;
        let near = power_of_two(unit);
        let square = |x: &f64| (x * (1.0 / near)).powi(2);
        let (blocks, rest) = self.values.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for block in blocks {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *lane += square(x);
            }
        }
        let off_and_on: f64 = lanes.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>();
        let on: f64 = (0..self.dim).map(|i| square(&self.diagonal(i))).sum();
        (2.0 * off_and_on - on) * (near / unit).powi(2)
    }

    fn add_scaled_outer(&mut self, other: &Packed, delta: &[f64], weight: f64) {
        let mut start = 0;
        for (i, delta_i) in delta.iter().enumerate() {
            let end = start + i + 1;
            let scaled = weight * delta_i;
            let theirs = &other.values[start..end];
            for ((mine, theirs), delta_j) in self.values[start..end].iter_mut().zip(theirs).zip(delta) {
                *mine += theirs + scaled * delta_j;
            }
            start = end;
        }
    }
}

/// The power of two at or under `unit`, or the nearest one whose inverse is a number: to multiply by it costs no digit, and
/// much less time than to divide.
pub(super) fn power_of_two(unit: f64) -> f64 {
    2f64.powi(unit.log2().floor().clamp(-1000.0, 1000.0) as i32)
}

/// Count, mean and centred second moment of a set of rows in R^d.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    rows: u64,
    mean: Vec<f64>,
    scatter: Packed,
    /// What sums in f32 left in `scatter`.
    rounding: Rounding,
    origins: Origins,
}

impl Moments {
    /// Of no rows: the monoid's identity.
    pub fn empty(dim: usize) -> Self {
        Self::new(0, vec![0.0; dim], Packed::zeros(dim))
    }

    /// From a kernel: `rows` rows with this mean and M2 = sum (z - mu)(z - mu)^T.
    pub fn new(rows: u64, mean: Vec<f64>, scatter: Packed) -> Self {
        debug_assert_eq!(mean.len(), scatter.dim());
        Self { rows, mean, scatter, rounding: Rounding::default(), origins: Origins::new() }
    }

    /// The same, by the kernel `origin`, which rounded its sums so.
    pub fn computed(mut self, origin: Origin, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self.origins = Origins::from([origin]);
        self
    }

    /// The kernels that summed the rows; empty where a trainer did.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// How the rows were summed, as far as f32 had a part in it.
    pub fn sums(&self) -> &Rounding {
        &self.rounding
    }

    /// Spectral norm of what rounding coarser than f64's may have left in Sigma: 0 if all sums were f64's.
    pub fn rounding(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.rounding.norm() / self.rows as f64 }
    }

    /// N.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// d.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// mu.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// M2.
    pub fn scatter(&self) -> &Packed {
        &self.scatter
    }

    /// |mu|^2.
    pub fn mean_norm_squared(&self) -> f64 {
        self.mean.iter().map(|x| x * x).sum()
    }

    /// Variance of coordinate k, M2_kk / N.
    pub fn variance(&self, k: usize) -> f64 {
        if self.rows == 0 { 0.0 } else { self.scatter.diagonal(k) / self.rows as f64 }
    }

    /// tr Sigma = tr M2 / N.
    pub fn total_variance(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.scatter.trace() / self.rows as f64 }
    }

    /// max_k E z_k^2.
    pub fn largest_mean_square(&self) -> f64 {
        (0..self.dim()).map(|k| self.variance(k) + self.mean[k] * self.mean[k]).fold(0.0, f64::max)
    }

    /// Adds the rows of `other`.
    ///
    /// # Panics
    /// If the dimensions differ: a stream has one.
    pub fn merge(&mut self, other: &Moments) {
        assert_eq!(self.dim(), other.dim(), "moments of two dimensions never meet: streams check it");
        if other.rows == 0 {
            return;
        }
        if self.rows == 0 {
            self.clone_from(other);
            return;
        }
        let (a, b) = (self.rows as f64, other.rows as f64);
        let delta: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(theirs, mine)| theirs - mine).collect();
        self.scatter.add_scaled_outer(&other.scatter, &delta, a * b / (a + b));
        for (mine, delta) in self.mean.iter_mut().zip(&delta) {
            *mine += delta * (b / (a + b));
        }
        self.rows += other.rows;
        self.rounding.merge(&other.rounding);
        self.origins.extend(&other.origins);
    }
}

/// Mean and per-coordinate variance of unit rows u = z / |z|; zero rows have none and are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitMoments {
    /// Unit rows.
    pub rows: u64,
    /// s.
    pub mean: Vec<f64>,
    /// sum (u_k - s_k)^2.
    pub scatter: Vec<f64>,
}

impl UnitMoments {
    /// Of no rows.
    pub fn empty(dim: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; dim], scatter: vec![0.0; dim] }
    }

    /// Adds one unit row (Welford's update: the merge with a set of one row).
    pub fn push(&mut self, unit: impl Iterator<Item = f64>) {
        self.rows += 1;
        let weight = 1.0 / self.rows as f64;
        for ((mean, scatter), x) in self.mean.iter_mut().zip(&mut self.scatter).zip(unit) {
            let delta = x - *mean;
            *mean += delta * weight;
            *scatter += delta * (x - *mean);
        }
    }

    /// Adds the rows of `other`, as [`Moments::merge`] on the diagonal.
    pub fn merge(&mut self, other: &UnitMoments) {
        if other.rows == 0 {
            return;
        }
        let (a, b) = (self.rows as f64, other.rows as f64);
        for k in 0..self.mean.len() {
            let delta = other.mean[k] - self.mean[k];
            self.mean[k] += delta * (b / (a + b));
            self.scatter[k] += other.scatter[k] + delta * delta * (a * b / (a + b));
        }
        self.rows += other.rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(rows: &[Vec<f64>]) -> Moments {
        let (n, d) = (rows.len(), rows[0].len());
        let mean: Vec<f64> = (0..d).map(|k| rows.iter().map(|r| r[k]).sum::<f64>() / n as f64).collect();
        let full = DMatrix::from_fn(d, d, |i, j| rows.iter().map(|r| (r[i] - mean[i]) * (r[j] - mean[j])).sum());
        Moments::new(n as u64, mean, Packed::from_lower(&full))
    }

    #[test]
    fn merging_a_split_is_the_whole() {
        let rows: Vec<Vec<f64>> = (0..9).map(|i| (0..3).map(|k| f64::from((i * i + 7 * k) % 11)).collect()).collect();
        for cut in 0..=9 {
            let mut left = if cut == 0 { Moments::empty(3) } else { naive(&rows[..cut]) };
            let right = if cut == 9 { Moments::empty(3) } else { naive(&rows[cut..]) };
            left.merge(&right);
            let whole = naive(&rows);
            assert_eq!(left.rows(), whole.rows());
            let difference = (left.scatter().to_full() - whole.scatter().to_full()).amax();
            assert!(difference <= 1e-12 * whole.scatter().trace(), "cut {cut}: {difference}");
        }
    }

    #[test]
    fn packed_keeps_the_frobenius_norm() {
        let full = DMatrix::from_row_slice(2, 2, &[3.0, 4.0, 4.0, 5.0]);
        let packed = Packed::from_lower(&full);
        assert_eq!(packed.frobenius_squared(), 9.0 + 16.0 + 16.0 + 25.0);
        assert_eq!(packed.trace(), 8.0);
        assert_eq!(packed.to_full(), full);
    }
}
