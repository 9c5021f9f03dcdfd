//! All runs, and their layers: what the lock in `inbox` guards.
//!
//! Guarantees: names are checked before they are keys. Must not: compute.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::layer::{Layer, Reason};
use crate::analysis::parameters::Method;
use crate::error::{Code, Refusal};

/// The longest name of a run or layer, in characters.
pub(super) const MAX_NAME: usize = 128;

/// One training.
#[derive(Debug)]
pub(super) struct Run {
    /// Unlike any other run's, also one of the same name that was deleted.
    pub(super) id: u64,
    pub(super) method: Option<Method>,
    pub(super) last_push: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    /// Its series have left /metrics, and it counts no longer towards the limit of streams.
    pub(super) expired: bool,
    pub(super) layers: BTreeMap<String, Layer>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) runs: BTreeMap<String, Run>,
    pub(super) next_id: u64,
    /// Batches accepted and not yet merged.
    pub(super) queued: usize,
}

/// An open window as the read side shows it.
#[derive(Clone, Debug)]
pub struct OpenView {
    /// Its number.
    pub window: u64,
    /// Rows admitted so far.
    pub rows: u64,
}

impl Registry {
    /// Layers of runs that have not expired.
    pub(super) fn streams(&self) -> usize {
        self.runs.values().filter(|run| !run.expired).map(|run| run.layers.len()).sum()
    }

    pub(super) fn layer(&mut self, run: &str, id: u64, layer: &str) -> Option<&mut Layer> {
        self.runs.get_mut(run).filter(|run| run.id == id)?.layers.get_mut(layer)
    }

    pub(super) fn run(&self, run: &str) -> Result<&Run, Refusal> {
        self.runs.get(run).ok_or_else(|| Refusal::not_found(format!("run {run}")))
    }

    pub(super) fn run_mut(&mut self, run: &str) -> Result<&mut Run, Refusal> {
        self.runs.get_mut(run).ok_or_else(|| Refusal::not_found(format!("run {run}")))
    }

    pub(super) fn open_run(&mut self, run: &str, now: Timestamp) -> &mut Run {
        let next_id = &mut self.next_id;
        self.runs.entry(run.to_string()).or_insert_with(|| {
            *next_id += 1;
            Run::new(*next_id, now)
        })
    }
}

impl Run {
    pub(super) fn new(id: u64, now: Timestamp) -> Self {
        Self { id, method: None, last_push: now, finished_at: None, expired: false, layers: BTreeMap::new() }
    }

    /// Closes every open window.
    pub(super) fn close_all(&mut self, reason: Reason, now: Timestamp) {
        for layer in self.layers.values_mut() {
            let windows: Vec<u64> = layer.open.keys().copied().collect();
            for window in windows {
                layer.close(window, reason, now);
            }
        }
    }
}

/// Checks the name of a run or layer.
///
/// # Errors
/// `malformed`, with what a name may be.
pub fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fault = if name.is_empty() || name.chars().count() > MAX_NAME {
        format!("has {} characters", name.chars().count())
    } else if name == "." || name == ".." {
        format!("is '{name}'")
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        format!("holds '{}'", c.escape_debug())
    } else {
        return Ok(());
    };
    Err(Refusal::over(
        Code::Malformed,
        format!("the {what} name {fault}: use 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - (and not . or ..)"),
        MAX_NAME as u64,
    ))
}
