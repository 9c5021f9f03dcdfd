//! One role of a window, measured: the diagnostics start from it.

use crate::analysis::measures::Measures;
use crate::analysis::window::Accumulator;

pub(crate) struct MeasuredLayer<'a> {
    pub rows: &'a Accumulator,
    pub measures: &'a Measures,
    /// Its eigenvalues, descending, if available.
    pub eigenvalues: Option<&'a [f64]>,
}

/// Products of two covariances neither over- nor underflow if tr Sigma is in this range.
pub(super) const SOLVABLE: std::ops::Range<f64> = 1e-120..1e120;
