//! All runs and their verdicts, the worst first.

use serde_json::Value;

use super::frame::Frame;
use super::panel::{Panel, Row, state_number, state_words};

/// The links of a run in the table.
const RUN: &str =
    "/d/fullrank-run/run?var-run=${__data.fields.run:percentencode}&${datasource:queryparam}&${__url_time_range}";
const PAGE: &str = "${page:raw}/#run=${__data.fields.run:percentencode}";

/// 1 for isotropic noise.
const RANK_OVER_NULL: &str = "(fullrank_entropy_rank{L} - 1) / (fullrank_entropy_rank_null{L} - 1)";

/// A run's number on each of its layers, so that it appears in the layer's row of the table.
fn of_run(number: &str) -> String {
    format!("fullrank_report_rows{{L}} * 0 + on (job, instance, run) group_left () ({number})")
}

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
                "Number of layers by published verdict. A collapsed verdict is latched: it stays until it is acknowledged, its \
                 run is deleted, or its time to live is over.",
                "all of them `healthy`; `warming_up` in a run's first windows.",
                "any `collapsed`, then any `degrading`: the table below lists them first.",
            )
            .query("sum by (state) (fullrank_verdict{L})", "{{state}}"),
        Panel::stat("Alarms that hold", "none")
            .wide(6)
            .reads(
                "Alarms of the newest windows, including those of layers in warm-up.",
                "0. While a run warms up, alarms are normal: an untrained network looks collapsed.",
                "more than 0: the run's dashboard names them under \"Alarms\".",
            )
            .query("sum by (severity) (fullrank_alarm{L})", "{{severity}}"),
        Panel::stat("Runs", "none")
            .wide(6)
            .reads(
                "Running runs, and finished runs that have not left /metrics yet (--run-ttl-s).",
                "as many as you are training.",
                "fewer: a trainer does not push, or --max-series left runs out.",
            )
            .query("count(fullrank_run_finished{R} == 0) or vector(0)", "running")
            .query("count(fullrank_run_finished{R} == 1) or vector(0)", "finished"),
        table().links("run", &[("This run", RUN), ("On fullrank's page", PAGE)]),
    ]
}

fn table() -> Panel {
    Panel::table("Layers, worst first", "Verdict")
        .reads(
            "A row for each layer. Verdict and cause are the published ones, latched once collapsed; `scaled_std` is 1 for \
             isotropic noise, `rank / null` is (entropy_rank - 1) / (entropy_rank_null - 1), 1 for isotropic noise.",
            "`healthy`, cause `none`; `scaled_std` well above 0 (healthy SimSiam 0.65 to 0.8).",
            "complete collapse: `scaled_std` falls to 0, and the loss may look its best. Dimensional collapse: `rank / null` falls to 0. \
             If the last push of an unfinished run is long ago, the trainer hangs or is gone.",
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
        // The columns `cause` and `method` are labels; their values are always 1.
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
                "`degrading` is any alarm; `collapsed` is three critical windows in a row, latched.",
            )
            .words(state_words())
            .query(&state_number(), "{{run}} {{layer}}"),
        Panel::lines("Scale: scaled_std", "short")
            .spanning(0.0, 1.0)
            .reads(
                "Spread of unit rows by coordinate, times sqrt(d).",
                "near the null, which is 1 (isotropic noise); healthy SimSiam 0.65 to 0.8.",
                "complete collapse: falls to 0. A rotated low rank does not show here.",
            )
            .query("fullrank_scaled_std{L}", "{{run}} {{layer}}"),
        Panel::lines("Dimension: rank over its null", "percentunit")
            .spanning(0.0, 1.0)
            .reads(
                "(entropy_rank - 1) / (entropy_rank_null - 1): the rank as a share of that of isotropic noise (the null) at the same N and d.",
                "level or rising. Few healthy runs come near 100 %.",
                "dimensional collapse: falls to 0. Complete collapse alone does not show here.",
            )
            .query(RANK_OVER_NULL, "{{run}} {{layer}}"),
        Panel::lines("Loss", "short")
            .reads(
                "The newest loss pushed.",
                "falls, as usual for the method.",
                "the loss alone does not show it: a collapse takes SimSiam's to -1, its optimum. Compare with the two panels next to it.",
            )
            .query("fullrank_run_loss{R}", "{{run}}"),
        Panel::lines("Since the last push", "s")
            .reads(
                "Time since the last push of unfinished runs.",
                "below a window's length.",
                "it keeps growing: the trainer hangs, is gone, or its pushes are refused.",
            )
            .query("time() - fullrank_run_last_push_timestamp_seconds{R} and fullrank_run_finished{R} == 0", "{{run}}"),
        Panel::lines("Rows refused as not finite", "rowsps")
            .reads(
                "Rows with NaN, infinities or values above 1e140; their batches are refused.",
                "0.",
                "more than 0: the training diverges, or mixed precision overflows. The published values are from earlier windows.",
            )
            .query("rate(fullrank_nonfinite_rows_total{L}[$__rate_interval])", "{{run}} {{layer}}"),
    ]
}
