//! `Moments` (n, mean, centred second moment) and its one `merge`: the commutative monoid that batches, threads,
//! workers and nodes all share.
//!
//! Guarantees: f64, centred, symmetric by storage (one triangle). The merge is Chan, Golub and LeVeque's pairwise
//! update (1979): delta = mu_B - mu_A, M2 = M2_A + M2_B + n_A n_B / (n_A + n_B) delta delta^T.
//! Must not: form Z^T Z / N - mu mu^T, which loses every digit exactly near a collapse.

use crate::packed::Packed;
use crate::provenance::{Provenance, Provenances};
use crate::rounding::Rounding;

/// Count, mean and centred second moment of a set of rows in R^d.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    rows: u64,
    mean: Vec<f64>,
    scatter: Packed,
    /// What sums in f32 left in `scatter`.
    rounding: Rounding,
    provenances: Provenances,
}

impl Moments {
    /// Moments of no rows: the monoid's identity.
    pub fn empty(dim: usize) -> Self {
        Self::new(0, vec![0.0; dim], Packed::zeros(dim))
    }

    /// From a kernel: `rows` rows with this mean and M2 = sum (z - mu)(z - mu)^T.
    pub fn new(rows: u64, mean: Vec<f64>, scatter: Packed) -> Self {
        debug_assert_eq!(mean.len(), scatter.dim());
        Self { rows, mean, scatter, rounding: Rounding::default(), provenances: Provenances::new() }
    }

    /// The same, by the kernel `provenance`, with the rounding of its sums.
    pub fn computed(mut self, provenance: Provenance, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self.provenances = Provenances::from([provenance]);
        self
    }

    /// The kernels that summed the rows; empty if a trainer did.
    pub fn provenances(&self) -> &Provenances {
        &self.provenances
    }

    /// How the rows were summed, if f32 was involved.
    pub fn sums(&self) -> &Rounding {
        &self.rounding
    }

    /// Spectral norm of the rounding coarser than f64's that Sigma may contain: 0 if all sums were in f64.
    pub fn rounding(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.rounding.norm() / self.rows as f64 }
    }

    /// N, the number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// mu, the mean.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// M2, the centred second moment.
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
        assert_eq!(self.dim(), other.dim(), "callers merge only moments of one dimension");
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
        self.provenances.extend(&other.provenances);
    }
}

/// Mean and per-coordinate variance of unit rows u = z / |z|; zero rows have no direction and are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitMoments {
    /// Number of unit rows.
    pub rows: u64,
    /// s, their mean.
    pub mean: Vec<f64>,
    /// sum (u_k - s_k)^2.
    pub scatter: Vec<f64>,
}

impl UnitMoments {
    /// Moments of no rows.
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
    use nalgebra::DMatrix;

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
}
