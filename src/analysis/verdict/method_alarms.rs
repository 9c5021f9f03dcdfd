//! What the methods' diagnostics add to a judgement: prototypes, batch norm, queue and loss.
//!
//! They degrade a run and name its cause; only the two axes decide on a collapse.

use super::judgement::{JudgedWindow, Judgement};
use super::thresholds::Thresholds;
use super::words::{Alarm, Cause, Level, VerdictReason};
use crate::analysis::methods::{Diagnostics, LossConstant};
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

/// Fewest samples to report a single prototype: ten even clusters look like five in two of five windows of 8 rows, and
/// in no window of 32.
const PROTOTYPE_SAMPLES: u64 = 32;

/// A perplexity under this means one prototype, however few there are.
const NEARLY_ONE: f64 = 1.5;

/// Judges the scale axis of a layer before batch norm. Returns whether it was judged here: if the layer after it was
/// sent, a cone before batch norm is not a collapse by itself, because batch norm subtracts the mean.
pub(super) fn judge_before_batch_norm(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) -> bool {
    let Some(values) = diagnostics(w).filter(|_| w.role == Role::PreBn).and_then(|all| all.batch_norm.as_ref()) else {
        return false;
    };
    if let (Some(total), Some(floor)) = (w.measures.total_variance, w.measures.noise_floor)
        && total <= floor
    {
        return false;
    }
    let Some((std, limit)) = values.pre_std.zip(values.pre_std_limit) else {
        // In a cone, and without bn_eps and bn_gamma the output of batch norm is not known: the axis stays unknown.
        return w.measures.mean_cosine.is_some_and(|cosine| cosine > t.mean_cosine_warning);
    };
    if judge_masked(w, t, out) {
        out.scale = Level::Warning;
        return true;
    }
    if std >= limit {
        out.scale = Level::Ok;
        return true;
    }
    false
}

pub(super) fn judge_methods(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) {
    if w.role != Role::Embedding {
        return;
    }
    judge_prototypes(w, t, out);
    judge_masked(w, t, out);
    judge_queue(w, t, out);
    judge_loss(w, t, out);
}

/// A cause that is more specific than those of the axes.
pub(super) fn specific_cause(w: &JudgedWindow<'_>, t: &Thresholds, out: &Judgement) -> Option<Cause> {
    if out.prototypes.is_some() {
        return out.prototypes;
    }
    if out.level(Alarm::MaskedByBatchNorm).is_some() && out.scale != Level::Critical {
        return Some(Cause::MaskedByBatchNorm);
    }
    // The keys collapsed but the queries did not: the keys are old.
    let fallen = out.scale > Level::Ok || out.dimension > Level::Ok;
    (w.role == Role::Teacher && fallen && drift(w).is_some_and(|distance| distance > t.stale_spectrum_distance))
        .then_some(Cause::StaleQueue)
}

pub(super) fn remaining_cause(w: &JudgedWindow<'_>, out: &Judgement) -> Cause {
    if out.level(Alarm::StaleQueue).is_some() {
        return Cause::StaleQueue;
    }
    if out.level(Alarm::Prototypes).is_some() {
        return Cause::OnePrototype;
    }
    if out.level(Alarm::LossConstant).is_some() && matches!(w.method, Some(Method::Swav | Method::Dino)) {
        return Cause::UniformPrototypes;
    }
    if out.alarms.is_empty() { Cause::None } else { Cause::NoAlignment }
}

fn diagnostics<'a>(w: &JudgedWindow<'a>) -> Option<&'a Diagnostics> {
    w.diagnosed.map(|diagnosed| &diagnosed.diagnostics)
}

/// Total variation distance between the spectra of key and query, if the run has a queue.
fn drift(w: &JudgedWindow<'_>) -> Option<f64> {
    let teacher = diagnostics(w)?.teacher.as_ref().filter(|_| w.method == Some(Method::Moco))?;
    teacher.spectrum_distance
}

/// (h, entropy of the mean row, ln K) of the student's targets, or of the student itself.
fn target_entropies(all: &Diagnostics) -> Option<(f64, f64, f64)> {
    if let Some(target) = &all.prototype_targets {
        return Some((target.entropy?, target.marginal_entropy?, target.count?.ln()));
    }
    let student = all.prototypes.as_ref()?;
    Some((student.entropy?, student.marginal_entropy?, student.count?.ln()))
}

/// DINO's two ways to collapse (Caron et al. 2021, section 5.3): the target's entropy goes to either end, and KL to 0
/// once the student has followed. Rows that are sharp but different are not a collapse, so the test for one prototype
/// uses the mean row. A target that is uniform on each row teaches nothing, whether or not the student has followed.
fn judge_prototypes(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) {
    let Some(all) = diagnostics(w) else { return };
    let divergence = all.prototypes.as_ref().and_then(|values| values.divergence);
    let named = |student, target| if all.prototype_targets.is_some() { target } else { student };
    let reason = |measure, value, threshold| VerdictReason::new(measure, value, threshold);
    if let Some((h, marginal, log_count)) = target_entropies(all) {
        let few = t.prototype_perplexity_one.min(t.prototype_usage_warning * log_count.exp()).max(NEARLY_ONE).ln();
        let even = t.prototype_entropy_uniform * log_count;
        let entropy = named("prototypes_entropy", "prototype_targets_entropy");
        let end = if marginal < few && w.samples >= PROTOTYPE_SAMPLES {
            let measure = named("prototypes_marginal_entropy", "prototype_targets_marginal_entropy");
            Some((Cause::OnePrototype, reason(measure, marginal, few), h < t.prototype_entropy_one))
        } else if h > even {
            Some((Cause::UniformPrototypes, reason(entropy, h, even), true))
        } else {
            None
        };
        if let Some((cause, why, settled)) = end {
            let mut reasons = vec![why];
            let followed = divergence.filter(|kl| settled && *kl < t.prototype_divergence_critical);
            reasons.extend(followed.map(|kl| reason("prototypes_divergence", kl, t.prototype_divergence_critical)));
            let level = if followed.is_some() { Level::Critical } else { Level::Warning };
            out.prototypes = Some(cause);
            out.fire(Alarm::Prototypes, level, reasons);
            return;
        }
    }
    let threshold = t.prototype_usage_warning;
    let usage = all.prototypes.as_ref().and_then(|values| values.usage_share);
    if let Some(value) = usage.filter(|share| *share < threshold) {
        out.fire(Alarm::Prototypes, Level::Warning, vec![reason("prototypes_usage_share", value, threshold)]);
    }
}

fn judge_masked(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) -> bool {
    let Some(values) = diagnostics(w).and_then(|all| all.batch_norm.as_ref()) else { return false };
    let (Some(std), Some(limit), Some(cosine), Some(share)) =
        (values.pre_std, values.pre_std_limit, values.pre_mean_cosine, values.post_variance_share)
    else {
        return false;
    };
    if std >= limit || cosine <= t.masked_mean_cosine || share <= t.masked_post_variance {
        return false;
    }
    let reasons = vec![
        VerdictReason::new("batch_norm_pre_std", std, limit),
        VerdictReason::new("batch_norm_pre_mean_cosine", cosine, t.masked_mean_cosine),
        VerdictReason::new("batch_norm_post_variance_share", share, t.masked_post_variance),
    ];
    out.fire(Alarm::MaskedByBatchNorm, Level::Warning, reasons);
    true
}

fn judge_queue(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) {
    let threshold = t.stale_spectrum_distance;
    if let Some(value) = drift(w).filter(|distance| *distance > threshold) {
        let reason = VerdictReason::new("teacher_spectrum_distance", value, threshold);
        out.fire(Alarm::StaleQueue, Level::Warning, vec![reason]);
    }
}

/// A loss at its constant means that nothing is learned, or that everything is one point: the scale axis tells which.
/// If the constant is also the method's optimum, a quiet scale axis means success.
fn judge_loss(w: &JudgedWindow<'_>, t: &Thresholds, out: &mut Judgement) {
    let constant: Option<&LossConstant> = w.diagnosed.and_then(|diagnosed| diagnosed.constant.as_ref());
    let Some(constant) = constant.filter(|_| w.loss_windows as f64 >= t.loss_constant_windows) else { return };
    let fallen = out.scale > Level::Ok;
    if constant.optimum && !fallen {
        return;
    }
    let level = if out.scale == Level::Critical { Level::Critical } else { Level::Warning };
    let value = w.diagnosed.and_then(|diagnosed| diagnosed.diagnostics.loss.as_ref()?.value).unwrap_or(constant.value);
    out.fire(Alarm::LossConstant, level, vec![VerdictReason::new("loss", value, constant.value)]);
}
