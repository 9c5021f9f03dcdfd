//! The state of one layer of a run: open and closed windows, and the sequence numbers already accepted.
//!
//! Guarantees: `check` changes nothing, so a refused batch leaves nothing behind; a (session, worker, seq) is accepted
//! once. Must not: lock, allocate accumulators, or read a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rangemap::{RangeInclusiveMap, RangeInclusiveSet};
use tokio::sync::oneshot;

use super::open_window::{HeldRows, OpenWindow, Slots, WorkerSession, source};
use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::methods::Gathered;
use crate::analysis::parameters::{MAX_WINDOW, Parameters};
use crate::analysis::part::Payload;
use crate::analysis::report::FullReport;
use crate::analysis::role::Role;
use crate::analysis::verdict::VerdictMemory;
use crate::analysis::window::{self, Accumulator};
use crate::budget::Reservation;
use crate::error::{Code, Refusal};

pub(super) type Waiter = oneshot::Sender<Arc<FullReport>>;

/// How a window ended: its newest revision, and how many sessions were known then (a later session is new).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedWindow {
    pub(super) revision: u32,
    pub(super) sessions: u64,
}

#[derive(Debug, Default)]
pub(super) struct LayerState {
    pub(super) dims: BTreeMap<Role, usize>,
    pub(super) workers: u32,
    /// Sessions, numbered in the order in which they were first seen.
    pub(super) sessions: BTreeMap<u64, u64>,
    pub(super) claimed: BTreeMap<WorkerSession, RangeInclusiveSet<u64>>,
    pub(super) closed: RangeInclusiveMap<u64, ClosedWindow>,
    pub(super) open: BTreeMap<u64, OpenWindow>,
    /// Closed windows, in order, until their last batches are merged.
    pub(super) closing: VecDeque<Closing>,
    /// Accepted sequence numbers of windows whose reports are stored: a restart must find them again.
    pub(super) durable: BTreeMap<WorkerSession, RangeInclusiveSet<u64>>,
    /// Windows that were open when the service stopped without draining.
    pub(super) interrupted: BTreeSet<u64>,
    pub(super) nonfinite_rows: u64,
    pub(super) verdicts: Arc<Mutex<BTreeMap<Role, VerdictMemory>>>,
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) window: u64,
    pub(super) content: OpenWindow,
    pub(super) complete: bool,
    pub(super) closed_at: Timestamp,
    pub(super) waiters: Vec<Waiter>,
    pub(super) sessions: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Every worker is done with it.
    Done,
    /// Requested by close or finish: complete if every worker has sent rows.
    Asked,
    /// A worker is missing for too long, the run is idle, or the service drains.
    GivenUp,
}

pub(super) struct WindowPlace {
    pub(super) window: u64,
    pub(super) revision: u32,
    /// The bytes that its accumulators and reservoirs need beyond what the window holds.
    pub(super) bytes: usize,
}

pub(super) enum Admissibility {
    /// Its seq was accepted before; the window that it went to, if known.
    Duplicate(Option<u64>),
    Admit(WindowPlace),
}

impl LayerState {
    /// Decides whether and where a batch may go. Changes nothing.
    pub(super) fn check(&self, batch: &EmbeddingBatch) -> Result<Admissibility, Refusal> {
        let parameters = &batch.parameters;
        let (session, worker) = source(parameters);
        let claimed = |seq| self.claimed.get(&(session, worker)).is_some_and(|seqs| seqs.contains(&seq));
        if parameters.seq.is_some_and(claimed) {
            let open = self.open.iter().find(|(_, open)| open.holds(parameters)).map(|(window, _)| *window);
            let closing =
                || self.closing.iter().find(|closing| closing.content.holds(parameters)).map(|closing| closing.window);
            return Ok(Admissibility::Duplicate(open.or_else(closing).or(parameters.window).or(parameters.step)));
        }
        for part in &batch.parts {
            if let Some(dim) = self.dims.get(&part.role)
                && *dim != part.dim()
            {
                return Err(Refusal::over(
                    Code::DimensionMismatch,
                    format!(
                        "the embeddings{} have dimension {}, but this layer has {dim}: push them under another layer name, or delete the run",
                        part.role.suffix(),
                        part.dim()
                    ),
                    *dim as u64,
                ));
            }
        }
        let window = self.window_of(parameters);
        if window > MAX_WINDOW {
            return Err(Refusal::over(
                Code::Malformed,
                format!("no window number is left, the limit is {MAX_WINDOW}: send window"),
                MAX_WINDOW,
            ));
        }
        let revision = match self.closed.get(&window) {
            None => 1,
            Some(closed) if self.is_new(session, *closed) => closed.revision + 1,
            Some(_) => {
                return Err(Refusal::new(Code::WindowClosed, closed_window(window, parameters)));
            }
        };
        let bytes = self.bytes_needed(batch, window, worker)?;
        Ok(Admissibility::Admit(WindowPlace { window, revision, bytes }))
    }

    fn window_of(&self, parameters: &Parameters) -> u64 {
        let next = || self.newest_window().map_or(0, |newest| newest.saturating_add(1));
        parameters.window.or(parameters.step).unwrap_or_else(next)
    }

    /// The largest number of a window that was opened.
    pub(super) fn newest_window(&self) -> Option<u64> {
        self.open.last_key_value().map(|(window, _)| *window).max(self.last_closed())
    }

    fn last_closed(&self) -> Option<u64> {
        self.closed.last_range_value().map(|(windows, _)| *windows.end())
    }

    fn is_new(&self, session: u64, closed: ClosedWindow) -> bool {
        self.sessions.get(&session).is_none_or(|first_seen| *first_seen >= closed.sessions)
    }

    fn bytes_needed(&self, batch: &EmbeddingBatch, window: u64, worker: u32) -> Result<usize, Refusal> {
        let open = self.open.get(&window);
        let mut bytes = 0;
        for part in &batch.parts {
            let (dim, views) = (part.dim(), part.views());
            if let Some(known) = open.and_then(|open| open.views.get(&part.role))
                && !window::fits(&part.payload, dim, *known)
            {
                return Err(Refusal::new(
                    Code::DimensionMismatch,
                    format!(
                        "window {window} has {known} view(s) per sample, but this batch has {views}: push them in separate windows or layers"
                    ),
                ));
            }
            let held = open.and_then(|open| open.slots.get(&(part.role, worker)));
            if held.is_none() {
                bytes += Accumulator::bytes(views, dim);
                let pushed = matches!(&part.payload, Payload::Moments(pushed) if pushed.unit_scatter.is_some());
                if pushed || batch.parameters.unit_moments == Some(true) {
                    bytes += 4 * dim * (dim + 1);
                }
            }
            bytes += HeldRows::reservoir_after(held, part).saturating_sub(held.map_or(0, |held| held.reservoir_bytes));
        }
        let gathered = open.and_then(|open| open.gathered.get(&worker)).map_or([0; 6], |(_, bytes)| *bytes);
        bytes +=
            Gathered::bytes(batch).iter().zip(gathered).map(|(need, held)| need.saturating_sub(held)).sum::<usize>();
        Ok(bytes)
    }

    /// Admits a checked batch: records its seq and opens its window. Returns the slots it is merged into.
    pub(super) fn admit(
        &mut self,
        batch: &EmbeddingBatch,
        at: &WindowPlace,
        memory: Arc<Reservation>,
        now: Timestamp,
    ) -> Slots {
        let parameters = &batch.parameters;
        let (session, worker) = source(parameters);
        let count = self.sessions.len() as u64;
        self.sessions.entry(session).or_insert(count);
        self.workers = parameters.workers.unwrap_or(1);
        for part in &batch.parts {
            self.dims.entry(part.role).or_insert(part.dim());
        }
        if !self.open.contains_key(&at.window) {
            let opened = self.opened(at, session, now);
            self.open.insert(at.window, opened);
        }
        let open = self.open.entry(at.window).or_insert_with(|| OpenWindow::new(at.revision, None, false));
        if let Some(seq) = parameters.seq {
            self.claimed.entry((session, worker)).or_default().insert(seq..=seq);
            open.claims.entry((session, worker)).or_default().insert(seq..=seq);
        }
        let slots = open.take(batch, self.workers, memory);
        for (_, earlier) in self.open.range_mut(..at.window) {
            earlier.later_since.get_or_insert(now);
            earlier.done.insert(worker);
        }
        slots
    }

    /// Called when a window opens; later ones may be open already.
    fn opened(&mut self, at: &WindowPlace, session: u64, now: Timestamp) -> OpenWindow {
        let interrupted = self.interrupted.remove(&at.window);
        let later = || self.open.range(at.window.saturating_add(1)..).map(|(_, open)| open);
        if at.revision > 1 {
            // A restarted trainer repeats its windows: what it had pushed before does not hurry it.
            let hurried = later().any(|open| open.sessions.contains(&session));
            return OpenWindow::new(at.revision, hurried.then_some(now), interrupted);
        }
        let behind = later().next().is_some() || self.last_closed().is_some_and(|last| last > at.window);
        let mut opened = OpenWindow::new(at.revision, behind.then_some(now), interrupted);
        opened.done = later().flat_map(|open| open.contributed.iter().copied()).collect();
        opened
    }

    fn finished_windows(&self) -> Vec<u64> {
        let done = |open: &OpenWindow| (0..open.workers).all(|worker| open.done.contains(&worker));
        self.open.iter().filter(|(_, open)| done(open)).map(|(window, _)| *window).collect()
    }

    /// Closes the windows that every worker is done with; a push that waits for one of them waits for its close.
    pub(super) fn close_finished(&mut self, pushed: u64, reply: &mut Option<Waiter>, now: Timestamp) {
        for window in self.finished_windows() {
            self.close(window, CloseReason::Done, now);
            if window == pushed
                && let Some(closing) = self.closing.back_mut()
            {
                closing.waiters.extend(reply.take());
            }
        }
    }

    /// Windows whose missing workers have run out of time.
    pub(super) fn overdue_windows(&self, now: Timestamp, patience_s: i64) -> Vec<u64> {
        let overdue =
            |open: &OpenWindow| open.later_since.is_some_and(|since| now.as_second() - since.as_second() >= patience_s);
        self.open.iter().filter(|(_, open)| overdue(open)).map(|(window, _)| *window).collect()
    }

    pub(super) fn close(&mut self, window: u64, reason: CloseReason, now: Timestamp) {
        let Some(mut content) = self.open.remove(&window) else { return };
        let missing: Vec<String> =
            (0..content.workers).filter(|w| !content.contributed.contains(w)).map(|w| w.to_string()).collect();
        let late: Vec<String> =
            (0..content.workers).filter(|w| !content.done.contains(w)).map(|w| w.to_string()).collect();
        let complete = !content.interrupted
            && match reason {
                CloseReason::Done => true,
                CloseReason::Asked => missing.is_empty(),
                CloseReason::GivenUp => false,
            };
        if !missing.is_empty() {
            content.notes.push(format!("no rows came from worker(s) {}", missing.join(", ")));
        } else if !complete && !late.is_empty() {
            content.notes.push(format!("worker(s) {} had not finished the window", late.join(", ")));
        }
        let sessions = self.sessions.len() as u64;
        self.closed.insert(window..=window, ClosedWindow { revision: content.revision, sessions });
        self.closing.push_back(Closing { window, content, complete, closed_at: now, waiters: Vec::new(), sessions });
    }

    /// The window of a merged batch, open or closing.
    pub(super) fn find(&mut self, window: u64, revision: u32) -> Option<&mut OpenWindow> {
        if let Some(open) = self.open.get_mut(&window).filter(|open| open.revision == revision) {
            return Some(open);
        }
        self.closing
            .iter_mut()
            .find(|closing| closing.window == window && closing.content.revision == revision)
            .map(|closing| &mut closing.content)
    }

    /// Closed windows, oldest first, as far as all their batches are merged.
    pub(super) fn ready(&mut self) -> Vec<Closing> {
        let mut ready = Vec::new();
        while self.closing.front().is_some_and(|closing| closing.content.pending == 0) {
            ready.extend(self.closing.pop_front());
        }
        ready
    }

    /// Called when a window's report is about to be stored: from then on its seqs survive a restart.
    pub(super) fn settle(&mut self, closing: &Closing) {
        for (source, claims) in &closing.content.claims {
            let durable = self.durable.entry(*source).or_default();
            durable.extend(claims.iter().cloned());
        }
    }
}

fn closed_window(window: u64, parameters: &Parameters) -> String {
    let how = match parameters.window {
        Some(_) => "by `last`, a later window, close, finish, a timeout, or a stop of the service",
        None => "by a push without window, which is a window of its own numbered by its step: send window",
    };
    format!(
        "window {window} is closed, {how}; use a new window number, or send the session number of a restarted trainer"
    )
}
