//! One kernel call as sent to a worker: operands, the shapes of the results, and the cost in time and memory.
//!
//! Must not: compute.

use kernels::backend::CenteredRows;
use kernels::word::Word;
use std::io;

use nalgebra::DMatrix;

use super::frames::{KernelName, Layout, PrecisionWord};
use super::memory::Cursor;
use kernels::provenance::Precision;
use kernels::rows::{Order, Rows};

/// Multiply-adds per second that any device is expected to do: a slow core does several times that.
const SLOWEST: f64 = 1e9;

/// The least bytes per second copied to and from a worker.
const SLOWEST_COPY: f64 = 100e6;

pub enum Operand<'a> {
    Rows(&'a Rows),
    Matrix(&'a DMatrix<f64>),
    Vector(&'a [f64]),
}

pub struct KernelCall<'a> {
    pub kernel: KernelName,
    pub operands: Vec<Operand<'a>>,
    pub results: Vec<usize>,
    work: f64,
    /// The most f64 values that the device holds at a time, besides the operands.
    held: usize,
}

impl<'a> KernelCall<'a> {
    /// [`kernels::backend::Backend::moments`]: the mean, the packed scatter, and the measured errors of its entries (k,
    /// k + 1), which are zero if all sums were in f64.
    pub(crate) fn moments(rows: &'a Rows, precision: Precision) -> Self {
        let (n, d) = (rows.len(), rows.dim());
        let precision = match precision {
            Precision::Auto => PrecisionWord::Auto,
            Precision::F64 => PrecisionWord::F64,
            Precision::Fast => PrecisionWord::Fast,
        };
        Self {
            kernel: KernelName::Moments { precision },
            operands: vec![Operand::Rows(rows)],
            results: vec![d, d * (d + 1) / 2, d - 1],
            work: product(n, d, d),
            // Two scatters, a product and an outer product; three copies of a block of 512 rows.
            held: 4 * d * d + 1536 * d,
        }
    }

    /// [`kernels::backend::Backend::cross`].
    pub fn cross(a: CenteredRows<'a>, b: CenteredRows<'a>) -> Self {
        let (n, d) = (a.rows.len(), a.rows.dim());
        let means = [a, b].map(|of| Operand::Vector(of.moments.mean()));
        Self {
            kernel: KernelName::Cross,
            operands: [a, b].map(|of| Operand::Rows(of.rows)).into_iter().chain(means).collect(),
            results: vec![d * d],
            work: product(n, d, d),
            held: 2 * d * d + 2048 * d,
        }
    }

    pub(crate) fn gram(x: &'a DMatrix<f64>, outer: bool) -> Self {
        let (n, deep) = if outer { (x.nrows(), x.ncols()) } else { (x.ncols(), x.nrows()) };
        Self {
            kernel: KernelName::Gram { outer },
            operands: vec![Operand::Matrix(x)],
            results: vec![n * n],
            work: product(n, n, deep),
            held: n * n + x.len(),
        }
    }

    pub(crate) fn inner(a: &'a DMatrix<f64>, b: &'a DMatrix<f64>) -> Self {
        let (n, m) = (a.ncols(), b.ncols());
        Self {
            kernel: KernelName::Inner,
            operands: vec![Operand::Matrix(a), Operand::Matrix(b)],
            results: vec![n * m],
            work: product(n, m, a.nrows()),
            held: n * m + a.len() + b.len(),
        }
    }

    /// [`kernels::backend::Backend::eigenvalues`]: 4/3 d^3 for the reduction to a tridiagonal matrix.
    pub(crate) fn eigenvalues(symmetric: &'a DMatrix<f64>) -> Self {
        let d = symmetric.nrows();
        Self {
            kernel: KernelName::Eigenvalues,
            operands: vec![Operand::Matrix(symmetric)],
            results: vec![d],
            work: 1.4 * product(d, d, d),
            // The matrix, the solver's copy and its workspace.
            held: 3 * d * d,
        }
    }

    /// [`kernels::backend::Backend::eigenvectors`]: values and vectors; about 9 d^3 in all.
    pub(crate) fn eigenvectors(symmetric: &'a DMatrix<f64>) -> Self {
        let d = symmetric.nrows();
        Self {
            kernel: KernelName::Eigenvectors,
            operands: vec![Operand::Matrix(symmetric)],
            results: vec![d, d * d],
            work: 9.0 * product(d, d, d),
            held: 6 * d * d,
        }
    }

    pub(crate) fn whiten(a: &'a DMatrix<f64>, b: &'a DMatrix<f64>) -> Self {
        let (dim, columns) = b.shape();
        Self {
            kernel: KernelName::Whiten,
            operands: vec![Operand::Matrix(a), Operand::Matrix(b)],
            results: vec![dim * columns],
            work: product(dim, dim, dim) + product(dim, dim, columns),
            held: 3 * dim * dim + 3 * b.len(),
        }
    }

    /// Seconds that a slow device may take.
    pub(crate) fn seconds(&self) -> f64 {
        let results: usize = self.results.iter().sum();
        let sent: usize = self.operands.iter().map(Operand::bytes).sum();
        self.work / SLOWEST + (sent + 8 * results) as f64 / SLOWEST_COPY
    }

    /// Bytes of device memory for the call. At most `slab` bytes of rows are there at a time, but at least 512 rows.
    pub(crate) fn device_bytes(&self, slab: usize) -> usize {
        let rows: usize = self.operands.iter().map(|operand| operand.bytes_held(slab)).sum();
        rows + 8 * self.held
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operands.iter().any(|operand| operand.bytes() == 0)
    }

    pub(crate) fn layouts(&self) -> Vec<Layout> {
        self.operands.iter().map(Operand::layout).collect()
    }

    /// Writes the operands to the shared memory.
    pub(crate) fn write(&self, mut to: Cursor<'_>) -> io::Result<()> {
        for operand in &self.operands {
            match operand {
                Operand::Rows(rows) => to.put(rows.bytes())?,
                Operand::Matrix(matrix) => to.put_numbers(matrix.as_slice())?,
                Operand::Vector(values) => to.put_numbers(values)?,
            }
        }
        Ok(())
    }
}

impl Operand<'_> {
    fn layout(&self) -> Layout {
        match self {
            Operand::Rows(rows) => Layout::Rows {
                float: rows.float().word().to_string(),
                row_major: rows.order() == Order::RowMajor,
                rows: rows.len(),
                dim: rows.dim(),
            },
            Operand::Matrix(matrix) => Layout::Matrix { rows: matrix.nrows(), columns: matrix.ncols() },
            Operand::Vector(values) => Layout::Matrix { rows: values.len(), columns: 1 },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Operand::Rows(rows) => rows.bytes().len(),
            Operand::Matrix(matrix) => 8 * matrix.len(),
            Operand::Vector(values) => 8 * values.len(),
        }
    }

    fn bytes_held(&self, slab: usize) -> usize {
        match self {
            Operand::Rows(rows) => slab.max(512 * rows.dim() * rows.float().size()).min(rows.bytes().len()),
            Operand::Matrix(_) | Operand::Vector(_) => 0,
        }
    }
}

fn product(a: usize, b: usize, c: usize) -> f64 {
    a as f64 * b as f64 * c as f64
}
