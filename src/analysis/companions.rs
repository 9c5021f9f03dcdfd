//! Tensors that accompany the rows of a push but are not layers of their own: scores over prototypes, negatives, ids,
//! labels, weights. The methods' diagnostics read them.
//!
//! Guarantees: a [`Companions`] is always valid: types, shapes and lengths agree with the rows and with each other.
//! Must not: measure.

use std::collections::BTreeMap;

use super::arrays::{MAX_DIM, matrix, values};
use super::decode::error::DecodeError;
use super::decode::tensor::{Element, Tensor};
use super::part::{Part, Payload};
use super::role::Role;
use kernels::rows::Rows;

/// The most prototypes K: three sums of K numbers per worker take 24 MiB.
pub(crate) const MAX_PROTOTYPES: usize = 1 << 20;

/// The widest weight matrix: its d x d products are decomposed.
pub(crate) const MAX_WEIGHT_DIM: usize = 2048;

/// The most pushed edges per row.
pub(crate) const MAX_EDGES_PER_ROW: usize = 64;

/// The companion tensors of one push. N is the number of rows of a view; maps are keyed by the number in the tensor's
/// name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Companions {
    /// `logits1 ...`: the student's scores over K prototypes, N x K.
    pub logits: BTreeMap<usize, Rows>,
    /// `teacher_logits1 ...`: the teacher's, before centring, N x K.
    pub teacher_logits: BTreeMap<usize, Rows>,
    /// `codes1 ...`: target probabilities over K prototypes, N x K.
    pub codes: BTreeMap<usize, Rows>,
    /// `negative1 ...`: embeddings of other samples, N x d.
    pub negatives: BTreeMap<usize, Rows>,
    /// The vector subtracted from the teacher's scores, K values.
    pub center: Option<Vec<f64>>,
    /// The prototypes, K x d.
    pub prototype_weight: Option<Rows>,
    /// The weight of a linear predictor, p = W z, d x d.
    pub predictor_weight: Option<Rows>,
    /// The sample of each row, N values: rows with the same id are views of one sample.
    pub ids: Option<Vec<i64>>,
    /// The class of each row, N values.
    pub labels: Option<Vec<i64>>,
    /// The index of each row's nearest neighbour in the support set, N values.
    pub neighbors: Option<Vec<i64>>,
    /// Pairs of related rows: row i of view v (from 0) is node v N + i.
    pub edges: Option<Vec<(usize, usize)>>,
}

/// Names of unnumbered tensors, and whether they hold indices.
const SINGLE: [(&str, bool); 7] = [
    ("center", false),
    ("prototype_weight", false),
    ("predictor_weight", false),
    ("ids", true),
    ("labels", true),
    ("neighbors", true),
    ("edges", true),
];

const NUMBERED: [&str; 4] = ["negative", "logits", "teacher_logits", "codes"];

pub(super) fn known() -> String {
    let numbered = NUMBERED.map(|stem| format!("{stem}1 ..."));
    let single = SINGLE.map(|(name, _)| name.to_string());
    [numbered.as_slice(), single.as_slice()].concat().join(", ")
}

pub(super) fn is_companion(name: &str, stem: &str, numbered: bool) -> bool {
    SINGLE.iter().any(|(single, _)| *single == name) || (numbered && NUMBERED.contains(&stem))
}

pub(crate) fn holds_indices(name: &str) -> bool {
    SINGLE.iter().any(|(single, indices)| *single == name && *indices)
}

impl Companions {
    /// From (stem, number, tensor) triples; the number is 0 if the name has none.
    pub(super) fn new(tensors: Vec<(String, usize, Tensor)>, parts: &[Part]) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for (stem, number, tensor) in tensors {
            found.place(&stem, number, tensor)?;
        }
        found.check_scores()?;
        found.check_rows(parts)?;
        found.check_weights(parts)?;
        Ok(found)
    }

    fn place(&mut self, stem: &str, number: usize, tensor: Tensor) -> Result<(), DecodeError> {
        check_type(&tensor)?;
        match stem {
            "logits" => drop(self.logits.insert(number, matrix(tensor, MAX_PROTOTYPES)?)),
            "teacher_logits" => drop(self.teacher_logits.insert(number, matrix(tensor, MAX_PROTOTYPES)?)),
            "codes" => drop(self.codes.insert(number, matrix(tensor, MAX_PROTOTYPES)?)),
            "negative" => drop(self.negatives.insert(number, matrix(tensor, MAX_DIM)?)),
            "prototype_weight" => self.prototype_weight = Some(matrix(tensor, MAX_DIM)?),
            "predictor_weight" => self.predictor_weight = Some(matrix(tensor, MAX_DIM)?),
            "center" => self.center = Some(values(&tensor)?),
            "ids" => self.ids = Some(integers(&tensor)?),
            "labels" => self.labels = Some(integers(&tensor)?),
            "neighbors" => self.neighbors = Some(integers(&tensor)?),
            _ => self.edges = Some(pairs(&tensor)?),
        }
        Ok(())
    }

    /// The rows of a view, if scores were sent.
    pub(crate) fn samples(&self) -> Option<usize> {
        self.scores().next().map(|(_, rows)| rows.len())
    }

    pub(crate) fn score_views(&self) -> usize {
        self.logits.len().max(self.teacher_logits.len()).max(self.codes.len())
    }

    /// K, if scores were sent.
    pub(crate) fn prototypes(&self) -> Option<usize> {
        self.scores().next().map(|(_, rows)| rows.dim())
    }

    fn scores(&self) -> impl Iterator<Item = (String, &Rows)> {
        let logits = self.logits.iter().map(|(number, rows)| (format!("logits{number}"), rows));
        let teacher = self.teacher_logits.iter().map(|(number, rows)| (format!("teacher_logits{number}"), rows));
        let codes = self.codes.iter().map(|(number, rows)| (format!("codes{number}"), rows));
        logits.chain(teacher).chain(codes)
    }

    fn check_scores(&self) -> Result<(), DecodeError> {
        let Some(count) = self.prototypes() else {
            return Ok(());
        };
        for (name, rows) in self.scores() {
            if rows.dim() != count {
                return Err(DecodeError::WrongLength(format!(
                    "tensor {name} has {} columns but others over the prototypes have {count}: one column per prototype",
                    rows.dim()
                )));
            }
        }
        for (number, rows) in &self.codes {
            check_probabilities(&format!("codes{number}"), rows)?;
        }
        let lengths = [
            ("center", self.center.as_ref().map(Vec::len)),
            ("prototype_weight", self.prototype_weight.as_ref().map(Rows::len)),
        ];
        for (name, length) in lengths {
            if let Some(length) = length.filter(|length| *length != count) {
                return Err(DecodeError::WrongLength(format!(
                    "tensor {name} has {length} rows but the scores are over {count} prototypes: one row per prototype"
                )));
            }
        }
        Ok(())
    }

    fn check_rows(&self, parts: &[Part]) -> Result<(), DecodeError> {
        // The layer before batch norm may have other rows.
        let of_part = parts.iter().filter(|part| part.role != Role::PreBn).find_map(|part| match &part.payload {
            Payload::Views(views) => Some(views[0].len()),
            Payload::Moments(_) => None,
        });
        let Some(samples) = of_part.or(self.samples()) else { return Ok(()) };
        let mut lengths: Vec<(String, usize)> = self.scores().map(|(name, rows)| (name, rows.len())).collect();
        lengths.extend(self.negatives.iter().map(|(number, rows)| (format!("negative{number}"), rows.len())));
        for (name, indices) in [("ids", &self.ids), ("labels", &self.labels), ("neighbors", &self.neighbors)] {
            lengths.extend(indices.as_ref().map(|indices| (name.to_string(), indices.len())));
        }
        for (name, length) in lengths {
            if length != samples {
                return Err(DecodeError::WrongLength(format!(
                    "tensor {name} has {length} rows but the embeddings have {samples}: they must be aligned"
                )));
            }
        }
        let views = parts.iter().find(|part| part.role == Role::Embedding).map_or(1, Part::views);
        let nodes = samples * views;
        let most = MAX_EDGES_PER_ROW * nodes;
        if let Some(edges) = self.edges.as_ref().filter(|edges| edges.len() > most) {
            return Err(DecodeError::TooLarge {
                what: format!("{} edges between {nodes} rows: send the nearest of each", edges.len()),
                limit: most as u64,
            });
        }
        let beyond = self.edges.iter().flatten().find(|(a, b)| *a >= nodes || *b >= nodes);
        match beyond {
            None => Ok(()),
            Some((a, b)) => Err(DecodeError::WrongLength(format!(
                "edge ({a}, {b}) names a row beyond the {nodes} of this push: row i of view v (from 0) is v N + i"
            ))),
        }
    }

    fn check_weights(&self, parts: &[Part]) -> Result<(), DecodeError> {
        for (name, weight) in
            [("predictor_weight", &self.predictor_weight), ("prototype_weight", &self.prototype_weight)]
        {
            if let Some(weight) = weight.as_ref().filter(|weight| weight.dim() > MAX_WEIGHT_DIM) {
                return Err(DecodeError::TooLarge {
                    what: format!("tensor {name} is {} x {}: leave it out", weight.len(), weight.dim()),
                    limit: MAX_WEIGHT_DIM as u64,
                });
            }
        }
        if let Some(weight) = self.predictor_weight.as_ref().filter(|weight| weight.len() != weight.dim()) {
            return Err(wrong_width("predictor_weight", weight, weight.dim()));
        }
        let Some(dim) = parts.iter().find(|part| part.role == Role::Embedding).map(Part::dim) else {
            return Ok(());
        };
        for (number, rows) in &self.negatives {
            if rows.dim() != dim {
                return Err(wrong_width(&format!("negative{number}"), rows, dim));
            }
        }
        // Prototypes may live in another space than z: DINO's come after its bottleneck.
        match &self.predictor_weight {
            Some(weight) if (weight.len(), weight.dim()) != (dim, dim) => {
                Err(wrong_width("predictor_weight", weight, dim))
            }
            _ => Ok(()),
        }
    }
}

fn wrong_width(name: &str, rows: &Rows, dim: usize) -> DecodeError {
    DecodeError::WrongLength(format!(
        "tensor {name} is {} x {} but the embeddings have dimension {dim}",
        rows.len(),
        rows.dim()
    ))
}

fn check_type(tensor: &Tensor) -> Result<(), DecodeError> {
    let name = tensor.name.as_str();
    let wanted_indices = holds_indices(name);
    if matches!(tensor.element, Element::Float(_)) == wanted_indices {
        let wanted = if wanted_indices { "I64 or I32" } else { "F64, F32, F16 or BF16" };
        return Err(DecodeError::UnsupportedType(format!("tensor {name} must be {wanted}")));
    }
    let expected_rank = if matches!(name, "center" | "ids" | "labels" | "neighbors") { 1 } else { 2 };
    if tensor.shape.len() != expected_rank {
        return Err(DecodeError::Malformed(format!(
            "tensor {name} has shape {:?}: it must have {expected_rank} dimension(s)",
            tensor.shape
        )));
    }
    if tensor.shape.contains(&0) && name != "edges" {
        return Err(DecodeError::Malformed(format!("tensor {name} is empty: leave it out")));
    }
    Ok(())
}

/// If the rows are not probabilities, their entropies mean nothing.
fn check_probabilities(name: &str, rows: &Rows) -> Result<(), DecodeError> {
    // Each value is rounded by u relative to itself, so the sum is too; a half-precision softmax adds its own error.
    let tolerance = 0.01 + 4.0 * rows.float().unit_roundoff();
    let mut row = vec![0.0; rows.dim()];
    for index in 0..rows.len() {
        rows.read(index, 1, &mut row);
        let sum: f64 = row.iter().sum();
        if row.iter().any(|p| *p < 0.0) || (sum - 1.0).abs() > tolerance {
            return Err(DecodeError::Malformed(format!(
                "row {index} of {name} sums to {sum:.4} or holds a negative value: codes are probabilities over the prototypes, one row per sample"
            )));
        }
    }
    Ok(())
}

fn integers(tensor: &Tensor) -> Result<Vec<i64>, DecodeError> {
    match tensor.element {
        Element::I64 => Ok(tensor.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        Element::I32 => Ok(tensor.bytes.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect()),
        Element::Float(_) => Err(DecodeError::UnsupportedType(format!("tensor {} must be I64 or I32", tensor.name))),
    }
}

fn pairs(tensor: &Tensor) -> Result<Vec<(usize, usize)>, DecodeError> {
    if tensor.shape[1] != 2 {
        return Err(DecodeError::Malformed(format!(
            "tensor edges has shape {:?}: it must be E x 2, one pair of rows per line",
            tensor.shape
        )));
    }
    let flat = integers(tensor)?;
    let node = |index: i64| {
        usize::try_from(index)
            .map_err(|_| DecodeError::Malformed(format!("tensor edges holds {index}: rows are numbered from 0")))
    };
    flat.chunks_exact(2).map(|pair| Ok((node(pair[0])?, node(pair[1])?))).collect()
}
