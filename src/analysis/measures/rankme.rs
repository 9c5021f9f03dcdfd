//! RankMe (C7; Garrido et al., arXiv 2210.02885).

use std::collections::BTreeMap;

use kernels::spectrum::Eigenvalues;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rank::entropy;
use super::table::Measured;

pub(crate) const RANKME_EPSILON: f64 = 1e-7;

/// The variant of RankMe: at least five incompatible ones are in use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RankMe {
    /// Added to each share: 1e-7 in the paper, 1e-5 in stable-pretraining.
    pub epsilon: f64,
    /// Whether the rows are centred; in the paper they are not.
    pub centered: bool,
}

impl Default for RankMe {
    fn default() -> Self {
        Self { epsilon: RANKME_EPSILON, centered: false }
    }
}

impl RankMe {
    pub(crate) fn from_scalars(scalars: &BTreeMap<&'static str, f64>) -> Self {
        Self {
            epsilon: scalars.get("rankme_epsilon").copied().unwrap_or(RANKME_EPSILON),
            centered: scalars.get("rankme_centered").is_some_and(|centered| *centered != 0.0),
        }
    }
}

/// RankMe from the eigenvalues of Z^T Z / N: singular values are sqrt(N lambda), and the ratio drops N.
///
/// The lower end of the interval takes the eigenvalues under the numeric floor as zero, the upper end as at the floor.
pub(super) fn fill(squares: &Eigenvalues, rows: u64, epsilon: f64, out: &mut Measured) {
    let count = (rows as usize).min(squares.values.len());
    let values = &squares.values[..count];
    let rankme = |squares: Vec<f64>| rankme(&squares, epsilon);
    out.measures.rankme = rankme(values.to_vec());
    let floor = squares.floor;
    if out.measures.rankme.is_some() && values.iter().any(|value| *value <= floor) {
        let with =
            |under: f64| rankme(values.iter().map(|value| if *value <= floor { under } else { *value }).collect());
        if let (Some(a), Some(b)) = (with(0.0), with(floor)) {
            out.intervals.insert("rankme".to_string(), (a.min(b), a.max(b)));
        }
    }
}

fn rankme(squares: &[f64], epsilon: f64) -> Option<f64> {
    let total: f64 = squares.iter().map(|square| square.sqrt()).sum();
    (total > 0.0).then(|| entropy(squares.iter().map(|square| square.sqrt() / total + epsilon)).exp())
}
