//! The role of a set of rows in its layer.

use serde::{Deserialize, Serialize};

/// The role of a set of rows in its layer. Every role but `Embedding` is a derived layer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// `z`, or `z1 z2 ...`: the layer itself.
    #[serde(rename = "")]
    Embedding,
    /// `teacher1 ...`.
    #[serde(rename = ":teacher")]
    Teacher,
    /// `prediction1 ...`.
    #[serde(rename = ":prediction")]
    Prediction,
    /// `pre_bn`.
    #[serde(rename = ":pre_bn")]
    PreBn,
}

impl Role {
    /// The suffix of the layer's name, such as `:teacher`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Role::Embedding => "",
            Role::Teacher => ":teacher",
            Role::Prediction => ":prediction",
            Role::PreBn => ":pre_bn",
        }
    }
}
