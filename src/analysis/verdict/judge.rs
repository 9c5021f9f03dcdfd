//! One window against the thresholds, the nulls (what isotropic noise would read) and the run's own baseline: axes,
//! alarms, cause, reasons.

use super::baseline::{Baseline, tail};
use super::judgement::{JudgedWindow, Judgement};
use super::method_alarms;
use super::thresholds::Thresholds;
use super::words::{Alarm, Cause, Level, VerdictReason};
use crate::analysis::measures::Measures;
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

const SCALE_SAMPLES: u64 = 8;
const DIMENSION_SAMPLES: u64 = 16;
/// Fewest samples to report that views are not aligned: the gap's standard error is about 1 / sqrt(N D2).
const ALIGNMENT_SAMPLES: u64 = 64;
/// An entropy rank up to this is a collapse onto a line.
const LINE_RANK: f64 = 2.0;
/// Dead coordinates or copies are the cause from this share of the coordinates on.
const UNIT_SHARE: f64 = 0.5;

/// Judges one window.
pub fn judge(window: &JudgedWindow<'_>, thresholds: &Thresholds, baseline: Option<&Baseline>) -> Judgement {
    let mut judgement = Judgement {
        scale: Level::Unknown,
        dimension: Level::Unknown,
        cause: Cause::None,
        alarms: Vec::new(),
        reasons: Vec::new(),
        prototypes: None,
        insufficient: false,
    };
    if window.samples >= SCALE_SAMPLES && !method_alarms::judge_before_batch_norm(window, thresholds, &mut judgement) {
        judge_scale(window, thresholds, baseline, &mut judgement);
    }
    if window.samples >= DIMENSION_SAMPLES && window.dim > 1 {
        judge_dimension(window, thresholds, baseline, &mut judgement);
    }
    let few_for_dimension = window.samples < DIMENSION_SAMPLES && window.dim > 1;
    judgement.insufficient = window.samples < SCALE_SAMPLES || (few_for_dimension && judgement.alarms.is_empty());
    if judgement.insufficient {
        let needed = if window.dim > 1 { DIMENSION_SAMPLES } else { SCALE_SAMPLES };
        judgement.cause = Cause::InsufficientRows;
        judgement.reasons.push(VerdictReason::new("samples", window.samples as f64, needed as f64));
        return judgement;
    }
    judge_alignment(window, thresholds, &mut judgement);
    method_alarms::judge_methods(window, thresholds, &mut judgement);
    judgement.cause = cause(window, thresholds, &judgement);
    judgement
}

/// Judges the scale axis from one layer's own measures.
fn judge_scale(w: &JudgedWindow<'_>, t: &Thresholds, baseline: Option<&Baseline>, out: &mut Judgement) {
    let m = w.measures;
    if let (Some(total), Some(floor)) = (m.total_variance, m.noise_floor)
        && total <= floor
    {
        out.scale = Level::Critical;
        let reason = VerdictReason::new("total_variance", total, floor);
        out.fire(Alarm::CompleteCollapse, Level::Critical, vec![reason]);
        return;
    }
    if w.without_unit_rows {
        judge_relative_variance(m, t, out);
        return;
    }
    let (Some(q), Some(s2), Some(v)) = (m.scaled_std, m.mean_cosine, m.relative_variance) else { return };
    let narrow = t.non_negative_spread_critical;
    if w.non_negative && 1.0 - s2 < narrow && v < narrow {
        out.scale = Level::Critical;
        let reasons = vec![
            VerdictReason::new("mean_cosine", s2, 1.0 - narrow),
            VerdictReason::new("relative_variance", v, narrow),
        ];
        out.fire(Alarm::CompleteCollapse, Level::Critical, reasons);
        return;
    }
    // After a ReLU all cosines are positive, about 0.8 in a healthy network: compare with the run's own healthy spread.
    let own = if w.non_negative { baseline.and_then(|b| b.spread) } else { Some((1.0, 1.0, 1.0)) };
    let Some((spread, own_q, own_v)) = own else { return };
    out.scale = Level::Ok;
    // For a healthy spread of 1 these are the thresholds themselves: s2 > t is 1 - s2 < 1 - t.
    let std_below = |limit: f64| q < limit * own_q;
    let cosine_above = |limit: f64| 1.0 - s2 < (1.0 - limit) * spread;
    let variance_below = v < t.relative_variance_critical * own_v;
    let std_reason = |limit: f64| VerdictReason::new("scaled_std", q, limit * own_q);
    let cosine_reason = |limit: f64| VerdictReason::new("mean_cosine", s2, 1.0 - (1.0 - limit) * spread);
    if std_below(t.scaled_std_critical) && (cosine_above(t.mean_cosine_critical) || variance_below) {
        out.scale = Level::Critical;
        let mut reasons = vec![std_reason(t.scaled_std_critical)];
        if cosine_above(t.mean_cosine_critical) {
            reasons.push(cosine_reason(t.mean_cosine_critical));
        }
        if variance_below {
            let threshold = t.relative_variance_critical * own_v;
            reasons.push(VerdictReason::new("relative_variance", v, threshold));
        }
        out.fire(Alarm::CompleteCollapse, Level::Critical, reasons);
    } else if std_below(t.scaled_std_warning) && cosine_above(t.mean_cosine_warning) {
        out.scale = Level::Warning;
        let reasons = vec![std_reason(t.scaled_std_warning), cosine_reason(t.mean_cosine_warning)];
        out.fire(Alarm::CompleteCollapse, Level::Warning, reasons);
    }
}

/// Relative variance alone: the other measures need unit rows.
fn judge_relative_variance(m: &Measures, t: &Thresholds, out: &mut Judgement) {
    let Some(v) = m.relative_variance else { return };
    let reason = |threshold| vec![VerdictReason::new("relative_variance", v, threshold)];
    out.scale = Level::Ok;
    if v < t.relative_variance_critical {
        out.scale = Level::Critical;
        out.fire(Alarm::CompleteCollapse, Level::Critical, reason(t.relative_variance_critical));
    } else if v < t.relative_variance_warning {
        out.scale = Level::Warning;
        out.fire(Alarm::CompleteCollapse, Level::Warning, reason(t.relative_variance_warning));
    }
}

fn judge_dimension(w: &JudgedWindow<'_>, t: &Thresholds, baseline: Option<&Baseline>, out: &mut Judgement) {
    let m = w.measures;
    // An estimate fires only if the better end of its interval is past the threshold too.
    let (Some(d1), Some(null)) = (w.rank_at_best.or(m.entropy_rank), m.entropy_rank_null) else { return };
    out.dimension = Level::Ok;
    let share = (d1 - 1.0) / (null - 1.0);
    let mut fire = |alarm, level: Level, measure, value, threshold| {
        out.dimension = out.dimension.max(level);
        out.fire(alarm, level, vec![VerdictReason::new(measure, value, threshold)]);
    };
    // A predictor's outputs have the rank of what it has learned so far; in healthy runs that can be a line.
    let absolute = w.role != Role::Prediction;
    if absolute && share < t.rank_share_line {
        fire(Alarm::DimensionalCollapse, Level::Critical, "entropy_rank_share", share, t.rank_share_line);
    } else if absolute && share < t.rank_share_warning {
        fire(Alarm::DimensionalCollapse, Level::Warning, "entropy_rank_share", share, t.rank_share_warning);
    }
    let Some(baseline) = baseline else { return };
    if w.samples * 2 < baseline.samples {
        // Too few rows to compare with the baseline; the comparison with the null was made above.
        if out.dimension == Level::Ok {
            out.dimension = Level::Unknown;
        }
        return;
    }
    let ratio = d1 / null;
    let relative = Alarm::RelativeDimensionalCollapse;
    if ratio < t.relative_rank_critical * baseline.rank {
        let threshold = t.relative_rank_critical * baseline.rank;
        fire(relative, Level::Critical, "entropy_rank_to_null", ratio, threshold);
    } else if ratio < t.relative_rank_warning * baseline.rank {
        let threshold = t.relative_rank_warning * baseline.rank;
        fire(relative, Level::Warning, "entropy_rank_to_null", ratio, threshold);
    }
    if let (Some(tail), Some(own)) = (tail(w), baseline.tail) {
        let threshold = own + t.tail_decades_warning;
        if tail > threshold {
            fire(Alarm::SpectrumTail, Level::Warning, "log10_top_to_median", tail, threshold);
        }
    }
}

fn judge_alignment(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) {
    let quiet = out.scale == Level::Ok && matches!(out.dimension, Level::Ok | Level::Unknown);
    let expected = w.method.is_some_and(|method| method != Method::Other);
    let Some(gap) = w.measures.signal_gap.filter(|_| quiet && expected) else { return };
    if w.samples >= ALIGNMENT_SAMPLES && gap < t.signal_gap_warning {
        let reason = VerdictReason::new("signal_gap", gap, t.signal_gap_warning);
        out.fire(Alarm::NoAlignment, Level::Warning, vec![reason]);
    }
}

fn cause(w: &JudgedWindow<'_>, t: &Thresholds, out: &Judgement) -> Cause {
    if let Some(specific) = method_alarms::specific_cause(w, t, out) {
        return specific;
    }
    if out.scale == Level::Critical {
        return Cause::Constant;
    }
    if out.dimension > Level::Ok {
        let m = w.measures;
        let dead = m.dead_dims.unwrap_or(0.0);
        let live = w.dim as f64 - dead;
        if m.entropy_rank.is_some_and(|rank| rank <= LINE_RANK) {
            return Cause::Line;
        }
        if dead >= UNIT_SHARE * w.dim as f64 {
            return Cause::DeadUnits;
        }
        if m.duplicate_dims.is_some_and(|copies| copies >= UNIT_SHARE * live) {
            return Cause::DuplicateUnits;
        }
        return Cause::LowRank;
    }
    if out.level(Alarm::CompleteCollapse).is_some() {
        return Cause::Constant;
    }
    method_alarms::remaining_cause(w, out)
}
