//! Uniformity (C12) and its Wasserstein form (C13), over all unit rows if they are available, otherwise over the row
//! sample.

use nalgebra::DMatrix;

use crate::reservoir::Reservoir;

/// ln mean over pairs of exp(-2 |u_i - u_j|^2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniformity {
    /// The value, in nats.
    pub value: f64,
    /// Its 95 % confidence interval, if computed from a sample.
    pub interval: Option<(f64, f64)>,
}

/// Distinct unit rows as the columns of a d x k matrix, and how often each came.
pub struct UnitRows {
    /// d x k.
    pub columns: DMatrix<f64>,
    /// k.
    pub times: Vec<f64>,
    /// Distinct rows in the whole window: k, or more if the columns are a sample.
    pub distinct: f64,
}

impl UnitRows {
    /// The rows of a reservoir, without those of norm zero.
    pub fn from_sample(reservoir: &Reservoir, dim: usize) -> Self {
        let mut columns = Vec::new();
        let mut times = Vec::new();
        for (row, count) in reservoir.rows() {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if norm > 0.0 {
                columns.extend(row.iter().map(|x| x / norm));
                times.push(count as f64);
            }
        }
        let columns = DMatrix::from_vec(dim, times.len(), columns);
        let distinct = if reservoir.complete() { times.len() as f64 } else { reservoir.distinct() };
        Self { columns, times, distinct }
    }

    /// Whether every row of the window is included.
    pub fn complete(&self) -> bool {
        self.distinct <= self.times.len() as f64
    }

    /// (row, weight) pairs, and their weighted mean.
    pub fn weighted(&self) -> (Vec<(Vec<f64>, f64)>, Vec<f64>) {
        let rows: Vec<(Vec<f64>, f64)> =
            self.columns.column_iter().zip(&self.times).map(|(c, t)| (c.iter().copied().collect(), *t)).collect();
        let total: f64 = self.times.iter().sum();
        let mut mean = vec![0.0; self.columns.nrows()];
        for (row, times) in &rows {
            for (mean, x) in mean.iter_mut().zip(row) {
                *mean += times / total * x;
            }
        }
        (rows, mean)
    }
}

/// Columns multiplied at a time.
const BLOCK: usize = 512;

/// Rows of a sample that are compared at first: the work grows with the square.
const FEWEST: usize = 1024;

/// A confidence interval is narrow enough at this half-width, in nats: a run's uniformity moves by tenths.
const NARROW: f64 = 0.005;

/// C12 over all pairs of the given rows; `inner` returns A^T B. `None` under two rows.
///
/// A sample of k of D distinct contents, each with its count: pairs of different contents stand for
/// D (D - 1) / (k (k - 1)) such pairs, repeats of one content (at distance 0) for D / k. The interval is that of a
/// U-statistic (Hoeffding 1948): variance 4 Var_i(mean_j f_ij) / k (1 - k / D), carried through the logarithm.
///
/// Of a sample, only as many rows are compared as an interval of +-0.005 nats takes: first those with the smallest
/// hashes, which are a sample themselves, then twice as many until the interval is that narrow or all rows are used.
pub fn uniformity<E>(
    rows: &UnitRows,
    mut inner: impl FnMut(&DMatrix<f64>, &DMatrix<f64>) -> Result<DMatrix<f64>, E>,
) -> Result<Option<Uniformity>, E> {
    let mut k = rows.times.len();
    if !rows.complete() {
        k = k.min(FEWEST);
    }
    loop {
        let found = over_first(rows, k, &mut inner)?;
        let interval = found.and_then(|found| found.interval);
        if k == rows.times.len() || interval.is_some_and(|(low, high)| high - low <= 2.0 * NARROW) {
            return Ok(found);
        }
        k = rows.times.len().min(2 * k);
    }
}

fn over_first<E>(
    rows: &UnitRows,
    k: usize,
    inner: &mut impl FnMut(&DMatrix<f64>, &DMatrix<f64>) -> Result<DMatrix<f64>, E>,
) -> Result<Option<Uniformity>, E> {
    // For each row, sum_j t_j f_ij over the other rows.
    let mut sums = vec![0.0; k];
    for start_j in (0..k).step_by(BLOCK) {
        let block_j = rows.columns.columns(start_j, BLOCK.min(k - start_j)).into_owned();
        for start_i in (start_j..k).step_by(BLOCK) {
            let block_i = rows.columns.columns(start_i, BLOCK.min(k - start_i)).into_owned();
            let cosines = inner(&block_i, &block_j)?;
            let pairs = Pairs { cosines, start_i, start_j };
            pairs.add(&rows.times, &mut sums);
        }
    }
    Ok(from_sums(rows, &rows.times[..k], &sums))
}

/// Cosines of a block of rows with another; the starts are the blocks' first rows.
struct Pairs {
    cosines: DMatrix<f64>,
    start_i: usize,
    start_j: usize,
}

impl Pairs {
    fn add(&self, times: &[f64], sums: &mut [f64]) {
        for (column, cosines) in self.cosines.column_iter().enumerate() {
            let j = self.start_j + column;
            let mut sum_j = 0.0;
            for (row, cosine) in cosines.iter().enumerate() {
                let i = self.start_i + row;
                if i > j {
                    // |u - v|^2 = 2 - 2 cos
                    let f = (4.0 * cosine.min(1.0) - 4.0).exp();
                    sums[i] += times[j] * f;
                    sum_j += times[i] * f;
                }
            }
            sums[j] += sum_j;
        }
    }
}

fn from_sums(rows: &UnitRows, times: &[f64], sums: &[f64]) -> Option<Uniformity> {
    let k = times.len() as f64;
    let total: f64 = times.iter().sum();
    if total < 2.0 {
        return None;
    }
    let expand = rows.distinct / k;
    let expand_pairs = if k > 1.0 { expand * (rows.distinct - 1.0) / (k - 1.0) } else { 1.0 };
    let different: f64 = times.iter().zip(sums).map(|(t, sum)| t * sum).sum::<f64>() / 2.0;
    let different_pairs: f64 = times.iter().map(|t| t * (total - t)).sum::<f64>() / 2.0;
    let same_pairs: f64 = times.iter().map(|t| t * (t - 1.0)).sum::<f64>() / 2.0;
    let mean =
        (expand_pairs * different + expand * same_pairs) / (expand_pairs * different_pairs + expand * same_pairs);
    let value = mean.ln();
    if rows.complete() {
        return Some(Uniformity { value, interval: None });
    }
    let means: Vec<f64> = times.iter().zip(sums).map(|(t, sum)| sum / (total - t)).collect();
    let centre = means.iter().sum::<f64>() / k;
    let variance = means.iter().map(|mean| (mean - centre).powi(2)).sum::<f64>() / (k - 1.0);
    let error = 2.0 * (variance / k * (1.0 - k / rows.distinct).max(0.0)).sqrt() / mean;
    Some(Uniformity { value, interval: Some((value - 1.96 * error, value + 1.96 * error)) })
}

/// C13 from the eigenvalues of the unit rows' covariance: W2^2 = |s|^2 + 1 + tr Sigma_u - 2 / sqrt(d) tr Sigma_u^(1/2), and
/// |s|^2 + tr Sigma_u = 1 for unit rows (Fang et al., ICLR 2024).
pub fn w2(unit_eigenvalues: &[f64]) -> f64 {
    let d = unit_eigenvalues.len() as f64;
    let root_trace: f64 = unit_eigenvalues.iter().map(|value| value.sqrt()).sum();
    (2.0 - 2.0 / d.sqrt() * root_trace).max(0.0).sqrt()
}
