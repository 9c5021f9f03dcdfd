//! Several aligned views: alignment (T1), the dependence between views of one sample (rho, n_eff), and the Barlow Twins
//! cross-correlation (T3).
//!
//! Guarantees: mergeable in any order, like `moments`. Must not: pair rows of different samples.

use nalgebra::DMatrix;

use crate::moments::Moments;
use crate::packed::Packed;
use crate::rows::Rows;

/// Second moments between the views of the same samples.
#[derive(Clone, Debug)]
pub struct ViewMoments {
    /// N.
    samples: u64,
    /// Mean of each view, V x d.
    means: Vec<Vec<f64>>,
    /// sum_i (z_iv - m_v)(z_iv - m_v)^T of the first two views.
    scatters: [Moments; 2],
    /// sum_i sum_{v < v'} <z_iv - m_v, z_iv' - m_v'>.
    pair_trace: f64,
    /// sum_i (z_i1 - m_1)(z_i2 - m_2)^T: rows are the first view's coordinates.
    cross: DMatrix<f64>,
    /// Sum of cos(z_iv, z_iv') over pairs of views without a zero row, and the number of such pairs.
    cosines: (f64, u64),
    /// Sum of |mean_v u_iv| over samples without a zero row, and the number of such samples.
    view_means: (f64, u64),
}

/// Rows converted at a time.
const BLOCK: usize = 64;

impl ViewMoments {
    /// From one batch of at least two views; `first_two` are those views' own moments, and `cross` their d x d cross
    /// scatter.
    pub fn new(views: &[Rows], first_two: [Moments; 2], cross: DMatrix<f64>) -> Self {
        let dim = views[0].dim();
        let of_first_two = first_two.iter().map(|moments| moments.mean().to_vec());
        let means: Vec<Vec<f64>> = of_first_two.chain(views[2..].iter().map(Rows::mean)).collect();
        let mut moments = Self {
            samples: views[0].len() as u64,
            means,
            scatters: first_two,
            pair_trace: 0.0,
            cross,
            cosines: (0.0, 0),
            view_means: (0.0, 0),
        };
        let mut blocks = vec![vec![0.0; BLOCK * dim]; views.len()];
        for first in (0..views[0].len()).step_by(BLOCK) {
            let count = BLOCK.min(views[0].len() - first);
            for (view, block) in views.iter().zip(&mut blocks) {
                view.read(first, count, block);
            }
            for i in 0..count {
                let rows: Vec<&[f64]> = blocks.iter().map(|block| &block[i * dim..(i + 1) * dim]).collect();
                moments.add_sample(&rows);
            }
        }
        moments
    }

    fn add_sample(&mut self, rows: &[&[f64]]) {
        let dim = rows[0].len();
        let (mut of_sum, mut sum_of) = (0.0, 0.0);
        for k in 0..dim {
            let mut sum = 0.0;
            for (v, row) in rows.iter().enumerate() {
                let centred = row[k] - self.means[v][k];
                sum += centred;
                sum_of += centred * centred;
            }
            of_sum += sum * sum;
        }
        // |sum_v a_v|^2 = sum_v |a_v|^2 + 2 sum_{v < v'} <a_v, a_v'>
        self.pair_trace += (of_sum - sum_of) / 2.0;

        let norms: Vec<f64> = rows.iter().map(|row| norm(row)).collect();
        for v in 0..rows.len() {
            for w in v + 1..rows.len() {
                if norms[v] > 0.0 && norms[w] > 0.0 {
                    let dot: f64 = rows[v].iter().zip(rows[w]).map(|(a, b)| (a / norms[v]) * (b / norms[w])).sum();
                    self.cosines.0 += dot;
                    self.cosines.1 += 1;
                }
            }
        }
        if norms.iter().all(|norm| *norm > 0.0) {
            let mean_k = |k: usize| rows.iter().zip(&norms).map(|(row, norm)| row[k] / norm).sum::<f64>();
            let squared: f64 = (0..dim).map(|k| mean_k(k).powi(2)).sum();
            self.view_means.0 += squared.sqrt() / rows.len() as f64;
            self.view_means.1 += 1;
        }
    }

    /// V, the number of views.
    pub fn views(&self) -> usize {
        self.means.len()
    }

    /// Adds the samples of `other`, which must have as many views.
    pub fn merge(&mut self, other: &ViewMoments) {
        let (a, b) = (self.samples as f64, other.samples as f64);
        let weight = a * b / (a + b);
        let deltas: Vec<Vec<f64>> = self
            .means
            .iter()
            .zip(&other.means)
            .map(|(mine, theirs)| theirs.iter().zip(mine).map(|(t, m)| t - m).collect())
            .collect();
        for v in 0..deltas.len() {
            for w in v + 1..deltas.len() {
                self.pair_trace += weight * dot(&deltas[v], &deltas[w]);
            }
        }
        self.pair_trace += other.pair_trace;
        for (mine, theirs) in self.scatters.iter_mut().zip(&other.scatters) {
            mine.merge(theirs);
        }
        for (j, delta_j) in deltas[1].iter().enumerate() {
            let theirs = other.cross.column(j);
            for (i, mine) in self.cross.column_mut(j).iter_mut().enumerate() {
                *mine += theirs[i] + weight * deltas[0][i] * delta_j;
            }
        }
        for (mean, delta) in self.means.iter_mut().zip(&deltas) {
            for (mean, delta) in mean.iter_mut().zip(delta) {
                *mean += delta * (b / (a + b));
            }
        }
        self.samples += other.samples;
        self.cosines = (self.cosines.0 + other.cosines.0, self.cosines.1 + other.cosines.1);
        self.view_means = (self.view_means.0 + other.view_means.0, self.view_means.1 + other.view_means.1);
    }

    /// c+: the mean cosine of two views of one sample. T1's alignment is 2 - 2 c+ (Wang and Isola, 2020).
    pub fn positive_cosine(&self) -> Option<f64> {
        (self.cosines.1 > 0).then(|| self.cosines.0 / self.cosines.1 as f64)
    }

    /// Mean norm of a sample's view mean, on unit rows.
    pub fn view_mean_norm(&self) -> Option<f64> {
        (self.view_means.1 > 0).then(|| self.view_means.0 / self.view_means.1 as f64)
    }

    /// rho = tr Cov(z_v, z_v') / tr Sigma, averaged over pairs of views; `total_variance` is tr Sigma of the pooled rows.
    pub fn view_correlation(&self, total_variance: f64) -> Option<f64> {
        let pairs = (self.views() * (self.views() - 1) / 2) as f64;
        let covariance = self.pair_trace / (self.samples as f64 * pairs);
        (total_variance > 0.0).then(|| (covariance / total_variance).clamp(-1.0, 1.0))
    }

    /// Barlow's C (Zbontar et al., 2021) of the first two views: (mean of the diagonal, mean square off the diagonal),
    /// over the coordinates that vary in both views. The off-diagonal null at independence is 1/N.
    pub fn cross_correlation(&self) -> (Option<f64>, Option<f64>) {
        let (mut diagonal, mut off) = (0.0, 0.0);
        let n = self.correlations(|i, j, c| if i == j { diagonal += c } else { off += c * c }) as f64;
        ((n >= 1.0).then(|| diagonal / n), (n >= 2.0).then(|| off / (n * (n - 1.0))))
    }

    /// Barlow Twins' sums: (sum_k (1 - C_kk)^2, sum_{k != l} C_kl^2).
    pub fn barlow_terms(&self) -> (f64, f64) {
        let (mut on, mut off) = (0.0, 0.0);
        let live = self.correlations(|i, j, c| if i == j { on += (1.0 - c) * (1.0 - c) } else { off += c * c });
        // A coordinate that does not vary has no correlation.
        let dead = self.cross.nrows() - live;
        (on + dead as f64, off)
    }

    /// Calls `each` with C_ij for the coordinates that vary in both views, and returns their number.
    fn correlations(&self, mut each: impl FnMut(usize, usize, f64)) -> usize {
        let [first, second] = self.scatters();
        let live: Vec<usize> =
            (0..self.cross.nrows()).filter(|k| first.diagonal(*k) > 0.0 && second.diagonal(*k) > 0.0).collect();
        let scale: Vec<f64> = live.iter().map(|i| 1.0 / first.diagonal(*i).sqrt()).collect();
        for &j in &live {
            let scale_j = 1.0 / second.diagonal(j).sqrt();
            let column = self.cross.column(j);
            for (&i, scale_i) in live.iter().zip(&scale) {
                each(i, j, column[i] * scale_i * scale_j);
            }
        }
        live.len()
    }

    /// N, the number of samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Centred second moments of the first two views.
    pub fn scatters(&self) -> [&Packed; 2] {
        [self.scatters[0].scatter(), self.scatters[1].scatter()]
    }

    /// sum_i (z_i1 - m_1)(z_i2 - m_2)^T.
    pub fn cross(&self) -> &DMatrix<f64> {
        &self.cross
    }

    /// Mean over samples and coordinates of (z_i1 - z_i2)^2.
    pub fn mean_squared_difference(&self) -> f64 {
        let [first, second] = self.scatters();
        let apart: f64 = self.means[0].iter().zip(&self.means[1]).map(|(a, b)| (a - b) * (a - b)).sum();
        let (n, dim) = (self.samples as f64, first.dim() as f64);
        ((first.trace() + second.trace() - 2.0 * self.cross.trace() + n * apart) / (n * dim)).max(0.0)
    }

    /// sum_i sum_{v < w} |z_iv - z_iw|^2 over all V views; `pooled` are the moments of all their rows.
    pub fn squared_distances(&self, pooled: &Moments) -> f64 {
        let (n, v) = (self.samples as f64, self.views() as f64);
        let apart: f64 = self.means.iter().map(|mean| squared_distance(mean, pooled.mean())).sum();
        // Within each view; then sum_{v < w} (S_v + S_w) = (V - 1) sum_v S_v, and the means' part by the same identity.
        let within = pooled.scatter().trace() - n * apart;
        ((v - 1.0) * within - 2.0 * self.pair_trace + n * v * apart).max(0.0)
    }

    /// 2 sum_i (m_i - m)(m_i - m)^T for two views, m_i the mean of sample i's views and m that of all.
    pub fn between_samples(&self) -> DMatrix<f64> {
        let [first, second] = self.scatters();
        (first.to_full() + second.to_full() + &self.cross + self.cross.transpose()) / 2.0
    }

    /// Bytes of an accumulator for `views` views of dimension `dim`.
    pub fn bytes(views: usize, dim: usize) -> usize {
        if views < 2 { 0 } else { 16 * dim * dim + 8 * (views + 4) * dim }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// |row|, summed in floating-point lanes.
pub fn norm(row: &[f64]) -> f64 {
    dot(row, row).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cross(a: &Rows, b: &Rows, ma: &[f64], mb: &[f64]) -> DMatrix<f64> {
        let d = a.dim();
        let (mut x, mut y) = (vec![0.0; a.len() * d], vec![0.0; a.len() * d]);
        a.read(0, a.len(), &mut x);
        b.read(0, b.len(), &mut y);
        DMatrix::from_fn(d, d, |i, j| (0..a.len()).map(|r| (x[r * d + i] - ma[i]) * (y[r * d + j] - mb[j])).sum())
    }

    fn of(views: &[Rows]) -> ViewMoments {
        let own = |view: &Rows| {
            let mean = view.mean();
            let scatter = cross(view, view, &mean, &mean);
            Moments::new(view.len() as u64, mean, Packed::from_lower(&scatter))
        };
        let first_two = [own(&views[0]), own(&views[1])];
        let cross = cross(&views[0], &views[1], first_two[0].mean(), first_two[1].mean());
        ViewMoments::new(views, first_two, cross)
    }

    fn views(rows: std::ops::Range<usize>) -> Vec<Rows> {
        let value = |v: usize, i: usize, k: usize| ((i * 37 + k * 11 + v * 5) % 23) as f64 - 9.5;
        (0..3)
            .map(|v| {
                let values: Vec<f64> = rows.clone().flat_map(|i| (0..4).map(move |k| value(v, i, k))).collect();
                Rows::from_f64((rows.len(), 4), &values).unwrap()
            })
            .collect()
    }

    #[test]
    fn merge_is_the_whole() {
        let whole = of(&views(0..20));
        let mut merged = of(&views(0..7));
        merged.merge(&of(&views(7..20)));
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} {b}");
        close(merged.pair_trace, whole.pair_trace);
        close((&merged.cross - &whole.cross).amax(), 0.0);
        close(merged.positive_cosine().unwrap(), whole.positive_cosine().unwrap());
        close(merged.cross_correlation().1.unwrap(), whole.cross_correlation().1.unwrap());
        close(merged.view_mean_norm().unwrap(), whole.view_mean_norm().unwrap());
    }

    #[test]
    fn identical_views_are_one() {
        let first = views(0..20).remove(0);
        let same = of(&[first.clone(), first]);
        assert!((same.positive_cosine().unwrap() - 1.0).abs() < 1e-14);
        assert!((same.cross_correlation().0.unwrap() - 1.0).abs() < 1e-14);
        let total = same.scatters[0].total_variance();
        assert!((same.view_correlation(total).unwrap() - 1.0).abs() < 1e-13);
    }
}
