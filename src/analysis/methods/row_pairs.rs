//! Sums over aligned rows of two arrays: cosines and distances.

use kernels::rows::Rows;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RowPairs {
    cosines: f64,
    /// Pairs without a zero row.
    directed: u64,
    distances: f64,
    pairs: u64,
}

impl RowPairs {
    /// Adds row i of `a` with row i of `b`. Arrays of different shapes have no aligned rows: nothing is added.
    pub(super) fn add(&mut self, a: &Rows, b: &Rows) {
        if (a.len(), a.dim()) != (b.len(), b.dim()) {
            return;
        }
        let (mut x, mut y) = (vec![0.0; a.dim()], vec![0.0; a.dim()]);
        for index in 0..a.len() {
            a.read(index, 1, &mut x);
            b.read(index, 1, &mut y);
            let (mut xx, mut yy, mut xy, mut apart) = (0.0, 0.0, 0.0, 0.0);
            for (x, y) in x.iter().zip(&y) {
                xx += x * x;
                yy += y * y;
                xy += x * y;
                apart += (x - y) * (x - y);
            }
            if xx > 0.0 && yy > 0.0 {
                self.cosines += xy / (xx.sqrt() * yy.sqrt());
                self.directed += 1;
            }
            self.distances += apart.sqrt();
            self.pairs += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &RowPairs) {
        self.cosines += other.cosines;
        self.directed += other.directed;
        self.distances += other.distances;
        self.pairs += other.pairs;
    }

    pub(super) fn cosine(&self) -> Option<f64> {
        (self.directed > 0).then(|| self.cosines / self.directed as f64)
    }

    pub(super) fn distance(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.distances / self.pairs as f64)
    }
}
