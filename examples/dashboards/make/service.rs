//! fullrank itself: what arrives, what waits, how long stages take, what failed.

use serde_json::Value;

use super::frame::Frame;
use super::panel::{Panel, Row};

pub(super) fn dashboard() -> Value {
    let frame = Frame {
        uid: "fullrank-service",
        title: "fullrank: the service",
        description: "fullrank itself: what is pushed and refused, what waits, how long stages take, and the process.",
        of_runs: false,
        alerts: "ALERTS{S,alertname=~\"Fullrank.*\", alertstate=\"firing\", run=\"\"}",
        page: "${page:raw}/",
    };
    let rows = [
        ("Ingest", ingest()),
        ("In use", in_use()),
        ("Stages", stages()),
        ("What should stay 0", troubles()),
        ("Process", process()),
    ];
    frame.around(rows.map(|(title, panels)| Row { title: title.to_string(), collapsed: false, panels }).into())
}

/// A counter's rate by some labels.
fn rate(panel: Panel, counter: &str, by: &[&str]) -> Panel {
    let legend: Vec<String> = [&["instance"], by].concat().iter().map(|label| format!("{{{{{label}}}}}")).collect();
    let labels = [&["instance"], by].concat().join(", ");
    panel.query(&format!("sum by ({labels}) (rate({counter}{{S}}[$__rate_interval]))"), &legend.join(" "))
}

fn ingest() -> Vec<Panel> {
    vec![
        rate(Panel::lines("Batches accepted", "ops"), "fullrank_batches_accepted_total", &["door"]).reads(
            "Pushes accepted, by endpoint (`door`).",
            "as much as your trainings push.",
            "0 while trainings run: they do not reach the service, or it refuses their pushes.",
        ),
        rate(Panel::lines("Rows", "rowsps"), "fullrank_rows_total", &[]).reads(
            "Rows admitted, all views counted.",
            "as much as your trainings push.",
            "falls while batches do not: batches have become smaller, and the nulls (values for isotropic noise) change with them.",
        ),
        rate(Panel::lines("Bytes received", "Bps"), "fullrank_received_bytes_total", &[]).reads(
            "Bytes of accepted bodies, decompressed.",
            "within the network and --in-flight-bytes.",
            "a jump: a trainer pushes more rows, or f64 instead of f32.",
        ),
        rate(Panel::lines("Batches refused", "ops"), "fullrank_batches_rejected_total", &["door", "reason"]).reads(
            "Pushes refused, by endpoint (`door`) and error code; README.md, \"Limits\", has the remedy for each.",
            "0, or bursts of a few `overloaded`: clients send those again.",
            "`overloaded` or `too_many_streams` all the time: the limits are too low. `storage_full`: the disk is full. `not_finite`: a training diverges.",
        ),
        rate(Panel::lines("Batches that came again", "ops"), "fullrank_batches_duplicate_total", &["door"]).reads(
            "Batches whose session, worker and sequence number were already accepted; each counts once.",
            "0, or a few after a timeout.",
            "many: the answers do not reach the trainers in time.",
        ),
        Panel::lines("Alerts posted", "ops")
            .query(
                "sum by (instance, receiver, outcome) (rate(fullrank_notifications_total{S}[$__rate_interval]))",
                "{{instance}} {{receiver}} {{outcome}}",
            )
            .reads(
                "Alerts sent by --webhook and --alertmanager, by outcome.",
                "`sent` when verdicts change; no `failed` or `dropped`.",
                "`failed`: the receiver does not answer; the alert is sent again. `dropped`: ended alerts that no receiver accepted in time.",
            ),
    ]
}

fn in_use() -> Vec<Panel> {
    vec![
        Panel::lines("Batches that wait", "none")
            .query("fullrank_inbox_batches{S}", "{{instance}}")
            .compare("fullrank_inbox_capacity_batches{S}", "{{instance}} capacity")
            .reads(
                "Batches waiting to be merged, and the capacity (dashed).",
                "near 0.",
                "at the capacity: pushes are refused with 429. Use more --threads, or push fewer rows.",
            ),
        Panel::lines("Layers", "none").query("fullrank_streams{S}", "{{instance}}").reads(
            "Layers of runs that have not expired; --max-streams (4096) is the limit.",
            "as many as your runs have.",
            "keeps growing: each start of a trainer pushes to a new run name, and none is finished.",
        ),
        Panel::lines("Connections", "none").query("fullrank_connections{S}", "{{instance}}").reads(
            "Open connections; --max-connections (1024) is the limit.",
            "one or two per trainer process.",
            "at the limit: new ones are closed.",
        ),
        Panel::lines("Memory of open windows", "bytes").query("fullrank_accumulator_bytes{S}", "{{instance}}").reads(
            "Accumulators and row samples of open windows; --accumulator-bytes (4 GiB) is the limit.",
            "rises and falls with the windows.",
            "stays high: windows are not closed. It depends on d, workers and roles, not on a window's length.",
        ),
        Panel::table("What runs", "instance")
            .wide(16)
            .high(8)
            .reads(
                "Version, source revision and backend of each instance, and how long it has been up.",
                "one version; the backend that you configured.",
                "`cpu` instead of a device: --backend auto did not find it, see the log. A short uptime: it restarts.",
            )
            .column("max by (job, instance, version, revision, backend) (fullrank_build_info{S})", "Build is", "none")
            .column("time() - process_start_time_seconds{S}", "Up for", "s")
            .hiding(&["Time", "job", "Value #A"]),
    ]
}

fn stages() -> Vec<Panel> {
    let quantile = |share: &str| {
        format!(
            "histogram_quantile({share}, sum by (le, stage) (rate(fullrank_stage_duration_seconds_bucket{{S}}[$__rate_interval])))"
        )
    };
    let duration = |title: &str, share: &str| {
        Panel::lines(title, "s").log().query(&quantile(share), "{{stage}}").reads(
            "Time that a batch or window spends in a stage, from the histogram; its buckets are half a decade wide.",
            "level. `spectrum` is the longest; it grows with d^3.",
            "`spectrum` grows while d does not: the solvers are behind, or a device is lost. `publish`: the disk is slow.",
        )
    };
    vec![
        duration("Duration, median", "0.5"),
        duration("Duration, 95th percentile", "0.95"),
        Panel::lines("Time spent in stages", "percentunit")
            .query(
                "sum by (stage) (rate(fullrank_stage_duration_seconds_sum{S}[$__rate_interval]))",
                "{{stage}}",
            )
            .reads(
                "Seconds spent in each stage per second: 100 % is one running all the time. `ingest` is mostly waiting for bytes.",
                "`accumulate` and `spectrum` together well below the number of cores.",
                "near the number of cores: the machine is fully used; spectra are skipped next.",
            ),
        Panel::lines("Passes through stages", "ops")
            .query(
                "sum by (stage) (rate(fullrank_stage_duration_seconds_count{S}[$__rate_interval]))",
                "{{stage}}",
            )
            .reads(
                "How often each stage runs: the first three per batch, the others per window.",
                "`publish` follows `diagnose`.",
                "`spectrum` below `diagnose`: windows are measured without eigenvalues.",
            ),
    ]
}

fn troubles() -> Vec<Panel> {
    let zero = |title: &str, counter: &str, by: &[&str], what: &str, trouble: &str| {
        rate(Panel::lines(title, "ops"), counter, by).wide(6).spanning(0.0, 1.0).reads(what, "0.", trouble)
    };
    vec![
        zero(
            "Spectra skipped",
            "fullrank_spectra_skipped_total",
            &[],
            "Windows measured without eigenvalues because the solvers were behind.",
            "the dimension axis is unknown in those windows. Use fewer windows, a smaller d, or more cores.",
        ),
        zero(
            "Solver failures",
            "fullrank_solver_failures_total",
            &[],
            "Eigensolver results that failed their checks; those windows have no spectrum.",
            "any: a bug in fullrank or a fault of the machine; the log has the run and the window.",
        ),
        zero(
            "Faults",
            "fullrank_worker_panics_total",
            &[],
            "Panics (bugs in fullrank) that cost one batch or report each.",
            "any: please report it; the log has the message and the place.",
        ),
        zero(
            "Series left out",
            "fullrank_series_dropped_total",
            &[],
            "Series left out of scrapes because of --max-series.",
            "whole runs are missing on these dashboards, and no alert can see them.",
        ),
        zero(
            "Work of the device done by the CPU",
            "fullrank_compute_fallbacks_total",
            &["reason"],
            "Jobs that the CPU did instead of the device of --backend, by reason.",
            "results are correct but slower. Every reason but `over_budget` and `no_result` is a fault.",
        ),
        zero(
            "Compute workers restarted",
            "fullrank_compute_worker_restarts_total",
            &[],
            "libtorch's process was replaced.",
            "it crashes, hangs or runs out of memory; the panel next to this one has the reason.",
        ),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        rate(Panel::lines("CPU", "percentunit"), "process_cpu_seconds_total", &[]).wide(6).reads(
            "CPU time, where 100 % is one core. It does not include the libtorch process.",
            "well below the number of cores.",
            "at the number of cores: spectra are skipped next, then pushes are refused.",
        ),
        Panel::lines("Memory", "bytes")
            .wide(6)
            .query("process_resident_memory_bytes{S}", "{{instance}} resident")
            .query("process_virtual_memory_bytes{S}", "{{instance}} virtual")
            .reads(
                "Resident and virtual memory of the process.",
                "level after the first windows; bounded by the limits in README.md.",
                "resident memory that grows for days.",
            ),
        Panel::lines("Open files", "none")
            .wide(6)
            .query("process_open_fds{S}", "{{instance}}")
            .compare("process_max_fds{S}", "{{instance}} limit")
            .reads(
                "Open file descriptors, and their limit (dashed).",
                "far below the limit.",
                "near it: connections fail.",
            ),
        Panel::lines("Threads", "none").wide(6).query("process_threads{S}", "{{instance}}").reads(
            "Threads of the process.",
            "level.",
            "keeps growing.",
        ),
    ]
}
