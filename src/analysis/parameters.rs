//! The parameters of a push: where it belongs, and what the method's diagnostics need.
//!
//! Guarantees: one parser for the query, tensor metadata, JSON keys and the gRPC header; a parameter given twice with
//! different values is refused. Must not: know which endpoint a push came through.

use std::collections::BTreeMap;
use std::str::FromStr;

use kernels::provenance::Precision;
use serde::Serialize;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use super::decode::error::DecodeError;
use super::text::shorten;

/// The training method that a run names.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[allow(missing_docs)] // the words are the methods' own names
pub enum Method {
    Simclr,
    Moco,
    Nnclr,
    Byol,
    Simsiam,
    Swav,
    Dino,
    Barlow,
    Vicreg,
    Triplet,
    Simple,
    Directpred,
    Other,
}

/// Numbers that the methods' diagnostics need, all f64.
pub(crate) const SCALARS: [&str; 17] = [
    "loss",
    "temperature",
    "teacher_temperature",
    "negatives",
    "queue_size",
    "prototypes",
    "margin",
    "lambda",
    "batch_size",
    "bn_eps",
    "bn_gamma",
    "invariance_weight",
    "variance_weight",
    "covariance_weight",
    "gamma",
    "rankme_epsilon",
    "rankme_centered",
];

/// The least temperature or count: smaller ones would make the scores overflow.
const LEAST: f64 = 1e-6;

/// Parameters that must be positive. A queue may be empty, and a loss may have no negatives.
const POSITIVE: [&str; 4] = ["temperature", "teacher_temperature", "prototypes", "batch_size"];

/// The most workers of a run: each has its own accumulator.
pub(crate) const MAX_WORKERS: u32 = 4096;

/// The greatest window number: the history keeps signed 64-bit integers.
pub(crate) const MAX_WINDOW: u64 = i64::MAX as u64;

/// The parameters of one push; an absent one is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Rows with the same number are measured together.
    pub window: Option<u64>,
    /// The trainer's step counter.
    pub step: Option<u64>,
    /// The number of this distributed process, from 0.
    pub worker: Option<u32>,
    /// How many workers there are.
    pub workers: Option<u32>,
    /// A random number that the client draws at each start of the trainer.
    pub session: Option<u64>,
    /// This worker's sequence number in this layer and session.
    pub seq: Option<u64>,
    /// True for this worker's last batch of the window.
    pub last: Option<bool>,
    /// Answer with the report instead of immediately.
    pub wait: Option<bool>,
    /// Also keep the second moment of unit rows, so that its measures are exact for any number of rows.
    pub(crate) unit_moments: Option<bool>,
    /// False: if every batch of a window says so, it is measured without eigenvalues.
    pub spectrum: Option<bool>,
    /// The arithmetic in which the products of rows are summed.
    pub precision: Option<Precision>,
    /// The training method.
    pub method: Option<Method>,
    /// Finite numbers by name, from `SCALARS`.
    pub scalars: BTreeMap<&'static str, f64>,
}

impl Parameters {
    /// Sets one parameter from its text.
    ///
    /// # Errors
    /// `Malformed` if the name is unknown, the text has the wrong type, or a different value was given before.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), DecodeError> {
        match name {
            "window" => fill(&mut self.window, name, integer(name, text)?),
            "step" => fill(&mut self.step, name, integer(name, text)?),
            "worker" => fill(&mut self.worker, name, integer(name, text)?),
            "workers" => fill(&mut self.workers, name, integer(name, text)?),
            "session" => fill(&mut self.session, name, integer(name, text)?),
            "seq" => fill(&mut self.seq, name, integer(name, text)?),
            "last" => fill(&mut self.last, name, boolean(name, text)?),
            "wait" => fill(&mut self.wait, name, boolean(name, text)?),
            "unit_moments" => fill(&mut self.unit_moments, name, boolean(name, text)?),
            "spectrum" => fill(&mut self.spectrum, name, boolean(name, text)?),
            "precision" => fill(&mut self.precision, name, word(name, text)?),
            "method" => fill(&mut self.method, name, word(name, text)?),
            _ => self.set_scalar(name, text),
        }
    }

    fn set_scalar(&mut self, name: &str, text: &str) -> Result<(), DecodeError> {
        let Some(known) = SCALARS.iter().find(|known| **known == name) else {
            return Err(DecodeError::Malformed(format!(
                "unknown parameter '{}': expected one of window, step, worker, workers, session, seq, last, wait, unit_moments, spectrum, precision, method, {}",
                shorten(name),
                SCALARS.join(", ")
            )));
        };
        let value: f64 = text.parse().map_err(|_| wrong_type(name, text, "a number"))?;
        // A diverged loss is worth knowing, but it is not a number; it is refused like any value that is not finite.
        if !value.is_finite() {
            return Err(wrong_type(name, text, "a finite number; leave it out where it has none"));
        }
        match self.scalars.insert(known, value) {
            Some(before) if before != value => Err(twice(name, &before.to_string(), &value.to_string())),
            _ => Ok(()),
        }
    }

    /// Checks rules that involve several parameters.
    ///
    /// # Errors
    /// `Malformed` if worker is not below workers, or one of several workers pushes without a window.
    pub fn check(&self) -> Result<(), DecodeError> {
        if let Some(window) = self.window.or(self.step).filter(|window| *window > MAX_WINDOW) {
            return Err(DecodeError::Malformed(format!(
                "the window number {window} is too large: the limit is {MAX_WINDOW}"
            )));
        }
        let (worker, workers) = (self.worker.unwrap_or(0), self.workers.unwrap_or(1));
        if workers == 0 || workers > MAX_WORKERS {
            return Err(DecodeError::Malformed(format!("workers is {workers}: it must be 1 to {MAX_WORKERS}")));
        }
        if worker >= workers {
            return Err(DecodeError::Malformed(format!(
                "worker is {worker} of {workers} workers: workers are numbered from 0, and worker must be below workers"
            )));
        }
        for (name, value) in &self.scalars {
            if POSITIVE.contains(name) && *value < LEAST {
                return Err(DecodeError::Malformed(format!(
                    "parameter {name} is {value}: it must be at least {LEAST}"
                )));
            }
            if *name == "bn_eps" && *value < 0.0 {
                return Err(DecodeError::Malformed(format!("parameter bn_eps is {value}: it must not be below 0")));
            }
        }
        if let Some(epsilon) = self.scalars.get("rankme_epsilon").filter(|epsilon| !(0.0..1.0).contains(*epsilon)) {
            return Err(DecodeError::Malformed(format!(
                "parameter rankme_epsilon is {epsilon}: it must be at least 0 and below 1"
            )));
        }
        if self.window.is_none() && workers > 1 {
            return Err(DecodeError::Malformed(format!(
                "a push by one of {workers} workers needs window: it shows which batches belong together"
            )));
        }
        Ok(())
    }
}

fn fill<T: PartialEq + std::fmt::Debug + Copy>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), DecodeError> {
    match slot.replace(value) {
        Some(before) if before != value => Err(twice(name, &format!("{before:?}"), &format!("{value:?}"))),
        _ => Ok(()),
    }
}

fn twice(name: &str, first: &str, second: &str) -> DecodeError {
    DecodeError::Malformed(format!("parameter {name} is given twice, as {first} and as {second}: give it once"))
}

fn integer<T: FromStr>(name: &str, text: &str) -> Result<T, DecodeError> {
    let bits = size_of::<T>() * 8;
    text.parse().map_err(|_| wrong_type(name, text, &format!("a whole number of 0 to 2^{bits} - 1")))
}

fn boolean(name: &str, text: &str) -> Result<bool, DecodeError> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(wrong_type(name, text, "true or false")),
    }
}

fn word<T: FromStr + VariantNames>(name: &str, text: &str) -> Result<T, DecodeError> {
    text.parse().map_err(|_| wrong_type(name, text, &format!("one of {}", T::VARIANTS.join(", "))))
}

fn wrong_type(name: &str, text: &str, wanted: &str) -> DecodeError {
    DecodeError::Malformed(format!("parameter {name} is '{}': it must be {wanted}", shorten(text)))
}
