//! One role of a window, measured: what the diagnostics start from.

use crate::analysis::measures::Measures;
use crate::analysis::window::Accumulator;

/// One role of a window, measured.
pub struct MeasuredLayer<'a> {
    /// Its rows, reduced.
    pub rows: &'a Accumulator,
    /// Its measures.
    pub measures: &'a Measures,
    /// Its eigenvalues, descending, where they could be had.
    pub eigenvalues: Option<&'a [f64]>,
}

/// tr Sigma within which products of two covariances neither over- nor underflow.
pub(super) const SOLVABLE: std::ops::Range<f64> = 1e-120..1e120;
