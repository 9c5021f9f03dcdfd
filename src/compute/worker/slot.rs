//! Gives jobs to one worker at a time, and starts the next worker after a failure.
//!
//! Guarantees: a worker that failed gets no second job. The next worker starts with the next job; after a second
//! failure in a row one second later, then twice as late each time, at most a minute. A row of failures ends with an
//! answer that comes a minute after the last failure, so a kind of job that always fails does not start a worker each
//! time. A worker that ended between jobs costs no job. Must not: compute in the worker's place.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::call::KernelCall;
use super::process::{Answer, Broken, Launch, Process};
use crate::compute::resources::Clock;
use kernels::fault::{DeviceEvent, FallbackReason};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct WorkerSlot {
    launch: Launch,
    clock: Clock,
    state: Mutex<SlotState>,
}

struct SlotState {
    process: Option<Process>,
    failures: u32,
    failed: Duration,
    /// No worker is started before this time.
    not_before: Duration,
}

impl WorkerSlot {
    /// Starts the first worker.
    pub(crate) fn start(launch: Launch, clock: Clock) -> Result<Self, Broken> {
        let process = Some(Process::start(&launch, &clock)?);
        let state = Mutex::new(SlotState { process, failures: 0, failed: Duration::ZERO, not_before: Duration::ZERO });
        Ok(Self { launch, clock, state })
    }

    /// Runs a job after those before it and returns the answer if it passes `check`; reports to `tell` when a worker
    /// ends and another starts.
    pub(crate) fn ask<T>(
        &self,
        job: &KernelCall<'_>,
        check: impl FnOnce(Answer) -> Result<T, String>,
        tell: &dyn Fn(&DeviceEvent),
    ) -> Result<T, Broken> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = self.ready(&mut state, tell).and_then(|process| {
            let answer = process.ask(job)?;
            check(answer)
                .map_err(|detail| Broken::new(FallbackReason::Malformed, format!("{:?}: {detail}", job.kernel)))
        });
        match &answered {
            Ok(_) if (self.clock)().saturating_sub(state.failed) >= LONGEST_PAUSE => state.failures = 0,
            Ok(_) => {}
            Err(broken) if broken.reason.ends_worker() => self.end(&mut state, broken, tell),
            Err(_) => {}
        }
        answered
    }

    fn ready<'a>(&self, state: &'a mut SlotState, tell: &dyn Fn(&DeviceEvent)) -> Result<&'a mut Process, Broken> {
        if let Some(how) = state.process.as_mut().and_then(Process::ended) {
            self.end(state, &Broken::new(FallbackReason::Crashed, format!("the worker {how}, between jobs")), tell);
        }
        if state.process.is_none() {
            let left = state.not_before.saturating_sub((self.clock)());
            if !left.is_zero() {
                let detail = format!("the next worker starts in {:.1} s", left.as_secs_f64());
                return Err(Broken::new(FallbackReason::BackingOff, detail));
            }
            state.process = Some(Process::start(&self.launch, &self.clock)?);
            tell(&DeviceEvent::Restarted);
        }
        state.process.as_mut().ok_or_else(|| Broken::new(FallbackReason::NotStarted, "there is no worker"))
    }

    fn end(&self, state: &mut SlotState, broken: &Broken, tell: &dyn Fn(&DeviceEvent)) {
        state.process = None;
        let pause = pause(state.failures);
        state.failures += 1;
        state.failed = (self.clock)();
        state.not_before = state.failed + pause;
        tell(&DeviceEvent::Ended { reason: broken.reason, detail: broken.detail.clone(), pause });
    }
}

/// No pause after the first failure, then one second, doubled each time.
fn pause(failures_before: u32) -> Duration {
    match failures_before.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(6)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds: Vec<u64> = (0..10).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
