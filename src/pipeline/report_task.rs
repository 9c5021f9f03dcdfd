//! A window on its way to its reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::RunHandle;
use super::layer::{Closing, Waiter};
use super::open_window::{GatheredSlot, OpenWindow, Slot};
use crate::analysis::methods::Gathered;
use crate::analysis::parameters::Method;
use crate::analysis::report::{Closed, Content, FullReport, Heading};
use crate::analysis::role::Role;
use crate::analysis::verdict::VerdictMemory;
use crate::analysis::window::Accumulator;
use crate::compute::solve::SkipReason;
use crate::identity::WindowKey;

/// A layer's verdict memory, shared between the registry and the reports in progress.
pub(super) type VerdictMemories = Arc<Mutex<BTreeMap<Role, VerdictMemory>>>;

pub(super) struct ReportTask {
    pub(super) run: Arc<RunHandle>,
    pub(super) window: WindowKey,
    pub(super) method: Option<Method>,
    pub(super) waiters: Vec<Waiter>,
    /// `None` for a report of a window that still accepts rows.
    pub(super) closing: Option<Closing>,
    step: Option<u64>,
    notes: Vec<String>,
    roles: BTreeMap<Role, Vec<Slot>>,
    gathered: Vec<GatheredSlot>,
    scalars: BTreeMap<&'static str, f64>,
    pub(super) memory: VerdictMemories,
    pub(super) skip: Option<SkipReason>,
}

impl ReportTask {
    pub(super) fn new(run: Arc<RunHandle>, window: WindowKey, content: &OpenWindow, memory: VerdictMemories) -> Self {
        Self {
            run,
            window,
            method: None,
            waiters: Vec::new(),
            closing: None,
            step: content.step,
            notes: content.all_notes(),
            roles: content.by_role(),
            gathered: content.gathered_slots(),
            scalars: content.scalars.clone(),
            memory,
            skip: (!content.spectrum).then_some(SkipReason::NotAsked),
        }
    }

    pub(super) fn answer(self, report: Option<&Arc<FullReport>>) {
        for (waiter, report) in self.waiters.into_iter().zip(std::iter::repeat(report)) {
            if let Some(report) = report {
                // The client may be gone.
                let _ = waiter.send(Arc::clone(report));
            }
        }
    }

    /// Moved out of the slots at the close, copied before it.
    pub(super) fn content(&mut self) -> Content {
        let take = self.closing.is_some();
        let slots = std::mem::take(&mut self.roles);
        let roles = slots.iter().filter_map(|(role, slots)| Some((*role, merged(slots, take)?))).collect();
        let mut gathered = Gathered::default();
        for slot in &self.gathered {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            gathered.merge(&slot);
            if take {
                *slot = Gathered::default();
            }
        }
        Content { roles, gathered, scalars: std::mem::take(&mut self.scalars) }
    }

    pub(super) fn heading(&self) -> Heading {
        let closed = self.closing.as_ref().map(|closing| Closed {
            complete: closing.complete && !closing.content.lost_rows,
            at: Some(closing.closed_at.to_string()),
        });
        Heading {
            run: self.window.run.to_string(),
            layer: self.window.layer.to_string(),
            window: self.window.window,
            revision: self.window.revision,
            step: self.step,
            closed,
            notes: self.notes.clone(),
        }
    }
}

/// The workers' accumulators merged in worker order; moved out of the slots at the close, copied before it.
fn merged(slots: &[Slot], take: bool) -> Option<Accumulator> {
    let mut sum: Option<Accumulator> = None;
    for slot in slots {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = if take { slot.take() } else { slot.clone() };
        match (&mut sum, rows) {
            (Some(sum), Some(rows)) => sum.merge(&rows),
            (None, rows) => sum = rows,
            (Some(_), None) => {}
        }
    }
    sum
}
