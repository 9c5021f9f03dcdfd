//! One closed window, measured and judged.

use std::collections::BTreeMap;

use super::measures::{AlphaFit, Measures, RankMe};
use super::methods::{Diagnostics, LossConstant};
use super::verdict::Verdict;

/// What is published of one window of one layer.
#[derive(Clone, Debug)]
pub struct Report {
    /// The run's name.
    pub run: String,
    /// The layer's name, with the role's suffix.
    pub layer: String,
    /// The window's number.
    pub window: u64,
    /// From 1; a restarted trainer's rows for a closed window make the next.
    pub revision: u32,
    /// The greatest step pushed.
    pub step: Option<u64>,
    /// Pooled rows: samples x views.
    pub rows: u64,
    /// N.
    pub samples: u64,
    /// V.
    pub views: usize,
    /// d; 0 where scores over prototypes were all there was.
    pub dim: usize,
    /// False for a report of a window so far.
    pub closed: bool,
    /// Whether every worker's rows are in.
    pub complete: bool,
    /// RFC 3339; `None` while open.
    pub closed_at: Option<String>,
    /// The newest loss pushed.
    pub loss: Option<f64>,
    /// The measures.
    pub measures: Measures,
    /// The methods' diagnostics; of derived layers none.
    pub diagnostics: Diagnostics,
    /// The constant of the method's loss that the loss is nearest to.
    pub loss_constant: Option<LossConstant>,
    /// By what it was computed.
    pub computed: Computed,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The verdict, not latched.
    pub verdict: Verdict,
}

/// By what a report was computed.
#[derive(Clone, Debug, Default)]
pub struct Computed {
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// The kernel behind the moments.
    pub kernel: String,
    /// The eigensolver; empty where no spectrum was taken.
    pub solver: String,
    /// Whether every measure comes from all rows: false where one comes from the row sample, is an estimate or was skipped.
    pub exact: bool,
    /// Measures that are estimates, because the spectrum was too large to be solved.
    pub estimated: Vec<&'static str>,
    /// 95 % confidence intervals, or bounds by the noise floor.
    pub intervals: BTreeMap<&'static str, (f64, f64)>,
    /// Over what alpha was fitted.
    pub alpha_fit: Option<AlphaFit>,
    /// How RankMe was taken.
    pub rankme: Option<RankMe>,
    /// The thresholds in force.
    pub thresholds: Vec<(&'static str, f64)>,
}
