//! What time makes of windows: warm-up, three running, recovery, the run's own baseline. On made-up measures.

use fullrank::analysis::measures::{Measures, entropy_rank_null};
use fullrank::analysis::parameters::Method;
use fullrank::analysis::role::Role;
use fullrank::analysis::verdict::{Cause, JudgedWindow, Level, Thresholds, Verdict, VerdictMemory, VerdictState};

const DIM: usize = 64;
const SAMPLES: u64 = 512;

/// (mean_cosine, entropy rank) of a window; scaled_std and relative_variance follow as on a cone of that width.
fn measures(cosine: f64, rank: Option<f64>) -> Measures {
    Measures {
        total_variance: Some(1.0),
        noise_floor: Some(1e-12),
        relative_variance: Some(1.0 - cosine),
        mean_cosine: Some(cosine),
        scaled_std: Some((1.0 - cosine).max(0.0).sqrt()),
        entropy_rank: rank,
        entropy_rank_null: Some(entropy_rank_null(SAMPLES as f64 - 1.0, DIM as f64)),
        ..Measures::default()
    }
}

/// A window of one view that was measured so, without anything special about it.
pub fn window(measures: &Measures) -> JudgedWindow<'_> {
    JudgedWindow {
        measures,
        samples: SAMPLES,
        dim: DIM,
        non_negative: false,
        without_unit_rows: false,
        role: Role::Embedding,
        method: None,
        diagnosed: None,
        loss_windows: 0,
        rank_at_best: None,
    }
}

fn see(stream: &mut VerdictMemory, cosine: f64, rank: f64, step: Option<u64>) -> Verdict {
    stream.observe(&window(&measures(cosine, Some(rank))), step, &Thresholds::default())
}

/// The states of windows of these (mean_cosine, entropy rank).
fn states(windows: &[(f64, f64)]) -> Vec<VerdictState> {
    let mut stream = VerdictMemory::default();
    windows.iter().map(|(cosine, rank)| see(&mut stream, *cosine, *rank, None).state).collect()
}

const CONE: (f64, f64) = (0.999, 2.0);
const HEALTHY: (f64, f64) = (0.1, 40.0);
use VerdictState::{Collapsed, Degrading, Healthy, InsufficientRows, WarmingUp};

#[test]
fn an_untrained_network_is_not_called() {
    assert_eq!(states(&[CONE, CONE, HEALTHY, HEALTHY, HEALTHY]), [WarmingUp, WarmingUp, WarmingUp, Healthy, Healthy]);
}

#[test]
fn a_run_that_never_leaves_the_cone_is_collapsed_at_the_deadline() {
    assert_eq!(states(&[CONE; 6]), [WarmingUp, WarmingUp, WarmingUp, WarmingUp, Collapsed, Collapsed]);
    // Where steps are sent they must pass, too.
    let mut stream = VerdictMemory::default();
    let got: Vec<VerdictState> = (0..8u64).map(|w| see(&mut stream, CONE.0, CONE.1, Some(w * 100)).state).collect();
    assert_eq!(got, [WarmingUp, WarmingUp, WarmingUp, WarmingUp, WarmingUp, Collapsed, Collapsed, Collapsed]);
}

#[test]
fn three_critical_windows_running_collapse_and_five_clear_ones_recover() {
    let mut windows = vec![HEALTHY; 3];
    windows.extend([CONE, CONE, HEALTHY, CONE, CONE, CONE]);
    windows.extend([HEALTHY; 6]);
    let got = states(&windows);
    assert_eq!(got[..3], [WarmingUp, Healthy, Healthy]);
    assert_eq!(got[3..9], [Degrading, Degrading, Degrading, Degrading, Degrading, Collapsed]);
    assert_eq!(got[9..], [Collapsed, Collapsed, Collapsed, Collapsed, Healthy, Healthy]);
}

#[test]
fn recovery_needs_a_margin() {
    let thresholds = Thresholds::default();
    let mut stream = VerdictMemory::default();
    for _ in 0..3 {
        see(&mut stream, HEALTHY.0, HEALTHY.1, None);
    }
    assert_eq!(see(&mut stream, HEALTHY.0, 3.0, None).state, Degrading);
    // A share of 0.052 is above the warning of 0.05 but not by a tenth.
    let null = entropy_rank_null(SAMPLES as f64 - 1.0, DIM as f64);
    let near = 1.0 + 0.052 * (null - 1.0);
    assert!(0.052 > thresholds.rank_share_warning);
    for _ in 0..8 {
        assert_eq!(see(&mut stream, HEALTHY.0, near, None).state, Degrading);
    }
}

#[test]
fn a_rank_is_held_to_the_runs_own_best() {
    let mut stream = VerdictMemory::default();
    for _ in 0..8 {
        see(&mut stream, HEALTHY.0, HEALTHY.1, None);
    }
    let warned = see(&mut stream, HEALTHY.0, 0.65 * HEALTHY.1, None);
    assert_eq!((warned.state, warned.dimension, warned.cause), (Degrading, Level::Warning, Cause::LowRank));
    assert_eq!(warned.reasons[0].measure, "entropy_rank_to_null");
    for _ in 0..2 {
        assert_eq!(see(&mut stream, HEALTHY.0, 0.3 * HEALTHY.1, None).state, Degrading);
    }
    let collapsed = see(&mut stream, HEALTHY.0, 0.3 * HEALTHY.1, None);
    assert_eq!((collapsed.state, collapsed.dimension), (Collapsed, Level::Critical));
}

#[test]
fn the_first_windows_set_no_baseline() {
    // Ranks that fall within the first five windows are what training does.
    let mut windows: Vec<(f64, f64)> = [60.0, 40.0, 20.0, 18.0, 17.0].map(|rank| (0.1, rank)).to_vec();
    windows.extend([(0.1, 16.0); 6]);
    assert!(states(&windows)[1..].iter().all(|state| *state == Healthy));
}

#[test]
fn a_run_that_falls_into_a_cone_is_called_before_the_deadline_and_one_that_dips_into_it_is_not() {
    let see_all = |cosines: &[f64]| {
        let mut stream = VerdictMemory::default();
        let states: Vec<VerdictState> =
            cosines.iter().map(|cosine| see(&mut stream, *cosine, 20.0, Some(10)).state).collect();
        states
    };
    assert_eq!(see_all(&[0.6, 0.98, 0.981, 0.982]), [WarmingUp, WarmingUp, WarmingUp, Collapsed]);
    // Widening again, as healthy predictors do at their first steps.
    assert!(see_all(&[0.6, 0.985, 0.97, 0.95, 0.92]).iter().all(|state| *state == WarmingUp));
    // Narrow from the start, as many an untrained network: there is nothing that it fell from.
    assert!(see_all(&[0.99; 12]).iter().all(|state| *state == WarmingUp));
    assert!(see_all(&[0.96, 0.99, 0.999, 0.999, 0.999]).iter().all(|state| *state == WarmingUp));
}

#[test]
fn the_beginning_does_not_stay_in_the_baseline() {
    // Random features are spread wide; training narrows them to what it needs, and that is what later windows are held to.
    let mut windows: Vec<(f64, f64)> = [40.0, 30.0, 26.0, 22.0, 20.0, 18.0, 16.0].map(|rank| (0.1, rank)).to_vec();
    windows.extend([(0.1, 14.0); 20]);
    assert_eq!(states(&windows).last(), Some(&Healthy));
    // A fall in those same windows stays one.
    let mut windows = [(0.1, 40.0); 7].to_vec();
    windows.extend([(0.1, 8.0); 10]);
    assert_eq!(states(&windows).last(), Some(&Collapsed));
}

#[test]
fn too_few_rows_say_nothing_and_change_nothing() {
    let thresholds = Thresholds::default();
    let mut stream = VerdictMemory::default();
    see(&mut stream, HEALTHY.0, HEALTHY.1, None);
    let before = stream.clone();
    let few = measures(0.999, Some(2.0));
    let verdict = stream.observe(&JudgedWindow { samples: 7, ..window(&few) }, None, &thresholds);
    assert_eq!((verdict.state, verdict.cause), (InsufficientRows, Cause::InsufficientRows));
    assert_eq!((verdict.scale, verdict.dimension), (Level::Unknown, Level::Unknown));
    assert_eq!(stream, before);
    // Eight samples are enough for the scale axis, whose alarm then counts.
    let eight = stream.observe(&JudgedWindow { samples: 8, ..window(&few) }, None, &thresholds);
    assert_eq!((eight.scale, eight.dimension), (Level::Critical, Level::Unknown));
}

#[test]
fn a_window_without_eigenvalues_is_no_step_out_of_a_collapse() {
    let mut stream = VerdictMemory::default();
    for (cosine, rank) in [HEALTHY, HEALTHY, (0.1, 1.1), (0.1, 1.1), (0.1, 1.1)] {
        see(&mut stream, cosine, rank, None);
    }
    assert_eq!(stream.state, Collapsed);
    for _ in 0..9 {
        let blind = stream.observe(&window(&measures(0.1, None)), None, &Thresholds::default());
        assert_eq!((blind.state, blind.dimension), (Collapsed, Level::Unknown));
    }
}

#[test]
fn a_half_blind_warning_is_no_step_out_of_a_collapse_either() {
    let mut stream = VerdictMemory::default();
    for (cosine, rank) in [HEALTHY, HEALTHY, (0.1, 1.1), (0.1, 1.1), (0.1, 1.1)] {
        see(&mut stream, cosine, rank, None);
    }
    // In a mild cone the scale axis warns; nobody looked at the dimension axis.
    let mild = Measures { scaled_std: Some(0.45), ..measures(0.6, None) };
    for _ in 0..9 {
        let blind = stream.observe(&window(&mild), None, &Thresholds::default());
        assert_eq!((blind.state, blind.scale, blind.dimension), (Collapsed, Level::Warning, Level::Unknown));
    }
}

#[test]
fn behind_a_relu_the_scale_is_held_to_the_runs_own() {
    let thresholds = Thresholds::default();
    let mut stream = VerdictMemory::default();
    let mut relu = |cosine: f64| {
        let m = measures(cosine, Some(20.0));
        stream.observe(&JudgedWindow { non_negative: true, ..window(&m) }, None, &thresholds)
    };
    // 0.8 is healthy there: unknown without a baseline, fine with one.
    let first: Vec<(VerdictState, Level)> = (0..10).map(|_| relu(0.8)).map(|v| (v.state, v.scale)).collect();
    assert_eq!(first[0], (WarmingUp, Level::Unknown));
    assert_eq!(first[9], (Healthy, Level::Ok));
    assert_eq!(relu(0.985).scale, Level::Critical);
    assert_eq!(relu(0.9999).cause, Cause::Constant);
}

#[test]
fn moments_without_unit_rows_are_judged_by_their_variance() {
    let mut m = measures(0.0, Some(40.0));
    (m.mean_cosine, m.scaled_std) = (None, None);
    for (variance, scale) in [(0.9, Level::Ok), (0.2, Level::Warning), (0.04, Level::Critical)] {
        m.relative_variance = Some(variance);
        let verdict =
            VerdictMemory::alone(&JudgedWindow { without_unit_rows: true, ..window(&m) }, &Thresholds::default());
        assert_eq!(verdict.scale, scale, "{variance}");
    }
}

#[test]
fn unaligned_views_are_named_where_the_method_says_they_should_align() {
    let m = Measures { signal_gap: Some(0.01), ..measures(0.05, Some(40.0)) };
    let judge = |method| VerdictMemory::alone(&JudgedWindow { method, ..window(&m) }, &Thresholds::default());
    assert_eq!((judge(Some(Method::Simclr)).cause, judge(Some(Method::Simclr)).state), (Cause::NoAlignment, Degrading));
    for method in [None, Some(Method::Other)] {
        assert_eq!((judge(method).cause, judge(method).state), (Cause::None, Healthy));
    }
}
