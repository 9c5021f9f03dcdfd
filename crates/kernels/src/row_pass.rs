//! One pass over rows for everything that is O(N d): their norms, the moments of their directions, and a sample of them.

use crate::moments::UnitMoments;
use crate::reservoir::Reservoir;
use crate::rows::Rows;
use crate::view_moments::norm;

/// Counts and norms of the rows (C0).
#[derive(Clone, Debug, PartialEq)]
pub struct RowStatistics {
    /// Rows of norm 0; they have no direction and are left out of unit-row measures.
    pub zero_rows: u64,
    /// Smallest row norm.
    pub norm_min: f64,
    /// Largest row norm.
    pub norm_max: f64,
    /// Sum of the row norms.
    pub norm_sum: f64,
    /// Whether any entry is negative; if none is, the layer comes after a ReLU.
    pub has_negative: bool,
}

impl RowStatistics {
    fn empty() -> Self {
        Self { zero_rows: 0, norm_min: f64::INFINITY, norm_max: 0.0, norm_sum: 0.0, has_negative: false }
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &RowStatistics) {
        self.zero_rows += other.zero_rows;
        self.norm_min = self.norm_min.min(other.norm_min);
        self.norm_max = self.norm_max.max(other.norm_max);
        self.norm_sum += other.norm_sum;
        self.has_negative |= other.has_negative;
    }
}

/// The results of one pass over rows.
pub struct RowPass {
    /// Moments of the rows scaled to length 1; rows of norm 0 are left out.
    pub unit: UnitMoments,
    /// Norms and counts.
    pub statistics: RowStatistics,
    /// A sample, chosen by content.
    pub reservoir: Reservoir,
}

/// Rows converted at a time.
const BLOCK: usize = 64;

impl RowPass {
    /// The results for no rows, of dimension `dim`; at most `capacity` rows are sampled.
    pub fn new(dim: usize, capacity: usize) -> Self {
        Self { unit: UnitMoments::empty(dim), statistics: RowStatistics::empty(), reservoir: Reservoir::new(capacity) }
    }

    /// Includes further rows.
    pub fn read(&mut self, rows: &Rows) {
        let dim = rows.dim();
        let mut block = vec![0.0; BLOCK * dim];
        for first in (0..rows.len()).step_by(BLOCK) {
            let count = BLOCK.min(rows.len() - first);
            rows.read(first, count, &mut block);
            for row in block[..count * dim].chunks_exact(dim) {
                self.row(row);
            }
        }
    }

    fn row(&mut self, row: &[f64]) {
        let norm = norm(row);
        let statistics = &mut self.statistics;
        statistics.norm_min = statistics.norm_min.min(norm);
        statistics.norm_max = statistics.norm_max.max(norm);
        statistics.norm_sum += norm;
        statistics.has_negative |= row.iter().any(|x| *x < 0.0);
        self.reservoir.push(row);
        if norm > 0.0 {
            self.unit.push(row.iter().map(|x| x / norm));
        } else {
            statistics.zero_rows += 1;
        }
    }
}
