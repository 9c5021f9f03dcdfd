//! A window on its way to its reports: gather the workers, measure, judge, publish, store.
//!
//! Guarantees: what is stored of the published verdict is what is shown; a report so far moves neither hysteresis nor
//! baseline. Must not: decide when a window closes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::inbox::Inbox;
use super::layer::{Closing, Waiter};
use super::line::{Content, Judging, Outcome, Skip};
use super::open_window::{GatheredSlot, OpenWindow, Slot};
use crate::analysis::batch::Role;
use crate::analysis::methods::Gathered;
use crate::analysis::parameters::Method;
use crate::analysis::report::{Computed, Report};
use crate::analysis::verdict::Stream;
use crate::analysis::window::Accumulator;
use crate::publish::{Published, Saved};
use crate::telemetry::Stage;

/// See the file's head.
pub(super) struct ReportTask {
    pub(super) run: String,
    run_id: u64,
    pub(super) layer: String,
    pub(super) window: u64,
    revision: u32,
    step: Option<u64>,
    notes: Vec<String>,
    roles: BTreeMap<Role, Vec<Slot>>,
    gathered: Vec<GatheredSlot>,
    scalars: BTreeMap<&'static str, f64>,
    pub(super) waiters: Vec<Waiter>,
    /// `None`: a report so far.
    pub(super) closing: Option<Closing>,
    pub(super) skip_spectrum: Option<Skip>,
}

impl ReportTask {
    pub(super) fn of(names: (&str, u64, &str), window: u64, content: &OpenWindow) -> Self {
        let (run, run_id, layer) = names;
        Self {
            run: run.to_string(),
            run_id,
            layer: layer.to_string(),
            window,
            revision: content.revision,
            step: content.step,
            notes: content.all_notes(),
            roles: content.by_role(),
            gathered: content.gathered_slots(),
            scalars: content.scalars.clone(),
            waiters: Vec::new(),
            closing: None,
            skip_spectrum: (!content.spectrum).then_some(Skip::NotAsked),
        }
    }

    /// Taken out of the slots at the close, copied before it.
    fn content(&mut self) -> Content {
        let take = self.closing.is_some();
        let slots = std::mem::take(&mut self.roles);
        let roles = slots.iter().filter_map(|(role, slots)| Some((*role, gather(slots, take)?))).collect();
        let mut gathered = Gathered::default();
        for slot in &self.gathered {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            gathered.merge(&slot);
            if take {
                *slot = Gathered::default();
            }
        }
        Content { roles, gathered, scalars: self.scalars.clone() }
    }
}

impl Inbox {
    pub(super) fn report(&self, mut task: ReportTask) {
        let verdicts = match self.lock().layer(&task.run, task.run_id, &task.layer) {
            Some(layer) => Arc::clone(&layer.verdicts),
            None => return, // the run was deleted meanwhile
        };
        let published = self.measure(&mut task, &verdicts);
        let _timer = self.service.stages.enter(Stage::Publish);
        if let Some(closing) = task.closing.take() {
            self.store(&task, &closing, &published);
        }
        for waiter in task.waiters {
            if let Some(report) = published.first() {
                // Who waited may have gone.
                let _ = waiter.send(Arc::clone(report));
            }
        }
    }

    fn measure(&self, task: &mut ReportTask, verdicts: &Mutex<BTreeMap<Role, Stream>>) -> Vec<Arc<Published>> {
        let method = self.lock().runs.get(&task.run).and_then(|run| run.method);
        let thresholds = self.policy.thresholds(&task.run, method);
        let content = task.content();
        let mut streams = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        // A report so far moves neither hysteresis nor baseline: it is judged by a copy.
        let mut copy = streams.clone();
        let line = self.line();
        let judging = Judging {
            thresholds: &thresholds,
            streams: Some(&mut copy),
            step: task.step,
            method,
            skip_spectrum: task.skip_spectrum,
        };
        let outcomes = line.process(&content, judging);
        if task.closing.is_some() {
            *streams = copy;
        }
        drop(streams);
        let publish = |outcome: Outcome| {
            self.service.solver_failures.inc_by(outcome.failures as u64);
            let computed = line.computed(&content, &outcome, &thresholds);
            Arc::new(task.publish(outcome, computed))
        };
        outcomes.into_iter().map(publish).collect()
    }

    /// Makes a window's reports visible, then durable: what is stored of the published verdict is what is shown. Who waits
    /// for a report is answered after both.
    fn store(&self, task: &ReportTask, closing: &Closing, published: &[Arc<Published>]) {
        let mut registry = self.lock();
        let Some(run) = registry.runs.get_mut(&task.run).filter(|run| run.id == task.run_id) else { return };
        let (method, last_push, finished_at) = (run.method, run.last_push, run.finished_at);
        let Some(layer) = run.layers.get_mut(&task.layer) else { return };
        layer.settle(closing);
        let state = super::persist::to_json(layer);
        // Under the lock: a run that is deleted now must not come back, and what is stored of the run and its verdicts must
        // not be older than what another thread stored.
        self.board.publish(published);
        self.history.save(Saved {
            run: task.run.clone(),
            layer: task.layer.clone(),
            window: task.window,
            revision: task.revision,
            sessions: closing.sessions,
            method: method.map(Method::word),
            last_push,
            finished_at,
            layer_state: state,
            reports: published.to_vec(),
            latched: self.board.latched(&task.run),
        });
        drop(registry);
        self.history.flush();
        self.forget_deleted(&task.run);
    }

    /// What was written of a run after it was deleted is deleted, too.
    pub(super) fn forget_deleted(&self, run: &str) {
        let registry = self.lock();
        if !registry.runs.contains_key(run) {
            self.history.delete(run);
            drop(registry);
            self.history.flush();
        }
    }
}

impl ReportTask {
    fn publish(&self, outcome: Outcome, computed: Computed) -> Published {
        let mut notes = self.notes.clone();
        notes.extend(outcome.notes);
        let (rows, samples, views, dim) = outcome.shape;
        let report = Report {
            run: self.run.clone(),
            layer: format!("{}{}", self.layer, outcome.role.suffix()),
            window: self.window,
            revision: self.revision,
            step: self.step,
            rows,
            samples,
            views,
            dim,
            closed: self.closing.is_some(),
            complete: self.closing.as_ref().is_some_and(|closing| closing.complete && !closing.content.lost_rows),
            closed_at: self.closing.as_ref().map(|closing| closing.closed_at.to_string()),
            loss: self.scalars.get("loss").copied(),
            measures: outcome.measured.measures,
            diagnostics: outcome.diagnosed.diagnostics,
            loss_constant: outcome.diagnosed.constant,
            computed,
            notes,
            verdict: outcome.verdict,
        };
        Published::new(report, outcome.eigenvalues)
    }
}

/// The workers' accumulators merged in worker order; taken out of the slots at the close, copied before it.
fn gather(slots: &[Slot], take: bool) -> Option<Accumulator> {
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
