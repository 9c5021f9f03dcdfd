//! Cosines of different rows of one batch, compared with the regular simplex (T7), where all are -1 / (N - 1).

use nalgebra::DMatrix;

use super::kernels::DiagnosticKernels;
use super::table::SimplexDiagnostics;
use kernels::rows::Rows;

/// Rows of a batch that are compared: the cost is N^2 cosines.
const MOST_ROWS: usize = 512;

/// Sums over pairs of different rows, each pair twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cosines {
    sum: f64,
    squares: f64,
    pairs: f64,
    rows: usize,
}

impl Cosines {
    /// Over the first rows of one view of a batch; `None` if fewer than two have a direction.
    pub(super) fn from_view(view: &Rows, kernels: &DiagnosticKernels<'_>) -> Result<Option<Self>, String> {
        let dim = view.dim();
        let mut columns = Vec::new();
        let mut row = vec![0.0; dim];
        for index in 0..view.len().min(MOST_ROWS) {
            view.read(index, 1, &mut row);
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if norm > 0.0 {
                columns.extend(row.iter().map(|x| x / norm));
            }
        }
        let rows = columns.len() / dim;
        if rows < 2 {
            return Ok(None);
        }
        let unit = DMatrix::from_vec(dim, rows, columns);
        let cosines = (kernels.inner)(&unit, &unit)?;
        let (mut sum, mut squares) = (0.0, 0.0);
        for (j, column) in cosines.column_iter().enumerate() {
            for (_, cosine) in column.iter().enumerate().filter(|(i, _)| *i != j) {
                sum += cosine;
                squares += cosine * cosine;
            }
        }
        Ok(Some(Self { sum, squares, pairs: (rows * (rows - 1)) as f64, rows: view.len() }))
    }

    pub(super) fn merge(&mut self, other: &Cosines) {
        self.sum += other.sum;
        self.squares += other.squares;
        self.pairs += other.pairs;
        self.rows = self.rows.min(other.rows);
    }

    pub(super) fn values(&self) -> SimplexDiagnostics {
        let mean = self.sum / self.pairs;
        let variance = (self.squares / self.pairs - mean * mean).max(0.0);
        SimplexDiagnostics {
            mean_cosine: Some(mean),
            cosine_spread: Some(variance.sqrt()),
            null: Some(-1.0 / (self.rows as f64 - 1.0)),
        }
    }
}
