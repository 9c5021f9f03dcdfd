//! A layer's memory as JSON for the history, and back: what a restart must find again.
//!
//! Guarantees: only what stored reports stand for is written; rows of open windows are not in it. Must not: touch disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::layer::{Closed, Layer};
use super::ranges::Ranges;
use crate::analysis::batch::Role;
use crate::analysis::verdict::{Baseline, Seen, State, Stream};

#[derive(Serialize, Deserialize)]
struct LayerDoc {
    dims: BTreeMap<String, usize>,
    /// (session, order in which it was first seen)
    sessions: Vec<(u64, u64)>,
    seqs: Vec<SeqsDoc>,
    nonfinite_rows: u64,
    verdicts: BTreeMap<String, StreamDoc>,
}

/// (session, worker, ranges of seqs)
type SeqsDoc = (u64, u32, Vec<(u64, u64)>);

#[derive(Serialize, Deserialize)]
struct StreamDoc {
    state: String,
    windows: u64,
    outside_cone: u64,
    critical_running: u64,
    uncritical_running: u64,
    clear_running: u64,
    #[serde(default)]
    loss_running: u64,
    #[serde(default)]
    settled: bool,
    #[serde(default)]
    widest: f64,
    #[serde(default)]
    fell_to: f64,
    recent: Vec<SeenDoc>,
    baseline: Option<BaselineDoc>,
}

type Spread = Option<(f64, f64, f64)>;

#[derive(Serialize, Deserialize)]
struct SeenDoc {
    rank: Option<f64>,
    samples: u64,
    tail: Option<f64>,
    spread: Spread,
}

#[derive(Serialize, Deserialize)]
struct BaselineDoc {
    rank: f64,
    samples: u64,
    tail: Option<f64>,
    spread: Spread,
}

const ROLES: [Role; 4] = [Role::Embedding, Role::Teacher, Role::Prediction, Role::PreBn];

fn role_of(suffix: &str) -> Option<Role> {
    ROLES.into_iter().find(|role| role.suffix() == suffix)
}

/// The layer's durable memory.
pub(super) fn to_json(layer: &Layer) -> String {
    let verdicts = layer.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
    let doc = LayerDoc {
        dims: layer.dims.iter().map(|(role, dim)| (role.suffix().to_string(), *dim)).collect(),
        sessions: layer.sessions.iter().map(|(session, order)| (*session, *order)).collect(),
        seqs: layer
            .durable
            .iter()
            .map(|((session, worker), ranges)| (*session, *worker, ranges.iter().map(|(a, b, ())| (a, b)).collect()))
            .collect(),
        nonfinite_rows: layer.nonfinite_rows,
        verdicts: verdicts.iter().map(|(role, stream)| (role.suffix().to_string(), stream_doc(stream))).collect(),
    };
    // Plain numbers and words: nothing in it can fail to be written.
    serde_json::to_string(&doc).unwrap_or_default()
}

/// The layer that `to_json` wrote, with its closed windows: (window, newest revision, sessions known at the close).
///
/// # Errors
/// When the text is not that.
pub(super) fn from_json(text: &str, closed: &[(u64, u32, u64)]) -> Result<Layer, serde_json::Error> {
    let doc: LayerDoc = serde_json::from_str(text)?;
    let seqs: BTreeMap<_, _> = doc
        .seqs
        .into_iter()
        .map(|(session, worker, ranges)| {
            ((session, worker), Ranges::from_parts(ranges.into_iter().map(|(a, b)| (a, b, ()))))
        })
        .collect();
    let mut ended = Ranges::default();
    for (window, revision, sessions) in closed {
        ended.insert(*window, Closed { revision: *revision, sessions: *sessions });
    }
    let verdicts =
        doc.verdicts.iter().filter_map(|(suffix, stream)| Some((role_of(suffix)?, stream_of(stream)))).collect();
    Ok(Layer {
        dims: doc.dims.iter().filter_map(|(suffix, dim)| Some((role_of(suffix)?, *dim))).collect(),
        workers: 1,
        sessions: doc.sessions.into_iter().collect(),
        claimed: seqs.clone(),
        closed: ended,
        durable: seqs,
        nonfinite_rows: doc.nonfinite_rows,
        verdicts: Arc::new(Mutex::new(verdicts)),
        ..Layer::default()
    })
}

fn stream_doc(stream: &Stream) -> StreamDoc {
    let seen = |s: &Seen| SeenDoc { rank: s.rank, samples: s.samples, tail: s.tail, spread: s.spread };
    let baseline = |b: &Baseline| BaselineDoc { rank: b.rank, samples: b.samples, tail: b.tail, spread: b.spread };
    StreamDoc {
        state: stream.state.word().to_string(),
        windows: stream.windows,
        outside_cone: stream.outside_cone,
        critical_running: stream.critical_running,
        uncritical_running: stream.uncritical_running,
        clear_running: stream.clear_running,
        loss_running: stream.loss_running,
        settled: stream.settled,
        widest: stream.widest,
        fell_to: stream.fell_to,
        recent: stream.recent.iter().map(seen).collect(),
        baseline: stream.baseline.as_ref().map(baseline),
    }
}

fn stream_of(doc: &StreamDoc) -> Stream {
    let seen = |s: &SeenDoc| Seen { rank: s.rank, samples: s.samples, tail: s.tail, spread: s.spread };
    let baseline = |b: &BaselineDoc| Baseline { rank: b.rank, samples: b.samples, tail: b.tail, spread: b.spread };
    Stream {
        state: State::of(&doc.state).unwrap_or(State::WarmingUp),
        windows: doc.windows,
        outside_cone: doc.outside_cone,
        critical_running: doc.critical_running,
        uncritical_running: doc.uncritical_running,
        clear_running: doc.clear_running,
        loss_running: doc.loss_running,
        settled: doc.settled,
        widest: doc.widest,
        fell_to: doc.fell_to,
        recent: doc.recent.iter().map(seen).collect(),
        baseline: doc.baseline.as_ref().map(baseline),
    }
}
