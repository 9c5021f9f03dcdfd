//! A window that accepts rows: what came, from which workers, and which of them are done.
//!
//! Guarantees: each batch is counted in the window that its slots belong to. Must not: decide when to close (`layer`
//! does).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use kernels::reservoir::{self, Reservoir};
use kernels::rows::{Float, Rows};
use rangemap::RangeInclusiveSet;

use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::methods::Gathered;
use crate::analysis::parameters::Parameters;
use crate::analysis::part::{Part, Payload};
use crate::analysis::role::Role;
use crate::analysis::window::Accumulator;
use crate::budget::Reservation;

/// One worker's accumulator for one role; empty until its first batch is merged.
pub(super) type Slot = Arc<Mutex<Option<Accumulator>>>;

/// What one worker's batches add up to for the methods' diagnostics.
pub(super) type GatheredSlot = Arc<Mutex<Gathered>>;

/// The accumulators that one batch is merged into.
pub(super) struct Slots {
    pub(super) rows: Vec<Slot>,
    pub(super) gathered: GatheredSlot,
}

/// A batch's source: the trainer's session and the worker in it.
pub(super) type WorkerSession = (u64, u32);

#[derive(Debug, Default)]
pub(super) struct HeldRows {
    slot: Slot,
    rows: u64,
    /// Whether f64 rows are among them: those are kept as f64, all others exactly as f32.
    wide: bool,
    pub(super) reservoir_bytes: usize,
}

impl HeldRows {
    fn with(held: Option<&HeldRows>, part: &Part) -> (u64, bool) {
        let (rows, wide) = held.map_or((0, false), |held| (held.rows, held.wide));
        let is_wide = |views: &[Rows]| views.iter().any(|rows| rows.float() == Float::F64);
        match &part.payload {
            Payload::Views(views) => (rows + part.rows(), wide || is_wide(views)),
            Payload::Moments(_) => (rows, wide),
        }
    }

    /// Bytes that the reservoir may need once this part is merged.
    pub(super) fn reservoir_after(held: Option<&HeldRows>, part: &Part) -> usize {
        let (rows, wide) = Self::with(held, part);
        Reservoir::bytes(reservoir::CAPACITY, rows, part.dim(), if wide { 8 } else { 4 })
    }

    fn take(&mut self, part: &Part) -> Slot {
        self.reservoir_bytes = Self::reservoir_after(Some(self), part);
        (self.rows, self.wide) = Self::with(Some(self), part);
        Arc::clone(&self.slot)
    }
}

#[derive(Debug)]
pub(super) struct OpenWindow {
    pub(super) revision: u32,
    pub(super) views: BTreeMap<Role, usize>,
    pub(super) slots: BTreeMap<(Role, u32), HeldRows>,
    /// By worker, and the bytes reserved for it.
    pub(super) gathered: BTreeMap<u32, (GatheredSlot, [usize; 6])>,
    pub(super) done: BTreeSet<u32>,
    pub(super) contributed: BTreeSet<u32>,
    pub(super) workers: u32,
    pub(super) rows: u64,
    pub(super) step: Option<u64>,
    pub(super) scalars: BTreeMap<&'static str, f64>,
    pub(super) spectrum: bool,
    /// Batches queued and not yet merged.
    pub(super) pending: usize,
    pub(super) later_since: Option<Timestamp>,
    pub(super) claims: BTreeMap<WorkerSession, RangeInclusiveSet<u64>>,
    pub(super) sessions: BTreeSet<u64>,
    pub(super) notes: Vec<String>,
    pub(super) reservations: Vec<Arc<Reservation>>,
    /// Rows of it were lost when the service stopped.
    pub(super) interrupted: bool,
    /// A batch of it could not be merged.
    pub(super) lost_rows: bool,
}

impl OpenWindow {
    pub(super) fn new(revision: u32, later_since: Option<Timestamp>, interrupted: bool) -> Self {
        let notes = if interrupted {
            vec!["rows pushed before the service stopped are lost: this window is incomplete".to_string()]
        } else {
            Vec::new()
        };
        Self {
            revision,
            views: BTreeMap::new(),
            slots: BTreeMap::new(),
            gathered: BTreeMap::new(),
            done: BTreeSet::new(),
            contributed: BTreeSet::new(),
            workers: 1,
            rows: 0,
            step: None,
            scalars: BTreeMap::new(),
            spectrum: false,
            pending: 0,
            later_since,
            claims: BTreeMap::new(),
            sessions: BTreeSet::new(),
            notes,
            reservations: Vec::new(),
            interrupted,
            lost_rows: false,
        }
    }

    pub(super) fn holds(&self, parameters: &Parameters) -> bool {
        let claims = self.claims.get(&source(parameters));
        parameters.seq.zip(claims).is_some_and(|(seq, claims)| claims.contains(&seq))
    }

    pub(super) fn take(&mut self, batch: &EmbeddingBatch, workers: u32, memory: Arc<Reservation>) -> Slots {
        let parameters = &batch.parameters;
        let (session, worker) = source(parameters);
        self.workers = workers;
        self.contributed.insert(worker);
        self.sessions.insert(session);
        self.step = self.step.max(parameters.step);
        self.scalars.extend(&parameters.scalars);
        self.rows += batch.rows();
        self.spectrum |= parameters.spectrum != Some(false);
        self.pending += 1;
        self.reservations.push(memory);
        // A batch without a window number is a window of its own.
        if parameters.last == Some(true) || parameters.window.is_none() {
            self.done.insert(worker);
        }
        let mut slots = Vec::new();
        for part in &batch.parts {
            self.views.entry(part.role).or_insert(part.views());
            slots.push(self.slots.entry((part.role, worker)).or_default().take(part));
        }
        let (gathered, bytes) = self.gathered.entry(worker).or_default();
        for (held, needed) in bytes.iter_mut().zip(Gathered::bytes(batch)) {
            *held = (*held).max(needed);
        }
        Slots { rows: slots, gathered: Arc::clone(gathered) }
    }

    pub(super) fn gathered_slots(&self) -> Vec<GatheredSlot> {
        self.gathered.values().map(|(slot, _)| Arc::clone(slot)).collect()
    }

    /// The window's accumulators by role, each in worker order.
    pub(super) fn by_role(&self) -> BTreeMap<Role, Vec<Slot>> {
        let mut roles: BTreeMap<Role, Vec<Slot>> = BTreeMap::new();
        for ((role, _), held) in &self.slots {
            roles.entry(*role).or_default().push(Arc::clone(&held.slot));
        }
        roles
    }

    pub(super) fn all_notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.sessions.len() > 1 && self.workers == 1 {
            notes.push(format!(
                "this window has rows from {} sessions: the trainer restarted within it",
                self.sessions.len()
            ));
        }
        notes
    }
}

/// Session and worker of a push; absent ones are 0.
pub(super) fn source(parameters: &Parameters) -> WorkerSession {
    (parameters.session.unwrap_or(0), parameters.worker.unwrap_or(0))
}
