//! Requests about runs other than pushes: close, finish, acknowledge, delete, and the passing of time.
//!
//! Guarantees: a window closes only through `LayerState::close`. Must not: wait; callers that want the reports get
//! receivers.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::Pipeline;
use super::layer::CloseReason;
use super::push::PendingReports;
use super::registry::Registry;
use crate::error::Refusal;
use crate::identity::{RunName, WindowKey};

impl Pipeline {
    /// Closes a window of every layer; the history answers for a window that is already closed.
    /// Refuses with `not_found` if no layer of the run has that window.
    pub(crate) fn close_window(&self, run: &str, window: u64, now: Timestamp) -> Result<PendingReports, Refusal> {
        let mut registry = self.admission.lock();
        let found = registry.run(run)?;
        let name = found.name.clone();
        let mut reports = Vec::new();
        for (layer_name, layer) in &mut found.layers {
            if !layer.open.contains_key(&window) && !layer.closed.contains_key(&window) {
                continue;
            }
            layer.close(window, CloseReason::Asked, now);
            let (sender, receiver) = oneshot::channel();
            match layer.closing.iter_mut().rev().find(|closing| closing.window == window) {
                Some(closing) => closing.waiters.push(sender),
                // Stored or being measured: if being measured, the answer comes afterwards.
                None => {
                    let key = WindowKey { run: name.clone(), layer: layer_name.clone(), window, revision: 0 };
                    self.reports.queue_stored(key, sender);
                }
            }
            reports.push(receiver);
        }
        if reports.is_empty() {
            return Err(Refusal::not_found(format!("window {window} of run {run}")));
        }
        self.report_closed(&mut registry, run);
        Ok(reports)
    }

    /// Ends a run: its open windows close.
    ///
    /// # Errors
    /// `not_found` for an unknown run.
    pub fn finish(&self, run: &str, now: Timestamp) -> Result<PendingReports, Refusal> {
        let mut registry = self.admission.lock();
        let reports = self.finish_locked(&mut registry, run, CloseReason::Asked, now)?;
        self.report_closed(&mut registry, run);
        drop(registry);
        self.reports.history.flush();
        Ok(reports)
    }

    fn finish_locked(
        &self,
        registry: &mut Registry,
        name: &str,
        reason: CloseReason,
        now: Timestamp,
    ) -> Result<PendingReports, Refusal> {
        let run = registry.run(name)?;
        run.close_all(reason, now);
        run.finished_at.get_or_insert(now);
        self.reports.board.finished(name, run.finished_at);
        self.reports.history.save_run(name, run.method, run.last_push, run.finished_at);
        let name = run.name.clone();
        let mut reports = Vec::new();
        for (layer_name, layer) in &mut run.layers {
            layer.interrupted.clear();
            for closing in &mut layer.closing {
                let (sender, receiver) = oneshot::channel();
                closing.waiters.push(sender);
                reports.push(receiver);
            }
            // Windows being measured count before the run is marked finished: a gate may read the verdict next.
            let (sender, receiver) = oneshot::channel();
            self.reports.queue_passed(&name, layer_name, sender);
            reports.push(receiver);
        }
        Ok(reports)
    }

    /// Acknowledges a collapse: the published verdict is that of the newest window again.
    /// Refuses with `not_found` for an unknown run.
    pub(crate) fn acknowledge(&self, run: &str) -> Result<(), Refusal> {
        let mut registry = self.admission.lock();
        registry.run(run)?;
        self.reports.board.acknowledge(run);
        self.reports.history.unlatch(run);
        drop(registry);
        self.reports.history.flush();
        Ok(())
    }

    /// Deletes a run: its windows, its history, its series.
    ///
    /// # Errors
    /// `not_found` for an unknown run.
    pub fn delete(&self, run: &str) -> Result<(), Refusal> {
        let mut registry = self.admission.lock();
        registry.delete(run)?;
        self.reports.board.delete(run);
        self.reports.history.delete(run);
        drop(registry);
        self.reports.history.flush();
        Ok(())
    }

    /// Handles the passing of time: overdue windows, idle runs, expired runs, unstored reports.
    pub fn tick(&self, now: Timestamp) {
        let limits = &self.admission.limits;
        let mut registry = self.admission.lock();
        let names: Vec<RunName> = registry.runs.keys().cloned().collect();
        for name in names {
            let Ok(run) = registry.run(&name) else { continue };
            for layer in run.layers.values_mut() {
                for window in layer.overdue_windows(now, limits.window_patience_s) {
                    layer.close(window, CloseReason::GivenUp, now);
                }
            }
            let age = |since: Timestamp| now.as_second() - since.as_second();
            let (finished_at, idle, expired) = (run.finished_at, age(run.last_push), run.expired);
            if finished_at.is_none() && idle >= limits.idle_finish_s {
                // The run exists: its name came from the registry under the same lock.
                let _ = self.finish_locked(&mut registry, &name, CloseReason::GivenUp, now);
            } else if !expired && finished_at.is_some_and(|at| age(at) >= limits.run_ttl_s) {
                run.expired = true;
                self.reports.board.expire(&name);
                self.reports.history.unlatch(&name);
            }
            self.report_closed(&mut registry, &name);
        }
        drop(registry);
        self.reports.history.flush();
    }

    /// Refuses further pushes and closes every window as incomplete. The threads end once their queues are empty.
    pub fn drain(&self, now: Timestamp) {
        self.admission.close();
        self.reports.board.changed(); // ends the watchers
        let mut registry = self.admission.lock();
        let names: Vec<RunName> = registry.runs.keys().cloned().collect();
        for name in names {
            if let Ok(run) = registry.run(&name) {
                run.close_all(CloseReason::GivenUp, now);
            }
            self.report_closed(&mut registry, &name);
        }
    }
}
