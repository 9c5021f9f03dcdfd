//! A run's best windows: what is kept of them, and how the baseline is computed.

use serde::{Deserialize, Serialize};

use super::judgement::JudgedWindow;

/// The run's best values since warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The largest rolling median of five of entropy_rank / null.
    pub rank: f64,
    /// The smallest number of samples in those five windows.
    pub samples: u64,
    /// The smallest rolling median of five of the tail, in decades.
    pub tail: Option<f64>,
    /// The largest rolling medians of five of (1 - mean_cosine, scaled_std, relative_variance).
    pub spread: Option<(f64, f64, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenWindow {
    /// entropy_rank / null.
    pub rank: Option<f64>,
    pub samples: u64,
    /// In decades.
    pub tail: Option<f64>,
    /// 1 - mean_cosine, scaled_std, relative_variance.
    pub spread: Option<(f64, f64, f64)>,
}

/// Decades from the first to the median eigenvalue; if the median is under the noise floor, at least those to the
/// floor. In an estimated spectrum a missing median could be anywhere, so the tail is `None`.
pub(super) fn tail(w: &JudgedWindow<'_>) -> Option<f64> {
    let m = w.measures;
    m.log10_top_to_median.or_else(|| {
        if w.rank_at_best.is_some() {
            return None;
        }
        let (total, intrinsic, floor) = (m.total_variance?, m.intrinsic_dimension?, m.noise_floor?);
        (floor > 0.0).then(|| (total / intrinsic / floor).log10())
    })
}
