//! What is asked of runs besides pushes: close, finish, acknowledge, delete, and the passing of time.
//!
//! Guarantees: a window closes through `Layer::close` only. Must not: wait; who wants the reports gets receivers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::inbox::Inbox;
use super::layer::Reason;
use super::registry::Registry;
use super::work::Task;
use crate::error::Refusal;
use crate::publish::Published;

/// Reports that are on their way, one a layer.
pub type Reports = Vec<oneshot::Receiver<Arc<Published>>>;

impl Inbox {
    /// Closes a window of every layer; a window that is closed already is answered from the history.
    ///
    /// # Errors
    /// `not_found` when no layer of the run has that window.
    pub fn close_window(&self, run: &str, window: u64, now: Timestamp) -> Result<Reports, Refusal> {
        let mut registry = self.lock();
        let found = registry.run_mut(run)?;
        let mut reports = Vec::new();
        let mut known = false;
        for (name, layer) in &mut found.layers {
            if !layer.open.contains_key(&window) && layer.closed.get(window).is_none() {
                continue;
            }
            known = true;
            layer.close(window, Reason::Asked, now);
            let (sender, receiver) = oneshot::channel();
            match layer.closing.iter_mut().rev().find(|closing| closing.window == window) {
                Some(closing) => closing.waiters.push(sender),
                // Stored, or being measured: then the answer comes after that.
                None => self.queues.task(run, name, Task::stored((run, name), window, sender)),
            }
            reports.push(receiver);
        }
        if !known {
            return Err(Refusal::not_found(format!("window {window} of run {run}")));
        }
        self.dispatch(&mut registry, run);
        Ok(reports)
    }

    /// Ends a run: its open windows close.
    ///
    /// # Errors
    /// `not_found` for an unknown run.
    pub fn finish(&self, run: &str, now: Timestamp) -> Result<Reports, Refusal> {
        let mut registry = self.lock();
        let reports = self.finish_locked(&mut registry, run, Reason::Asked, now)?;
        self.dispatch(&mut registry, run);
        drop(registry);
        self.history.flush();
        Ok(reports)
    }

    fn finish_locked(
        &self,
        registry: &mut Registry,
        name: &str,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Reports, Refusal> {
        let run = registry.run_mut(name)?;
        run.close_all(reason, now);
        run.finished_at.get_or_insert(now);
        self.board.finished(name, run.finished_at);
        self.history.save_run(name, run.method.map(|m| m.word()), run.last_push, run.finished_at);
        let mut reports = Vec::new();
        for (layer_name, layer) in &mut run.layers {
            layer.interrupted.clear();
            for closing in &mut layer.closing {
                let (sender, receiver) = oneshot::channel();
                closing.waiters.push(sender);
                reports.push(receiver);
            }
            // Windows that are being measured count before the run is called finished: a gate may read the verdict next.
            let (sender, receiver) = oneshot::channel();
            self.queues.task(name, layer_name, Task::Passed(sender));
            reports.push(receiver);
        }
        Ok(reports)
    }

    /// Somebody has seen the collapse: the published verdict is the newest window's again.
    ///
    /// # Errors
    /// `not_found` for an unknown run.
    pub fn acknowledge(&self, run: &str) -> Result<(), Refusal> {
        let registry = self.lock();
        registry.run(run)?;
        self.board.acknowledge(run);
        self.history.unlatch(run);
        drop(registry);
        self.history.flush();
        Ok(())
    }

    /// Forgets a run: its windows, its history, its series.
    ///
    /// # Errors
    /// `not_found` for an unknown run.
    pub fn delete(&self, run: &str) -> Result<(), Refusal> {
        let mut registry = self.lock();
        registry.run(run)?;
        registry.runs.remove(run);
        self.board.delete(run);
        self.history.delete(run);
        drop(registry);
        self.history.flush();
        Ok(())
    }

    /// What the passing of time brings: overdue windows, idle runs, runs past their time to live, unstored reports.
    pub fn tick(&self, now: Timestamp) {
        let mut registry = self.lock();
        let names: Vec<String> = registry.runs.keys().cloned().collect();
        for name in names {
            let Ok(run) = registry.run_mut(&name) else { continue };
            for layer in run.layers.values_mut() {
                for window in layer.overdue_windows(now, self.limits.window_patience_s) {
                    layer.close(window, Reason::GivenUp, now);
                }
            }
            let age = |since: Timestamp| now.as_second() - since.as_second();
            let (finished_at, idle, expired) = (run.finished_at, age(run.last_push), run.expired);
            if finished_at.is_none() && idle >= self.limits.idle_finish_s {
                // The run is here: its name came from the registry under the same lock.
                let _ = self.finish_locked(&mut registry, &name, Reason::GivenUp, now);
            } else if !expired && finished_at.is_some_and(|at| age(at) >= self.limits.run_ttl_s) {
                run.expired = true;
                self.board.expire(&name);
                self.history.unlatch(&name);
            }
            self.dispatch(&mut registry, &name);
        }
        drop(registry);
        self.history.flush();
    }

    /// Refuses further pushes and closes every window as incomplete. The threads end once their queues are empty.
    pub fn drain(&self, now: Timestamp) {
        self.draining.store(true, Ordering::Release);
        self.board.changed(); // watchers end
        let mut registry = self.lock();
        let names: Vec<String> = registry.runs.keys().cloned().collect();
        for name in names {
            if let Ok(run) = registry.run_mut(&name) {
                run.close_all(Reason::GivenUp, now);
            }
            self.dispatch(&mut registry, &name);
        }
    }

    /// Whether the service is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
