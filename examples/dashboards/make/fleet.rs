//! All runs and their verdicts, the worst first.

use serde_json::Value;

use super::frame::Frame;
use super::panel::{Panel, Row, state_number, state_words};

/// Where a run of the table leads to.
const RUN: &str =
    "/d/fullrank-run/run?var-run=${__data.fields.run:percentencode}&${datasource:queryparam}&${__url_time_range}";
const PAGE: &str = "${page:raw}/#run=${__data.fields.run:percentencode}";

/// 1 for isotropic rows.
const RANK_OVER_NULL: &str = "(fullrank_entropy_rank{L} - 1) / (fullrank_entropy_rank_null{L} - 1)";

/// A run's number on every layer of it, so that it stands in the layer's line of the table.
fn of_run(number: &str) -> String {
    format!("fullrank_report_rows{{L}} * 0 + on (job, instance, run) group_left () ({number})")
}

/// See the file's head.
pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "fullrank-fleet",
        title: "fullrank: all runs",
        description: "Every run that fullrank watches, the worst first: verdict, cause, last push, loss.",
        of_runs: true,
        alerts: "ALERTS{R,alertname=~\"Fullrank.*\", alertstate=\"firing\"}",
        page: "${page:raw}/",
    };
    let rows = [("Now", now()), ("Over time", over_time())];
    frame.around(rows.map(|(title, panels)| Row { title: title.to_string(), collapsed: false, panels }).into())
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Layers by verdict", "none")
            .wide(12)
            .reads(
                "How many layers have which published verdict. A collapsed one stays so until it is acknowledged, its run \
                 is deleted, or its time to live is over.",
                "all of them `healthy`; `warming_up` in a run's first windows.",
                "any `collapsed`, then any `degrading`: the table below has them on top.",
            )
            .query("sum by (state) (fullrank_verdict{L})", "{{state}}"),
        Panel::stat("Alarms that hold", "none")
            .wide(6)
            .reads(
                "Alarms of the newest windows, of layers past their warm-up or not.",
                "0. While a run warms up, an untrained network's alarms are no news.",
                "more: \"Alarms\" of the run's dashboard names them.",
            )
            .query("sum by (severity) (fullrank_alarm{L})", "{{severity}}"),
        Panel::stat("Runs", "none")
            .wide(6)
            .reads(
                "Runs that are pushed to, and runs that are finished and have not left /metrics yet (--run-ttl-s).",
                "as many as you train.",
                "fewer than you train: a trainer does not push, or --max-series left runs out.",
            )
            .query("count(fullrank_run_finished{R} == 0) or vector(0)", "going on")
            .query("count(fullrank_run_finished{R} == 1) or vector(0)", "finished"),
        table().links("run", &[("This run", RUN), ("On fullrank's page", PAGE)]),
    ]
}

fn table() -> Panel {
    Panel::table("Layers, worst first", "Verdict")
        .reads(
            "A line for each layer. Verdict and cause are the published ones, latched once collapsed; `scaled_std` is 1 for \
             isotropic rows, `rank / null` is (entropy_rank - 1) / (entropy_rank_null - 1), 1 for isotropic rows.",
            "`healthy`, cause `none`; `scaled_std` well above 0 (healthy SimSiam 0.65 to 0.8).",
            "complete collapse: `scaled_std` to 0, and the loss may look its best. Dimensional collapse: `rank / null` to 0. \
             A last push long ago in a run that is not finished: the trainer hangs or is gone.",
        )
        .column(&state_number(), "Verdict", "none")
        .words(state_words())
        .column("max by (job, instance, run, layer, cause) (fullrank_verdict_cause{L})", "Cause is", "none")
        .column(&of_run("time() - fullrank_run_last_push_timestamp_seconds{R}"), "Last push ago", "s")
        .column(&of_run("fullrank_run_loss{R}"), "Loss", "short")
        .column("max by (job, instance, run, layer) (fullrank_scaled_std{L})", "scaled_std", "short")
        .column(RANK_OVER_NULL, "rank / null", "percentunit")
        .column(&of_run("fullrank_run_window{R}"), "Window", "none")
        .column("fullrank_report_rows{L} * 0 + on (job, instance, run) group_left (method) fullrank_run_info{R}", "Method is", "none")
        // The columns `cause` and `method` are labels; the values beside them are always 1.
        .hiding(&["Time", "job", "Value #B", "Value #H"])
        .high(12)
}

fn over_time() -> Vec<Panel> {
    vec![
        Panel::timeline("Verdicts")
            .wide(24)
            .reads(
                "The published verdict of each layer.",
                "`warming_up`, then `healthy`.",
                "`degrading` is any alarm; `collapsed` are three critical windows running, latched.",
            )
            .words(state_words())
            .query(&state_number(), "{{run}} {{layer}}"),
        Panel::lines("Scale: scaled_std", "short")
            .spanning(0.0, 1.0)
            .reads(
                "Spread of unit rows by coordinate, times sqrt(d).",
                "near the null, which is 1 for isotropic rows; healthy SimSiam 0.65 to 0.8.",
                "complete collapse goes to 0. A rotated low rank does not show here.",
            )
            .query("fullrank_scaled_std{L}", "{{run}} {{layer}}"),
        Panel::lines("Dimension: rank over its null", "percentunit")
            .spanning(0.0, 1.0)
            .reads(
                "(entropy_rank - 1) / (entropy_rank_null - 1): what the rank is of isotropic rows' at the same N and d.",
                "level, or rising. Few healthy runs come near 100 %.",
                "dimensional collapse goes to 0. Complete collapse does not show here by itself.",
            )
            .query(RANK_OVER_NULL, "{{run}} {{layer}}"),
        Panel::lines("Loss", "short")
            .reads(
                "The newest loss pushed.",
                "falls, as the method has it.",
                "it cannot tell: SimSiam's collapse brings it to -1, the best there is. Compare with the two panels beside it.",
            )
            .query("fullrank_run_loss{R}", "{{run}}"),
        Panel::lines("Since the last push", "s")
            .reads(
                "How long runs that are not finished have been silent.",
                "below a window's length.",
                "it grows without end: the trainer hangs, is gone, or its pushes are refused.",
            )
            .query("time() - fullrank_run_last_push_timestamp_seconds{R} and fullrank_run_finished{R} == 0", "{{run}}"),
        Panel::lines("Rows refused as not finite", "rowsps")
            .reads(
                "Rows with NaN, infinities or values above 1e140; their batches are refused.",
                "0.",
                "more: the training diverges, or mixed precision overflows. What is published is of the windows before.",
            )
            .query("rate(fullrank_nonfinite_rows_total{L}[$__rate_interval])", "{{run}} {{layer}}"),
    ]
}
