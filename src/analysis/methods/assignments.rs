//! Probability rows over K prototypes (P2, P3): entropies, use, and the divergence of student from target.
//!
//! Sources: SwAV (Caron et al. 2020), DINO (Caron et al. 2021), whose section 5.3 names both ways to collapse: one
//! prototype (entropy 0) and uniform (entropy ln K), each with KL(teacher || student) = 0.

use crate::analysis::measures::entropy;
use kernels::rows::Rows;

/// How one source's rows use the prototypes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Usage {
    /// Sum of the rows' probabilities, K values.
    pub(super) sums: Vec<f64>,
    /// Sum of the rows' entropies, in nats.
    pub(super) entropies: f64,
    pub(super) rows: u64,
}

/// A prototype counts as dead under this share of an even 1 / K.
const DEAD: f64 = 0.1;

impl Usage {
    fn empty(count: usize) -> Self {
        Self { sums: vec![0.0; count], entropies: 0.0, rows: 0 }
    }

    fn add(&mut self, row: &[f64]) {
        for (sum, p) in self.sums.iter_mut().zip(row) {
            *sum += p;
        }
        self.entropies += entropy(row.iter().copied());
        self.rows += 1;
    }

    /// Adds the rows of another source with the same number of prototypes.
    pub(super) fn merge(&mut self, other: &Usage) {
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            *mine += theirs;
        }
        self.entropies += other.entropies;
        self.rows += other.rows;
    }

    /// h, the mean entropy of a row.
    pub(super) fn entropy(&self) -> f64 {
        self.entropies / self.rows as f64
    }

    pub(super) fn marginal_entropy(&self) -> f64 {
        entropy(self.sums.iter().map(|sum| sum / self.rows as f64))
    }

    pub(super) fn largest_share(&self) -> f64 {
        self.sums.iter().fold(0.0, |most: f64, sum| most.max(*sum)) / self.rows as f64
    }

    /// Perplexity of the mean row over K.
    pub(super) fn usage(&self) -> f64 {
        self.marginal_entropy().exp() / self.sums.len() as f64
    }

    /// Perplexity over the largest possible one: n rows of perplexity exp(h) cover at most n exp(h) prototypes.
    pub(super) fn usage_share(&self) -> f64 {
        let reachable = (self.rows as f64 * self.entropy().exp()).min(self.sums.len() as f64);
        self.marginal_entropy().exp() / reachable
    }

    pub(super) fn dead_share(&self) -> f64 {
        let limit = DEAD / self.sums.len() as f64 * self.rows as f64;
        self.sums.iter().filter(|sum| **sum < limit).count() as f64 / self.sums.len() as f64
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Assignments {
    pub(super) student: Option<Usage>,
    pub(super) target: Option<Usage>,
    /// Sum of KL(target || student) over rows that have both, and their number.
    divergence: (f64, u64),
}

impl Assignments {
    /// Adds one view's rows. Each source gives a row's probabilities; both were checked to have the same number of
    /// rows.
    pub(super) fn add(&mut self, student: Option<&Probabilities<'_>>, target: Option<&Probabilities<'_>>) {
        let Some(any) = student.or(target) else { return };
        let count = any.scores.dim();
        let (mut p, mut q) = (vec![0.0; count], vec![0.0; count]);
        for index in 0..any.scores.len() {
            if let Some(student) = student {
                student.read(index, &mut p);
                self.student.get_or_insert_with(|| Usage::empty(count)).add(&p);
            }
            if let Some(target) = target {
                target.read(index, &mut q);
                self.target.get_or_insert_with(|| Usage::empty(count)).add(&q);
            }
            if let (Some(student), Some(_)) = (student, target) {
                self.divergence.0 += student.divergence_from(index, &q, &p);
                self.divergence.1 += 1;
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Assignments) {
        let count = other.student.as_ref().or(other.target.as_ref()).map_or(0, |usage| usage.sums.len());
        if !self.fits(count) {
            return; // the other worker has other prototypes
        }
        for (mine, theirs) in [(&mut self.student, &other.student), (&mut self.target, &other.target)] {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.merge(theirs),
                (mine, theirs) => *mine = mine.take().or_else(|| theirs.clone()),
            }
        }
        self.divergence = (self.divergence.0 + other.divergence.0, self.divergence.1 + other.divergence.1);
    }

    pub(super) fn divergence(&self) -> Option<f64> {
        (self.divergence.1 > 0).then(|| (self.divergence.0 / self.divergence.1 as f64).max(0.0))
    }

    pub(super) fn fits(&self, count: usize) -> bool {
        [&self.student, &self.target].into_iter().flatten().all(|usage| usage.sums.len() == count)
    }
}

pub(super) struct Probabilities<'a> {
    /// N x K.
    pub(super) scores: &'a Rows,
    /// softmax((scores - center) / temperature); `None` if the scores are already probabilities.
    pub(super) softmax: Option<Softmax<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct Softmax<'a> {
    pub(super) temperature: f64,
    pub(super) center: Option<&'a [f64]>,
}

impl Probabilities<'_> {
    fn read(&self, index: usize, out: &mut [f64]) {
        self.scores.read(index, 1, out);
        let Some(softmax) = self.softmax else {
            let sum: f64 = out.iter().sum();
            out.iter_mut().for_each(|p| *p /= sum);
            return;
        };
        softmax.scale(out);
        let log_sum = log_sum_exp(out);
        out.iter_mut().for_each(|x| *x = (*x - log_sum).exp());
    }

    /// KL(q || p) of row `index`, where `read` gave `p`. Computed from the scores, so that a p rounded to 0 gives a
    /// large value and not infinity.
    fn divergence_from(&self, index: usize, q: &[f64], p: &[f64]) -> f64 {
        let Some(softmax) = self.softmax else {
            return q
                .iter()
                .zip(p)
                .filter(|(q, _)| **q > 0.0)
                .map(|(q, p)| q * (q / p.max(f64::MIN_POSITIVE)).ln())
                .sum();
        };
        let mut scaled = vec![0.0; q.len()];
        self.scores.read(index, 1, &mut scaled);
        softmax.scale(&mut scaled);
        let log_sum = log_sum_exp(&scaled);
        q.iter().zip(&scaled).filter(|(q, _)| **q > 0.0).map(|(q, x)| q * (q.ln() - (x - log_sum))).sum()
    }
}

impl Softmax<'_> {
    fn scale(&self, scores: &mut [f64]) {
        for (k, x) in scores.iter_mut().enumerate() {
            let center = self.center.map_or(0.0, |center| center[k]);
            *x = (*x - center) / self.temperature;
        }
    }
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + values.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}
