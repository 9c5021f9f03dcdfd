//! A layer's memory as JSON for the history, and back: what a restart must find again.
//!
//! Guarantees: only what stored reports cover is written; rows of open windows are not. Must not: touch the disk.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::layer::{ClosedWindow, LayerState};
use crate::analysis::role::Role;
use crate::analysis::verdict::VerdictMemory;
use crate::publish::StoredClose;

/// (session, worker, ranges of seqs)
type StoredSeqs = (u64, u32, Vec<(u64, u64)>);

/// The JSON. Its shape is that of every version so far.
#[derive(Serialize, Deserialize)]
struct LayerMemory {
    dims: BTreeMap<Role, usize>,
    /// (session, order in which it was first seen)
    sessions: Vec<(u64, u64)>,
    seqs: Vec<StoredSeqs>,
    nonfinite_rows: u64,
    verdicts: BTreeMap<Role, VerdictMemory>,
}

pub(super) fn to_json(layer: &LayerState) -> String {
    let bounds = |range: &RangeInclusive<u64>| (*range.start(), *range.end());
    let memory = LayerMemory {
        dims: layer.dims.clone(),
        sessions: layer.sessions.iter().map(|(session, order)| (*session, *order)).collect(),
        seqs: layer
            .durable
            .iter()
            .map(|((session, worker), seqs)| (*session, *worker, seqs.iter().map(bounds).collect()))
            .collect(),
        nonfinite_rows: layer.nonfinite_rows,
        verdicts: layer.verdicts.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    };
    // Plain numbers and words: writing them cannot fail.
    serde_json::to_string(&memory).unwrap_or_default()
}

/// The layer that `to_json` wrote, and its closed windows.
pub(super) fn from_json(text: &str, closed: &[StoredClose]) -> Result<LayerState, serde_json::Error> {
    let memory: LayerMemory = serde_json::from_str(text)?;
    let seqs: BTreeMap<_, _> = memory
        .seqs
        .into_iter()
        .map(|(session, worker, ranges)| ((session, worker), ranges.into_iter().map(|(a, b)| a..=b).collect()))
        .collect();
    let closed = closed.iter().map(|close| {
        (close.window..=close.window, ClosedWindow { revision: close.revision, sessions: close.sessions })
    });
    Ok(LayerState {
        dims: memory.dims,
        workers: 1,
        sessions: memory.sessions.into_iter().collect(),
        claimed: seqs.clone(),
        closed: closed.collect(),
        durable: seqs,
        nonfinite_rows: memory.nonfinite_rows,
        verdicts: Arc::new(Mutex::new(memory.verdicts)),
        ..LayerState::default()
    })
}
