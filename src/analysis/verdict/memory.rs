//! How judgements add up over time: warm-up, the run's own baseline, three critical windows in a row, and recovery.
//!
//! Guarantees: depends only on the windows, in the order they closed. Must not: read a clock.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, SeenWindow, tail};
use super::judge::judge;
use super::judgement::{JudgedWindow, Judgement};
use super::thresholds::Thresholds;
use super::words::{Level, Verdict, VerdictState};
use crate::analysis::methods::LossConstant;

const ROLLING: usize = 5;
/// Windows outside the cone (mean cosine near 1, as in an untrained network) that end the warm-up.
const CONE_WINDOWS: u64 = 2;
/// A cone is not widening if it grew by less than this factor over the critical windows.
const WIDENING: f64 = 1.5;
/// How far past a threshold a window must be to count towards recovery.
const RECOVERY_MARGIN: f64 = 0.1;

/// One layer's memory for its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictMemory {
    /// The state after the newest window with enough rows.
    pub state: VerdictState,
    /// Windows with enough rows.
    pub windows: u64,
    pub(crate) outside_cone: u64,
    pub(crate) critical_running: u64,
    /// Windows in a row without a critical alarm, by a margin.
    pub(crate) uncritical_running: u64,
    /// Windows in a row without any alarm, by a margin.
    pub(crate) clear_running: u64,
    /// Windows in a row, since warm-up, in which the loss sits at its constant.
    pub(crate) loss_running: u64,
    pub(crate) recent: VecDeque<SeenWindow>,
    /// `None` until five windows have passed since warm-up.
    pub baseline: Option<Baseline>,
    /// The baseline no longer includes the run's first windows.
    pub(crate) settled: bool,
    /// The largest 1 - mean_cosine during warm-up.
    pub(crate) widest: f64,
    /// 1 - mean_cosine at the first of the current critical windows.
    pub(crate) fell_to: f64,
}

impl Default for VerdictMemory {
    fn default() -> Self {
        Self {
            state: VerdictState::WarmingUp,
            windows: 0,
            outside_cone: 0,
            critical_running: 0,
            uncritical_running: 0,
            clear_running: 0,
            loss_running: 0,
            recent: VecDeque::new(),
            baseline: None,
            settled: false,
            widest: 0.0,
            fell_to: 0.0,
        }
    }
}

impl VerdictMemory {
    /// Judges the next closed window. `step` is the trainer's counter, if it was sent.
    pub fn observe(&mut self, window: &JudgedWindow<'_>, step: Option<u64>, thresholds: &Thresholds) -> Verdict {
        let holds = window.diagnosed.and_then(|diagnosed| diagnosed.constant.as_ref()).is_some_and(LossConstant::holds);
        // Many sound trainings begin at the constant: it counts only after the warm-up.
        let counts = holds && self.state != VerdictState::WarmingUp;
        let window = &JudgedWindow { loss_windows: if counts { self.loss_running + 1 } else { 0 }, ..window.clone() };
        let judgement = judge(window, thresholds, self.baseline.as_ref());
        if judgement.insufficient {
            return verdict(VerdictState::InsufficientRows, judgement);
        }
        self.loss_running = window.loss_windows;
        let margin = judge(window, &thresholds.stricter(RECOVERY_MARGIN), self.baseline.as_ref());
        self.count(window, &judgement, &margin, thresholds);
        if self.warming(window, step, &judgement, thresholds) {
            return verdict(VerdictState::WarmingUp, judgement);
        }
        self.state = self.next(&judgement, thresholds);
        self.remember(window, step, thresholds);
        verdict(self.state, judgement)
    }

    /// Judges a file by itself: no warm-up, no hysteresis, no baseline.
    pub fn alone(window: &JudgedWindow<'_>, thresholds: &Thresholds) -> Verdict {
        let judgement = judge(window, thresholds, None);
        let state = match &judgement {
            j if j.insufficient => VerdictState::InsufficientRows,
            j if j.critical() => VerdictState::Collapsed,
            j if !j.alarms.is_empty() => VerdictState::Degrading,
            _ => VerdictState::Healthy,
        };
        verdict(state, judgement)
    }

    fn count(&mut self, window: &JudgedWindow<'_>, judgement: &Judgement, margin: &Judgement, t: &Thresholds) {
        let next = |running: u64, holds: bool| if holds { running + 1 } else { 0 };
        self.windows += 1;
        self.outside_cone += u64::from(outside_cone(window, t));
        self.widest = self.widest.max(width(window));
        if judgement.dimension == Level::Unknown && window.dim > 1 && !judgement.critical() {
            // The dimension is unknown (no eigenvalues, or too few rows to compare): the window counts neither towards
            // a collapse nor towards recovery.
            if !judgement.alarms.is_empty() {
                self.clear_running = 0;
            }
            return;
        }
        self.critical_running = next(self.critical_running, judgement.critical());
        if self.critical_running == 1 {
            self.fell_to = width(window);
        }
        self.uncritical_running = next(self.uncritical_running, !margin.critical());
        self.clear_running = next(self.clear_running, margin.alarms.is_empty());
    }

    /// Every run starts in a narrow cone and looks collapsed; that is not reported until it has left the cone or had
    /// time to.
    fn warming(&self, window: &JudgedWindow<'_>, step: Option<u64>, judgement: &Judgement, t: &Thresholds) -> bool {
        if self.state != VerdictState::WarmingUp || self.fell_back(window, judgement, t) {
            return false;
        }
        let deadline_passed =
            self.windows as f64 >= t.warmup_windows && step.is_none_or(|step| step as f64 >= t.warmup_steps);
        // A layer after a ReLU never leaves the cone, even if healthy: only the deadline counts.
        let left = self.outside_cone >= CONE_WINDOWS && !window.non_negative;
        !(left || deadline_passed)
    }

    /// A run that began wide, fell into a cone and stays there; healthy runs that dip into it in their first steps
    /// widen again immediately.
    fn fell_back(&self, window: &JudgedWindow<'_>, judgement: &Judgement, t: &Thresholds) -> bool {
        let width = width(window);
        self.outside_cone > 0
            && judgement.scale == Level::Critical
            && self.critical_running >= t.collapse_windows as u64
            && width <= t.cone_narrowing * self.widest
            && width <= WIDENING * self.fell_to
    }

    fn next(&self, judgement: &Judgement, t: &Thresholds) -> VerdictState {
        let recovered = t.recovery_windows as u64;
        if self.critical_running >= t.collapse_windows as u64 {
            return VerdictState::Collapsed;
        }
        if self.state == VerdictState::Collapsed && self.uncritical_running < recovered {
            return VerdictState::Collapsed;
        }
        let was_bad = matches!(self.state, VerdictState::Collapsed | VerdictState::Degrading);
        if !judgement.alarms.is_empty() || (was_bad && self.clear_running < recovered) {
            return VerdictState::Degrading;
        }
        VerdictState::Healthy
    }

    fn remember(&mut self, window: &JudgedWindow<'_>, step: Option<u64>, t: &Thresholds) {
        let m = window.measures;
        let rank = m.entropy_rank.zip(m.entropy_rank_null).map(|(rank, null)| rank / null);
        let spread = match (m.mean_cosine, m.scaled_std, m.relative_variance) {
            (Some(cosine), Some(std), Some(variance)) => Some((1.0 - cosine, std, variance)),
            _ => None,
        };
        self.recent.push_back(SeenWindow { rank, samples: window.samples, tail: tail(window), spread });
        if self.recent.len() > ROLLING {
            self.recent.pop_front();
        }
        if self.recent.len() < ROLLING {
            return;
        }
        // An untrained network's features are spread at random, wider than training keeps them. Once there are five
        // windows after the first few, those of the beginning no longer count, unless the run is falling right now.
        let later = self.windows as f64 >= t.warmup_windows + ROLLING as f64
            && step.is_none_or(|step| step as f64 >= t.baseline_steps)
            && self.recent.iter().all(|seen| seen.rank.is_some());
        if later && !self.settled && self.critical_running == 0 && self.state != VerdictState::Collapsed {
            self.baseline = None;
            self.settled = true;
        }
        self.raise_baseline();
    }

    fn raise_baseline(&mut self) {
        let median_of = |get: &dyn Fn(&SeenWindow) -> Option<f64>| median(self.recent.iter().filter_map(get).collect());
        let Some(rank) = median_of(&|seen| seen.rank) else { return };
        let tail = median_of(&|seen| seen.tail);
        let spread = match (
            median_of(&|seen| seen.spread.map(|s| s.0)),
            median_of(&|seen| seen.spread.map(|s| s.1)),
            median_of(&|seen| seen.spread.map(|s| s.2)),
        ) {
            (Some(a), Some(b), Some(c)) => Some((a, b, c)),
            _ => None,
        };
        let samples = self.recent.iter().map(|seen| seen.samples).min().unwrap_or(0);
        let Some(best) = &mut self.baseline else {
            self.baseline = Some(Baseline { rank, samples, tail, spread });
            return;
        };
        if rank > best.rank {
            (best.rank, best.samples) = (rank, samples);
        }
        best.tail = pick(best.tail, tail, f64::min);
        best.spread = match (best.spread, spread) {
            (Some(a), Some(b)) => Some((a.0.max(b.0), a.1.max(b.1), a.2.max(b.2))),
            (a, b) => a.or(b),
        };
    }
}

/// 1 - mean_cosine; 0 if no row has a direction.
fn width(window: &JudgedWindow<'_>) -> f64 {
    match (window.measures.mean_cosine, window.measures.relative_variance) {
        (Some(cosine), _) => (1.0 - cosine).max(0.0),
        // For isotropic unit rows the relative variance is the same.
        (None, Some(variance)) if window.without_unit_rows => variance,
        _ => 0.0,
    }
}

fn outside_cone(window: &JudgedWindow<'_>, t: &Thresholds) -> bool {
    match (window.measures.mean_cosine, window.measures.relative_variance) {
        (Some(cosine), _) => cosine <= t.cone_mean_cosine,
        // Moments without unit fields: for isotropic unit rows v = 1 - s2.
        (None, Some(variance)) => window.without_unit_rows && variance >= 1.0 - t.cone_mean_cosine,
        _ => false,
    }
}

fn pick(a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (a, b) => a.or(b),
    }
}

/// The middle value, the lower one for an even count. `None` unless all five are known.
fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.len() < ROLLING {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some(values[(values.len() - 1) / 2])
}

fn verdict(state: VerdictState, judgement: Judgement) -> Verdict {
    Verdict {
        state,
        scale: judgement.scale,
        dimension: judgement.dimension,
        cause: judgement.cause,
        reasons: judgement.reasons,
        alarms: judgement.alarms,
    }
}
