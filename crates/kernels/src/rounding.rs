//! The rounding that sums in f32 leave in a second moment: the numeric noise floor of the kernels that are faster than
//! f64.
//!
//! Model. A block of b rows is summed in f32, blocks are added in f64. After k rows the sum behind entry (i, j) has a
//! square of about k^2 S_ij^2 + k S_ii S_jj (what the coordinates share, and a random walk), S being the second moment
//! that is summed, and each step rounds it by a relative error of variance u^2 / 3, u = 2^-24. Over a block that makes
//! u^2 / 3 (b^3 / 3 S_ij^2 + b^2 / 2 S_ii S_jj). The norm of a symmetric matrix of independent errors is twice the norm of
//! a row of their standard deviations where all rows are alike (the edge of Wigner's semicircle), and that of the largest
//! row where it outdoes the others (Bandeira and van Handel 2016): largest plus root mean square is both.
//!
//! Calibration. Rounding is not always independent: values of few digits (the zeros after a ReLU, bf16) repeat the same
//! products, whose errors add up instead of cancelling. So some errors are measured: the pass that computes the means
//! also sums the squares and the products of neighbouring coordinates in f64. The squares replace the diagonal; if the
//! neighbours' errors exceed the model, the excess scales the whole.
//!
//! Each batch is modelled by its own S when it is summed: a loud batch among quiet ones keeps its loss.

use crate::packed::{Packed, power_of_two};

/// Unit roundoff of f32.
const U: f64 = (f32::EPSILON / 2.0) as f64;

/// How many errors of the model's size count next to the measured ones, so that a few coordinates that are right by
/// chance do not make the floor vanish.
const PRIOR_ERRORS: f64 = 4.0;

/// How many times its estimate the error may be. Over 1,200 random windows of one to five batches (d 8 to 130, scales
/// over six decades; normal, low rank, sorted by class, ReLU, every second coordinate constant) the error was between
/// 0.22 and 1.6 times the estimate; for f32 rows of few values (integers, signs, one-hot), whose errors repeat, at most
/// 2.1, 2.5 and 3.9.
const MARGIN: f64 = 2.0;

/// How a batch is summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Rows of the batch.
    pub rows: usize,
    /// Rows summed in f32 at a time.
    pub block: usize,
    /// Around the mean, not around zero.
    pub centred: bool,
}

/// b^3 / 3 and b^2 / 2, summed over blocks.
#[derive(Clone, Copy, Debug)]
struct Walks {
    shared: f64,
    random: f64,
}

/// The rounding of sums in f32; nothing if all were in f64. In units of M2, not of Sigma.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounding {
    /// For each row of M2, the norm of its entries' standard deviations off the diagonal, over u / sqrt 3.
    rows: Vec<f64>,
    /// The same of the entries (k, k + 1) alone.
    neighbours: Vec<f64>,
    /// Measured errors of these entries.
    errors: Vec<f64>,
}

impl Rounding {
    /// For a batch that was summed in `blocks`, with this M2 and mean; `errors` are those of its entries (k, k + 1).
    pub fn new(blocks: Blocks, scatter: &Packed, mean: &[f64], errors: Vec<f64>) -> Self {
        let (n, d) = (blocks.rows as f64, scatter.dim());
        let root = if blocks.centred { vec![0.0; d] } else { mean.iter().map(|mean| mean * n.sqrt()).collect() };
        let own: Vec<f64> = root.iter().enumerate().map(|(k, mean)| scatter.diagonal(k) + mean * mean).collect();
        let total: f64 = own.iter().sum();
        // Squares in units of the trace: otherwise those of large rows overflow.
        let unit = power_of_two(total);
        let walks = blocks.walks();
        // S = M2 / N
        let deviation = |squares: f64, product: f64| unit / n * walks.variance(squares, product).sqrt();
        let squares = squares_beside_the_diagonal(scatter, &root, unit);
        let rows = squares
            .iter()
            .zip(&own)
            .map(|(squares, own)| deviation(*squares, own / unit * ((total - own).max(0.0) / unit)));
        let neighbours = (1..d).map(|k| {
            let entry = (scatter.row(k)[k - 1] + root[k] * root[k - 1]) / unit;
            deviation(entry * entry, own[k] / unit * (own[k - 1] / unit))
        });
        Self { rows: rows.collect(), neighbours: neighbours.collect(), errors }
    }

    /// Measured errors of the entries (k, k + 1); none if all sums were in f64.
    pub fn errors(&self) -> &[f64] {
        &self.errors
    }

    /// Adds the rounding of further rows.
    pub fn merge(&mut self, other: &Rounding) {
        if self.rows.is_empty() {
            self.clone_from(other);
            return;
        }
        for (mine, theirs) in [(&mut self.rows, &other.rows), (&mut self.neighbours, &other.neighbours)] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine = mine.hypot(*theirs);
            }
        }
        for (mine, theirs) in self.errors.iter_mut().zip(&other.errors) {
            *mine += theirs;
        }
    }

    /// Spectral norm of the rounding that M2 may contain; 0 if all sums were in f64.
    pub fn norm(&self) -> f64 {
        MARGIN * U / 3f64.sqrt() * largest_and_typical(&self.rows) * self.excess()
    }

    /// Root mean square of the measured errors, each divided by the model's.
    fn excess(&self) -> f64 {
        let (mut squares, mut count) = (PRIOR_ERRORS, PRIOR_ERRORS);
        for (error, deviation) in self.errors.iter().zip(&self.neighbours) {
            if *deviation > 0.0 {
                squares += (error / (U / 3f64.sqrt() * deviation)).powi(2);
                count += 1.0;
            }
        }
        (squares / count).sqrt()
    }
}

impl Blocks {
    /// Spectral norm of the rounding that Sigma will contain, from what is known before the sum: the coordinates'
    /// `variances`, the squares of their means, and lambda_1 of Sigma or a bound on it. Off the diagonal, sum_j S_ij^2
    /// <= (lambda_1 - S_ii) S_ii.
    pub(crate) fn expected(self, variances: &[f64], squared_means: &[f64], largest: f64) -> f64 {
        let offset = if self.centred { 0.0 } else { 1.0 };
        let mean: f64 = offset * squared_means.iter().sum::<f64>();
        let (total, largest, walks) = (variances.iter().sum::<f64>() + mean, largest + mean, self.walks());
        let rows: Vec<f64> = variances
            .iter()
            .zip(squared_means)
            .map(|(variance, square)| {
                let own = variance + offset * square;
                walks.variance(own * (largest - own).max(0.0), own * (total - own).max(0.0)).sqrt()
            })
            .collect();
        MARGIN * U / 3f64.sqrt() * largest_and_typical(&rows) / self.rows as f64
    }

    fn walks(self) -> Walks {
        let mut walks = Walks { shared: 0.0, random: 0.0 };
        for first in (0..self.rows).step_by(self.block.max(1)) {
            let b = self.block.min(self.rows - first) as f64;
            walks.shared += b.powi(3) / 3.0;
            walks.random += b.powi(2) / 2.0;
        }
        walks
    }
}

impl Walks {
    /// Variance, in units of u^2 / 3, of one or more sums, from their squares and the products of their coordinates'
    /// second moments.
    fn variance(self, squares: f64, products: f64) -> f64 {
        self.shared * squares + self.random * products
    }
}

/// The largest plus the root mean square.
fn largest_and_typical(rows: &[f64]) -> f64 {
    let largest = rows.iter().copied().fold(0.0, f64::max);
    let typical = rows.iter().map(|row| (row / largest).powi(2)).sum::<f64>() / rows.len().max(1) as f64;
    if largest == 0.0 { 0.0 } else { largest * (1.0 + typical.sqrt()) }
}

/// sum_{j != i} ((M2 + r r^T)_ij / unit)^2 of each row i; `unit` is a power of two.
fn squares_beside_the_diagonal(scatter: &Packed, r: &[f64], unit: f64) -> Vec<f64> {
    const LANES: usize = 8;
    let mut squares = vec![0.0; scatter.dim()];
    for (i, r_i) in r.iter().enumerate() {
        let square = |entry: f64, r_j: f64| ((entry + r_i * r_j) * (1.0 / unit)).powi(2);
        // An entry counts for its row, in lanes, and for its column.
        let (entries, rest) = scatter.row(i)[..i].as_chunks::<LANES>();
        let (of_r, rest_of_r) = r[..i].as_chunks::<LANES>();
        let (columns, rest_of_columns) = squares[..i].as_chunks_mut::<LANES>();
        let mut lanes = [0.0; LANES];
        for ((entries, r), columns) in entries.iter().zip(of_r).zip(columns) {
            for (((lane, entry), r_j), column) in lanes.iter_mut().zip(entries).zip(r).zip(columns) {
                let square = square(*entry, *r_j);
                *lane += square;
                *column += square;
            }
        }
        let mut own = lanes.iter().sum::<f64>();
        for ((entry, r_j), column) in rest.iter().zip(rest_of_r).zip(rest_of_columns) {
            let square = square(*entry, *r_j);
            own += square;
            *column += square;
        }
        squares[i] += own;
    }
    squares
}
