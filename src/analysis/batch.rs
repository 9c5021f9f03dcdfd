//! What a push means: its tensors by their roles, checked once and for all.
//!
//! Guarantees: an [`EmbeddingBatch`] exists only valid (known names, aligned rows, one dimension a layer, every value
//! finite). Must not: merge, measure, or know where the tensors came from.

use super::companions::{self, Companions};
use super::decode::{DecodeError, Element, Tensor};
use super::parameters::{Parameters, shorten};
use super::pushed::PushedMoments;
use kernels::rows::{Float, Order, Rows};
use serde::{Deserialize, Serialize};

/// The largest dimension d of a layer. 4 d (d + 1) bytes of accumulator are 1 GiB there.
pub const MAX_DIM: usize = 16_384;

/// The most views of one push.
pub const MAX_VIEWS: usize = 64;

/// What a set of rows is to its layer. Every role but `Embedding` is a derived layer of its own.
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
    /// What is added to the layer's name, such as `:teacher`.
    pub fn suffix(self) -> &'static str {
        match self {
            Role::Embedding => "",
            Role::Teacher => ":teacher",
            Role::Prediction => ":prediction",
            Role::PreBn => ":pre_bn",
        }
    }
}

/// The numbers of one role.
#[derive(Clone, Debug)]
pub enum Payload {
    /// V views of N rows each, aligned: row i of every view is the same sample.
    Views(Vec<Rows>),
    /// Moments that the trainer took itself.
    Moments(Box<PushedMoments>),
}

/// One role of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which layer of the push it belongs to.
    pub role: Role,
    /// Its numbers.
    pub payload: Payload,
    /// Which view each array is of, from 1: `teacher2` alone is of the second.
    pub views_sent: Vec<usize>,
}

impl Part {
    /// d.
    pub fn dim(&self) -> usize {
        match &self.payload {
            Payload::Views(views) => views[0].dim(),
            Payload::Moments(pushed) => pushed.moments.dim(),
        }
    }

    /// Pooled rows: N V.
    pub fn rows(&self) -> u64 {
        match &self.payload {
            Payload::Views(views) => (views[0].len() * views.len()) as u64,
            Payload::Moments(pushed) => pushed.moments.rows(),
        }
    }

    /// V; one for moments.
    pub fn views(&self) -> usize {
        match &self.payload {
            Payload::Views(views) => views.len(),
            Payload::Moments(_) => 1,
        }
    }
}

/// One push, valid.
#[derive(Clone, Debug)]
pub struct EmbeddingBatch {
    /// By role, `Embedding` first where it was sent; empty where scores over prototypes are all there is.
    pub parts: Vec<Part>,
    /// Where it belongs and what the method needs.
    pub parameters: Parameters,
    /// What goes with the rows.
    pub companions: Companions,
}

/// The tensors of pushed moments.
const MOMENTS: [&str; 6] = ["count", "mean", "m2", "unit_mean", "unit_variance", "unit_m2"];

impl EmbeddingBatch {
    /// Sorts tensors into roles and checks everything that can be checked without knowing the run.
    ///
    /// # Errors
    /// Any [`DecodeError`].
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

    /// The rows of a role, with which view each array is of; `None` where they were not sent as rows.
    pub fn views(&self, role: Role) -> Option<(&[Rows], &[usize])> {
        let part = self.parts.iter().find(|part| part.role == role)?;
        match &part.payload {
            Payload::Views(views) => Some((views, &part.views_sent)),
            Payload::Moments(_) => None,
        }
    }

    /// The layers that get a report of it: the one pushed to, `layer`, and those derived from it.
    pub fn layers(&self, layer: &str) -> Vec<String> {
        let mut layers: Vec<String> = self.parts.iter().map(|part| format!("{layer}{}", part.role.suffix())).collect();
        if self.companions.samples().is_some() && !layers.iter().any(|known| known == layer) {
            layers.push(layer.to_string());
        }
        layers
    }

    /// Pooled rows of the first role; without one, rows of scores.
    pub fn rows(&self) -> u64 {
        let scores = || self.companions.samples().unwrap_or(0) * self.companions.score_views();
        self.parts.first().map_or_else(|| scores() as u64, Part::rows)
    }
}

#[derive(Default)]
struct Sorted {
    /// By role, in the roles' order: (view number, 0 for the unnumbered name; rows).
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
                    "unknown tensor '{}': known are z, z1 z2 ..., teacher1 ..., prediction1 ..., pre_bn, {}, {}",
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

/// `z12` is (`z`, 12); a leading zero is no number.
fn split_number(name: &str) -> (&str, Option<usize>) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[stem.len()..];
    match digits.parse() {
        Ok(number) if !digits.starts_with('0') => (stem, Some(number)),
        _ if digits.is_empty() => (stem, None),
        _ => (name, None),
    }
}

/// Views in their order, all of one shape, every value usable.
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
        // A teacher may be sent for one view only, whichever: positions matter among a layer's own views alone.
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

/// A finite N x d array of at most `widest` columns.
pub(super) fn matrix(tensor: Tensor, widest: usize) -> Result<Rows, DecodeError> {
    let name = tensor.name;
    let Element::Float(float) = tensor.element else {
        return Err(DecodeError::UnsupportedType(format!(
            "tensor {name} holds integers: embeddings are F64, F32, F16 or BF16"
        )));
    };
    let [rows, dim] = tensor.shape[..] else {
        return Err(DecodeError::Malformed(format!(
            "tensor {name} has shape {:?}: embeddings are N x d; flatten or pool what comes before the last dimension",
            tensor.shape
        )));
    };
    if dim > widest {
        return Err(DecodeError::TooLarge {
            what: format!("tensor {name} has dimension {dim}; project or pool it first"),
            limit: widest as u64,
        });
    }
    let rows = Rows::new(float, tensor.order, (rows, dim), tensor.bytes)?;
    usable(&name, &rows)?;
    Ok(rows)
}

fn usable(tensor: &str, rows: &Rows) -> Result<(), DecodeError> {
    match rows.first_unusable() {
        None => Ok(()),
        Some(bad) => Err(DecodeError::NotFinite {
            tensor: tensor.to_string(),
            row: bad.row,
            column: bad.column,
            value: written(bad.value),
            rows: bad.rows,
        }),
    }
}

fn finite(tensor: &Tensor) -> Result<(), DecodeError> {
    if tensor.shape.contains(&0) {
        return Err(DecodeError::Malformed(format!("tensor {} is empty: leave it out", tensor.name)));
    }
    let Element::Float(float) = tensor.element else { return Ok(()) };
    let rows = Rows::new(float, Order::RowMajor, flat_shape(&tensor.shape), tensor.bytes.clone())?;
    usable(&tensor.name, &rows)
}

/// 1e300 with its exponent, not its 300 zeros.
fn written(value: f64) -> String {
    if value.is_finite() { format!("{value:e}") } else { value.to_string() }
}

fn flat_shape(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [first, rest @ ..] => (*first, rest.iter().product()),
    }
}

/// A float tensor as f64 values, for the small arrays of pushed moments.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f64>, DecodeError> {
    let count: usize = tensor.shape.iter().product();
    match tensor.element {
        Element::Float(float) if count > 0 => {
            finite(tensor)?;
            let rows = Rows::new(float, Order::RowMajor, (1, count), tensor.bytes.clone())?;
            let mut out = vec![0.0; count];
            rows.read(0, 1, &mut out);
            Ok(out)
        }
        Element::I64 if count > 0 => {
            Ok(tensor.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect())
        }
        Element::I32 if count > 0 => {
            Ok(tensor.bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect())
        }
        _ => Err(DecodeError::Malformed(format!("tensor {} is empty", tensor.name))),
    }
}

/// The type of a tensor, when it holds numbers.
pub(super) fn float_of(tensor: &Tensor) -> Float {
    match tensor.element {
        Element::Float(float) => float,
        Element::I64 | Element::I32 => Float::F64,
    }
}
