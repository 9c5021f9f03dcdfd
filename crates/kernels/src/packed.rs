//! The lower triangle of a symmetric matrix, packed: half the memory of the whole.
//!
//! Must not: hold the upper triangle, or know what the matrix is of.

use nalgebra::DMatrix;

/// The lower triangle of a symmetric d x d matrix, row-major: entry (i, j), j <= i, is at i (i + 1) / 2 + j.
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
        // Column by column, as nalgebra stores them.
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

    /// From the entries (i, 0) ..= (i, i) of the rows i = 0 .. d, in order; `None` unless there are d (d + 1) / 2 of
    /// them.
    pub fn from_rows(dim: usize, values: Vec<f64>) -> Option<Self> {
        (values.len() == dim * (dim + 1) / 2).then_some(Self { dim, values })
    }

    /// The dimension d.
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

    /// The same in units of `unit`^2: fourth powers of rows' values can overflow and underflow, shares of the trace do
    /// not.
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

    /// self += other + weight delta delta^T.
    pub(crate) fn add_scaled_outer(&mut self, other: &Packed, delta: &[f64], weight: f64) {
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

/// The power of two at or below `unit`, or the nearest one whose inverse is finite: multiplying by it loses no digit,
/// and takes much less time than dividing.
pub(crate) fn power_of_two(unit: f64) -> f64 {
    2f64.powi(unit.log2().floor().clamp(-1000.0, 1000.0) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keeps_the_frobenius_norm() {
        let full = DMatrix::from_row_slice(2, 2, &[3.0, 4.0, 4.0, 5.0]);
        let packed = Packed::from_lower(&full);
        assert_eq!(packed.frobenius_squared(), 9.0 + 16.0 + 16.0 + 25.0);
        assert_eq!(packed.trace(), 8.0);
        assert_eq!(packed.to_full(), full);
    }
}
