//! What a push means: its tensors sorted by role and checked once.
//!
//! Guarantees: an [`EmbeddingBatch`] is always valid (known names, aligned rows, one dimension per layer, finite
//! values). Must not: merge, measure, or know where the tensors came from.

use kernels::rows::Rows;

use super::arrays::{MAX_DIM, matrix};
use super::companions::{self, Companions};
use super::decode::error::DecodeError;
use super::decode::tensor::Tensor;
use super::parameters::Parameters;
use super::part::{Part, Payload};
use super::pushed::PushedMoments;
use super::role::Role;
use super::text::shorten;

pub(crate) const MAX_VIEWS: usize = 64;

/// One valid push.
#[derive(Clone, Debug)]
pub struct EmbeddingBatch {
    /// By role, `Embedding` first if it was sent; empty if the push holds only scores over prototypes.
    pub parts: Vec<Part>,
    /// Where the push belongs and what its method needs.
    pub parameters: Parameters,
    pub(crate) companions: Companions,
}

const MOMENTS: [&str; 6] = ["count", "mean", "m2", "unit_mean", "unit_variance", "unit_m2"];

impl EmbeddingBatch {
    /// Sorts tensors into roles and checks everything that does not depend on the run.
    pub fn new(tensors: Vec<Tensor>, parameters: Parameters) -> Result<Self, DecodeError> {
        parameters.check()?;
        let mut sorted = Sorted::default();
        for tensor in tensors {
            sorted.place(tensor)?;
        }
        let mut parts = Vec::new();
        for (role, views) in sorted.views {
            let mut views_sent: Vec<usize> = views.iter().map(|(number, _)| (*number).max(1)).collect();
            views_sent.sort_unstable();
            parts.push(Part { role, payload: Payload::Views(align(role, views)?), views_sent });
        }
        if !sorted.moments.is_empty() {
            if parts.iter().any(|part| part.role == Role::Embedding) {
                return Err(DecodeError::Malformed(
                    "both rows and moments were sent: send z, or count, mean and m2".into(),
                ));
            }
            let pushed = PushedMoments::from_tensors(&sorted.moments)?;
            parts.insert(
                0,
                Part { role: Role::Embedding, payload: Payload::Moments(Box::new(pushed)), views_sent: Vec::new() },
            );
        }
        let companions = Companions::new(sorted.companions, &parts)?;
        if parts.is_empty() && companions.samples().is_none() {
            return Err(DecodeError::Malformed(
                "no embeddings: send z, or z1 and z2, or count, mean and m2 (or teacher1, prediction1, pre_bn, logits1, teacher_logits1, codes1)".into(),
            ));
        }
        Ok(Self { parts, parameters, companions })
    }

    /// The rows of a role and the view number of each array; `None` if no rows were sent for it.
    pub fn views(&self, role: Role) -> Option<(&[Rows], &[usize])> {
        let part = self.parts.iter().find(|part| part.role == role)?;
        match &part.payload {
            Payload::Views(views) => Some((views, &part.views_sent)),
            Payload::Moments(_) => None,
        }
    }

    /// The layers that the push reports on: the one pushed to, `layer`, and those derived from it.
    pub fn layers(&self, layer: &str) -> Vec<String> {
        let mut layers: Vec<String> = self.parts.iter().map(|part| format!("{layer}{}", part.role.suffix())).collect();
        if self.companions.samples().is_some() && !layers.iter().any(|known| known == layer) {
            layers.push(layer.to_string());
        }
        layers
    }

    /// Pooled rows of the first role; for a push without rows, rows of scores.
    pub fn rows(&self) -> u64 {
        let scores = || self.companions.samples().unwrap_or(0) * self.companions.score_views();
        self.parts.first().map_or_else(|| scores() as u64, Part::rows)
    }
}

#[derive(Default)]
struct Sorted {
    /// By role, in role order: (view number, 0 for the unnumbered name; rows).
    views: std::collections::BTreeMap<Role, Vec<(usize, Tensor)>>,
    moments: Vec<Tensor>,
    /// (stem, number, tensor)
    companions: Vec<(String, usize, Tensor)>,
}

impl Sorted {
    fn place(&mut self, tensor: Tensor) -> Result<(), DecodeError> {
        let name = tensor.name.as_str();
        if MOMENTS.contains(&name) {
            self.moments.push(tensor);
            return Ok(());
        }
        let (stem, number) = split_number(name);
        if companions::is_companion(name, stem, number.is_some()) {
            self.companions.push((stem.to_string(), number.unwrap_or(0), tensor));
            return Ok(());
        }
        let role = match (stem, number) {
            ("z", _) => Role::Embedding,
            ("teacher", Some(_)) => Role::Teacher,
            ("prediction", Some(_)) => Role::Prediction,
            ("pre_bn", None) => Role::PreBn,
            _ => {
                return Err(DecodeError::Malformed(format!(
                    "unknown tensor '{}': expected one of: z, z1 z2 ..., teacher1 ..., prediction1 ..., pre_bn, {}, {}",
                    shorten(name),
                    companions::known(),
                    MOMENTS.join(", ")
                )));
            }
        };
        self.views.entry(role).or_default().push((number.unwrap_or(0), tensor));
        Ok(())
    }
}

/// Splits `z12` into (`z`, 12). A number with a leading zero does not count as one.
fn split_number(name: &str) -> (&str, Option<usize>) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[stem.len()..];
    match digits.parse() {
        Ok(number) if !digits.starts_with('0') => (stem, Some(number)),
        _ if digits.is_empty() => (stem, None),
        _ => (name, None),
    }
}

/// Views in order, all of one shape, all values finite.
fn align(role: Role, mut numbered: Vec<(usize, Tensor)>) -> Result<Vec<Rows>, DecodeError> {
    numbered.sort_by_key(|(number, _)| *number);
    if numbered.len() > MAX_VIEWS {
        return Err(DecodeError::TooLarge {
            what: format!("{} views in one push", numbered.len()),
            limit: MAX_VIEWS as u64,
        });
    }
    let alone = numbered.len() == 1 && numbered[0].0 == 0;
    for (index, (number, tensor)) in numbered.iter().enumerate() {
        // A teacher may be sent for any one view: the numbers must be complete only for a layer's own views.
        if !alone && role == Role::Embedding && *number != index + 1 {
            return Err(DecodeError::Malformed(format!(
                "view {} is missing before {}: number the views z1, z2, ... or send one z",
                index + 1,
                tensor.name
            )));
        }
    }
    let mut views: Vec<Rows> = Vec::new();
    for (_, tensor) in numbered {
        let name = tensor.name.clone();
        let rows = matrix(tensor, MAX_DIM)?;
        if let Some(first) = views.first()
            && (first.len(), first.dim()) != (rows.len(), rows.dim())
        {
            return Err(DecodeError::WrongLength(format!(
                "{name} is {} x {} but the view before it is {} x {}: views must be aligned row by row",
                rows.len(),
                rows.dim(),
                first.len(),
                first.dim()
            )));
        }
        views.push(rows);
    }
    Ok(views)
}
