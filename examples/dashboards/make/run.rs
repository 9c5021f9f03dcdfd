//! One run: verdict and alarms over time, every measure with its null (the value for isotropic noise), every method's own
//! diagnostics.

use serde_json::Value;

use super::frame::Frame;
use super::panel::{Panel, Row, state_number, state_words, words};
use super::{measured, methods};

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "fullrank-run",
        title: "fullrank: one run",
        description: "Is this run collapsing, and why: ranks against their nulls (the values for isotropic noise), scale, \
                      spectrum, the method's own diagnostics, the loss against its constants, verdict and alarms over time.",
        of_runs: true,
        alerts: "ALERTS{R,alertname=~\"Fullrank.*\", alertstate=\"firing\"}",
        page: "${page:raw}/#run=${run:percentencode}",
    };
    let mut rows = vec![Row { title: "Verdict".to_string(), collapsed: false, panels: verdict() }];
    rows[0].panels.extend(pushed());
    rows.extend(measured::rows());
    rows.extend(methods::rows());
    frame.around(rows)
}

/// 0 for no alarm, 1 for a warning, 2 for a critical alarm.
fn alarms(family: &str) -> String {
    format!("max without (severity) ({family}{{L,severity=\"critical\"}} * 2 or {family}{{L,severity=\"warning\"}})")
}

fn verdict() -> Vec<Panel> {
    let levels = || words([("quiet", "green"), ("warning", "orange"), ("critical", "red")].into_iter());
    vec![
        Panel::timeline("Verdict")
            .wide(12)
            .reads(
                "The published verdict. `collapsed` is latched: it stays until it is acknowledged, the run is deleted, or its \
                 time to live is over.",
                "`warming_up`, then `healthy`.",
                "`degrading` is any alarm; `collapsed` is three critical windows in a row.",
            )
            .words(state_words())
            .query(&state_number(), "{{run}} {{layer}}"),
        Panel::timeline("Cause")
            .wide(12)
            .reads(
                "The cause of the published verdict, latched with it.",
                "`none`.",
                "`constant`: one point. `line`, `low_rank`: few directions. `dead_units`, `duplicate_units`: coordinates that \
                 do not vary, or copy others. The others belong to a method: the closed rows below have their numbers.",
            )
            .words(words([("", "text"), ("holds", "blue")].into_iter()))
            .query("fullrank_verdict_cause{L}", "{{run}} {{layer}} {{cause}}"),
        Panel::timeline("Alarms of the newest window")
            .wide(12)
            .high(12)
            .reads(
                "Each alarm by severity, as each window was judged, without hysteresis or latch.",
                "`quiet`. While a run warms up, `complete_collapse` is normal: an untrained network looks collapsed.",
                "for `complete_collapse` see the row \"Scale\", for the two dimensional ones \"Ranks\", for `spectrum_tail` \
                 \"Spectrum\".",
            )
            .words(levels())
            .query(&alarms("fullrank_alarm"), "{{run}} {{layer}} {{alarm}}"),
        Panel::timeline("Alarms of the published verdict")
            .wide(12)
            .high(12)
            .reads(
                "The same for the published verdict: once collapsed, the alarms of the collapse, whatever later windows show.",
                "`quiet`.",
                "differs from the panel next to it: the run has changed since the published collapse.",
            )
            .words(levels())
            .query(&alarms("fullrank_verdict_alarm"), "{{run}} {{layer}} {{alarm}}"),
    ]
}

/// What the trainer reports about the run.
fn pushed() -> Vec<Panel> {
    vec![
        Panel::lines("Loss", "short")
            .reads(
                "The newest loss pushed. The row \"loss\" below has the constants at which nothing was learned.",
                "falls, as usual for the method.",
                "the loss alone does not show it: a collapse takes SimSiam's to -1, its optimum.",
            )
            .query("fullrank_run_loss{R}", "{{run}}")
            .compare("fullrank_loss_constant{L}", "{{run}} {{layer}} constant"),
        Panel::lines("Progress", "short")
            .reads(
                "The newest step and window pushed, over time.",
                "both rise.",
                "they stop: the trainer hangs or is gone, unless the run is finished.",
            )
            .query("fullrank_run_step{R}", "{{run}} step")
            .query("fullrank_run_window{R}", "{{run}} window"),
        Panel::table("What it is", "run")
            .wide(8)
            .high(8)
            .reads(
                "Method, last push, and whether the run is finished.",
                "a last push within a window's length, or finished.",
                "no method: the method's diagnostics and `no_alignment` are not judged. No push for long: the trainer hangs or is gone.",
            )
            .column("max by (job, instance, run, method) (fullrank_run_info{R})", "Method is", "none")
            .column("time() - fullrank_run_last_push_timestamp_seconds{R}", "Last push ago", "s")
            .column("max by (job, instance, run) (fullrank_run_finished{R})", "Finished", "bool_yes_no")
            .hiding(&["Time", "job", "Value #A"]),
    ]
}
