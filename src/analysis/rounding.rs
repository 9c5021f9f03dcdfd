//! What sums carried in f32 leave in a second moment: the numeric noise floor of the kernels that are faster than f64.
//!
//! Model. A block of b rows is summed in f32, blocks are added in f64. After k rows the sum behind entry (i, j) has a
//! square of about k^2 S_ij^2 + k S_ii S_jj (what the coordinates share, and a random walk), S being the second moment
//! that is summed, and each step rounds it by a relative error of variance u^2 / 3, u = 2^-24. Over a block that makes
//! u^2 / 3 (b^3 / 3 S_ij^2 + b^2 / 2 S_ii S_jj). The norm of a symmetric matrix of independent errors is twice the norm of
//! a row of their standard deviations where all rows are alike (the edge of Wigner's semicircle), and that of the largest
//! row where it outdoes the others (Bandeira and van Handel 2016): largest plus root mean square is both. Off the
//! diagonal, sum_j S_ij^2 <= (lambda_1 - S_ii) S_ii and sum_j S_ii S_jj = S_ii (tr S - S_ii).
//!
//! Calibration. Rounding is not always independent: values of few digits (the zeros behind a ReLU, bf16) repeat the same
//! products, whose errors add up instead of cancelling. So some errors are measured: the pass that takes the means sums
//! the squares and the products of neighbouring coordinates in f64 too. The squares replace the diagonal; what the errors
//! of the neighbours exceed the model by scales the whole.

/// Unit roundoff of f32.
const U: f64 = (f32::EPSILON / 2.0) as f64;

/// How many errors of the model's size count beside the measured ones, so that few coordinates, right by chance, do not
/// make the floor vanish.
const PRIOR_ERRORS: f64 = 4.0;

/// How many times its estimate the error may be. Over the populations of `tests/it/kernels.rs` (45 x 3 types) the error was
/// between a seventh of the estimate and all of it.
const MARGIN: f64 = 1.3;

/// b^3 / 3 and b^2 / 2, summed over blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Walks {
    shared: f64,
    random: f64,
}

/// How rows were summed, as far as f32 had a part in it; nothing for sums in f64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounding {
    centred: Walks,
    uncentred: Walks,
    /// Measured errors of entries (k, k + 1), and their values; empty where all sums were f64's.
    neighbours: Vec<(f64, f64)>,
}

/// The second moments that were summed: around the mean and around zero.
#[derive(Clone, Copy, Debug)]
pub struct Summed<'a> {
    /// Rows.
    pub rows: u64,
    /// Variances of the coordinates.
    pub variances: &'a [f64],
    /// Squares of their means.
    pub squared_means: &'a [f64],
    /// lambda_1 of the covariance, or more.
    pub largest: f64,
}

impl Rounding {
    /// Of `rows` rows in f32 blocks of `block`, around their mean or (not `centred`) around zero; `neighbours` are the errors
    /// of the entries (k, k + 1) that were summed, and those entries.
    pub fn of_blocks(rows: usize, block: usize, centred: bool, neighbours: Vec<(f64, f64)>) -> Self {
        let mut walks = Walks::default();
        for first in (0..rows).step_by(block.max(1)) {
            let b = block.min(rows - first) as f64;
            walks.shared += b.powi(3) / 3.0;
            walks.random += b.powi(2) / 2.0;
        }
        let other = Walks::default();
        let (centred, uncentred) = if centred { (walks, other) } else { (other, walks) };
        Self { centred, uncentred, neighbours }
    }

    /// Measured errors of entries (k, k + 1), and their values; none where all sums were f64's.
    pub fn neighbours(&self) -> &[(f64, f64)] {
        &self.neighbours
    }

    /// Of further rows.
    pub fn merge(&mut self, other: &Rounding) {
        for (mine, theirs) in [(&mut self.centred, &other.centred), (&mut self.uncentred, &other.uncentred)] {
            mine.shared += theirs.shared;
            mine.random += theirs.random;
        }
        if self.neighbours.is_empty() {
            self.neighbours.clone_from(&other.neighbours);
        } else {
            for (mine, theirs) in self.neighbours.iter_mut().zip(&other.neighbours) {
                *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
            }
        }
    }

    /// Spectral norm of what rounding may have left in the covariance of these rows; 0 if all sums were f64's.
    pub fn norm(&self, summed: Summed<'_>) -> f64 {
        let (n, total) = ((summed.rows as f64).max(1.0), summed.variances.iter().sum::<f64>());
        let mean: f64 = summed.squared_means.iter().sum();
        let (mut largest, mut sum) = (0.0f64, 0.0);
        for (variance, square) in summed.variances.iter().zip(summed.squared_means) {
            let row = self.centred.row(*variance, summed.largest, total)
                + self.uncentred.row(variance + square, summed.largest + mean, total + mean);
            (largest, sum) = (largest.max(row), sum + row);
        }
        let rows = largest.sqrt() + (sum / summed.variances.len().max(1) as f64).sqrt();
        MARGIN * U / 3f64.sqrt() * rows * self.excess(&summed) / n
    }

    /// Root mean square of the measured errors, each by what the model has for it.
    fn excess(&self, summed: &Summed<'_>) -> f64 {
        let n = (summed.rows as f64).max(1.0);
        let (mut squares, mut count) = (PRIOR_ERRORS, PRIOR_ERRORS);
        for (k, (error, value)) in self.neighbours.iter().enumerate() {
            let pair = |of: &dyn Fn(usize) -> f64| of(k) * of(k + 1);
            let entry = (value / n).powi(2);
            let centred = pair(&|k| summed.variances[k]);
            let uncentred = pair(&|k| summed.variances[k] + summed.squared_means[k]);
            let variance = self.centred.entry(entry, centred) + self.uncentred.entry(entry, uncentred);
            if variance > 0.0 {
                squares += error * error / (U * U / 3.0 * variance);
                count += 1.0;
            }
        }
        (squares / count).sqrt()
    }
}

impl Walks {
    /// Variances off the diagonal in the row of a coordinate with the second moment `own`, in units of u^2 / 3.
    fn row(self, own: f64, largest: f64, total: f64) -> f64 {
        self.shared * own * (largest - own).max(0.0) + self.random * own * (total - own).max(0.0)
    }

    /// Variance of one entry off the diagonal, by its square and the product of its coordinates' second moments.
    fn entry(self, square: f64, product: f64) -> f64 {
        self.shared * square + self.random * product
    }
}
