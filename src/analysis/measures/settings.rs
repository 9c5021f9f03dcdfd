//! Settings of the measures that a run may choose.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Epsilon of RankMe.
const RANKME_EPSILON: f64 = 1e-7;

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
    /// As a run's parameters ask.
    pub fn from_scalars(scalars: &BTreeMap<&'static str, f64>) -> Self {
        Self {
            epsilon: scalars.get("rankme_epsilon").copied().unwrap_or(RANKME_EPSILON),
            centered: scalars.get("rankme_centered").is_some_and(|centered| *centered != 0.0),
        }
    }
}
