//! Verdicts as a client sees them: causes, latch, edges without a defined value, thresholds, moments, roles, broken solvers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::backend::ComputeError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Array, Server, body, f32_body, f64s, gaussian, gaussian_body, problem, steady};
use crate::odd_backend::Odd;

/// `rows` times the same row.
fn constant(rows: usize) -> Vec<u8> {
    f32_body(&[("z", rows, 4, &[0.5, -1.0, 2.0, 0.25].repeat(rows))])
}

/// State, scale, dimension, cause.
fn words(report: &Value) -> [&str; 4] {
    ["state", "scale", "dimension", "cause"].map(|key| report["verdict"][key].as_str().unwrap())
}

/// No series of a run is NaN or infinite.
fn all_finite(server: &Server) {
    for line in server.metrics().0.lines().filter(|line| line.contains("{run=")) {
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value.is_finite(), "{line}");
    }
}

#[test]
fn a_collapse_is_latched_until_acknowledged() {
    let server = Server::start(&[]);
    let verdict = || server.json("/v1/runs/r/verdict");
    let series =
        |state: &str| server.metrics().get(&format!("fullrank_verdict{{run=\"r\",layer=\"l\",state=\"{state}\"}}"));
    let labels = "run=\"r\",layer=\"l\",alarm=\"complete_collapse\",severity=\"critical\"";
    let alarm = || server.metrics().get(&format!("fullrank_alarm{{{labels}}}"));
    let latched_alarm = || server.metrics().get(&format!("fullrank_verdict_alarm{{{labels}}}"));
    let cause = |cause: &str| {
        server.metrics().get(&format!("fullrank_verdict_cause{{run=\"r\",layer=\"l\",cause=\"{cause}\"}}"))
    };
    for window in 0..5 {
        let report = server.report("?last=1", constant(32));
        let state = if window < 4 { "warming_up" } else { "collapsed" };
        assert_eq!(words(&report)[..2], [state, "critical"], "window {window}");
        assert_eq!(report["verdict"]["cause"], "constant");
    }
    assert_eq!((&verdict()["latched"], &verdict()["since_window"]), (&true.into(), &4.into()));
    assert_eq!((series("collapsed"), series("healthy"), alarm()), (Some(1.0), Some(0.0), Some(1.0)));
    let mut newest = Value::Null;
    for window in 5..16 {
        newest = server.report("?", gaussian_body(64, 4, window));
    }
    assert_eq!(words(&newest), ["healthy", "ok", "ok", "none"], "a report is not latched");
    let latched = verdict();
    assert_eq!(["state", "cause"].map(|key| latched[key].as_str().unwrap()), ["collapsed", "constant"]);
    assert_eq!((&latched["window"], &latched["current"]["state"]), (&15.into(), &"healthy".into()));
    assert_eq!(server.json("/v1/runs")["runs"][0]["state"], "collapsed");
    assert_eq!((series("collapsed"), series("healthy"), alarm()), (Some(1.0), Some(0.0), Some(0.0)));
    assert_eq!((latched_alarm(), cause("constant"), cause("none")), (Some(1.0), Some(1.0), None), "latched, too");
    let seen: Value = server.post("/v1/runs/r/acknowledge").send().unwrap().json().unwrap();
    assert_eq!(
        (&seen["state"], &seen["latched"], &seen["since_window"]),
        (&"healthy".into(), &false.into(), &15.into())
    );
    assert_eq!(verdict(), seen);
    assert_eq!((series("collapsed"), series("healthy"), latched_alarm()), (Some(0.0), Some(1.0), Some(0.0)));
    all_finite(&server);
}

#[test]
fn edges_have_defined_answers() {
    let server = Server::start(&[]);
    let check = |run: &str, (rows, dim): (usize, usize), values: &[f32], expected: [&str; 4], undefined: &[&str]| {
        let report = server.report(&format!("{run}/l?last=1"), f32_body(&[("z", rows, dim, values)]));
        assert_eq!(words(&report), expected, "{run}: {report}");
        for name in undefined {
            assert_eq!(report["measures"].get(*name), Some(&Value::Null), "{run}: {name}");
        }
        let eigenvalues = server.json(&format!("/v1/runs/{run}/layers/l/spectrum"))["eigenvalues"].clone();
        let eigenvalues: Vec<f64> = serde_json::from_value(eigenvalues).unwrap();
        assert_eq!(eigenvalues.len(), dim, "{run}");
        assert!(eigenvalues.iter().all(|value| *value >= 0.0));
        all_finite(&server);
    };
    let few = "insufficient_rows";
    let normal = |rows: usize, dim| gaussian(rows, dim, 3);
    check(
        "one",
        (1, 4),
        &normal(1, 4),
        [few, "unknown", "unknown", few],
        &["mean_cosine", "entropy_rank", "uniformity"],
    );
    check("one-by-one", (1, 1), &[2.0], [few, "unknown", "unknown", few], &["mean_cosine", "entropy_rank"]);
    check("four", (4, 4), &normal(4, 4), [few, "unknown", "unknown", few], &["ln_first_to_last"]);
    check("ten", (10, 4), &normal(10, 4), [few, "ok", "unknown", few], &[]);
    check("ten-flat", (10, 4), &[1.0; 40], ["warming_up", "critical", "unknown", "constant"], &["entropy_rank"]);
    check("line", (40, 1), &normal(40, 1), ["warming_up", "ok", "unknown", "none"], &["correlation_energy"]);
    check("wide", (20, 64), &normal(20, 64), ["warming_up", "ok", "ok", "none"], &["ln_first_to_last"]);
    let nothing = ["warming_up", "critical", "unknown", "constant"];
    check("zeros", (32, 4), &[0.0; 128], nothing, &["mean_cosine", "relative_variance", "center_norm", "entropy_rank"]);
    let mut some = normal(32, 4);
    some[..16].fill(0.0);
    check("some-zeros", (32, 4), &some, ["warming_up", "ok", "ok", "none"], &[]);
    assert_eq!(server.json("/v1/runs/some-zeros/layers/l/reports")["reports"][0]["measures"]["zero_rows"], 4.0);
    let tiny: Vec<f32> = normal(32, 4).iter().map(|x| x * 1e-38).collect();
    check("tiny", (32, 4), &tiny, ["warming_up", "ok", "ok", "none"], &[]);
}

#[test]
fn the_largest_and_least_numbers_overflow_nothing() {
    let server = Server::start(&[]);
    let values: Vec<f64> = gaussian(64, 4, 1).iter().map(|x| f64::from(*x) / 8.0).collect();
    let scaled =
        |factor: f64| body(&[f64s("z", &[64, 4], &values.iter().map(|x| x * factor).collect::<Vec<_>>())], &[]);
    let plain = server.report("plain/l?last=1", scaled(1.0));
    // Powers of two change no bit of what has no unit. 2^464 is under 1e140; squares at 2^-480 are above the subnormals.
    for (run, exponent) in [("large", 464), ("small", -480)] {
        let report = server.report(&format!("{run}/l?last=1"), scaled(2f64.powi(exponent)));
        assert_eq!(report["verdict"]["scale"], plain["verdict"]["scale"], "{run}");
        for name in [
            "stable_rank",
            "entropy_rank",
            "relative_variance",
            "mean_cosine",
            "scaled_std",
            "uniformity",
            "numerical_rank",
            "correlation_energy",
            "log10_top_to_last",
        ] {
            let (got, expected) = (report["measures"][name].as_f64(), plain["measures"][name].as_f64().unwrap());
            let got = got.unwrap_or_else(|| panic!("{run}: {name} is null"));
            assert!(
                (got - expected).abs() <= 64.0 * f64::EPSILON * 8.0 * expected.abs().max(1.0),
                "{run}: {name} {got} {expected}"
            );
        }
    }
    server.report("subnormal/l?last=1", scaled(2f64.powi(-1060)));
    all_finite(&server);
}

#[test]
fn thresholds_of_a_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("thresholds.toml");
    let text = "[methods.byol]\nwarmup_windows = 2\ncollapse_windows = 2\n[runs.\"hasty-1\"]\nwarmup_windows = 1\ncollapse_windows = 1\n";
    std::fs::write(&file, text).unwrap();
    let server = Server::start(&["--thresholds", file.to_str().unwrap()]);
    let states = |run: &str, query: &str| -> Vec<String> {
        (0..3).map(|_| words(&server.report(&format!("{run}/l?{query}"), constant(32)))[0].to_string()).collect()
    };
    assert_eq!(states("hasty-1", ""), ["collapsed"; 3]);
    assert_eq!(states("other", ""), ["warming_up"; 3]);
    assert_eq!(states("of-method", "method=byol"), ["warming_up", "collapsed", "collapsed"]);
    assert_eq!(states("hasty-1", "method=byol")[0], "collapsed", "the run's own before its method's");
    let in_force = |run: &str| {
        server.json(&format!("/v1/runs/{run}/layers/l/reports"))["reports"][0]["computed"]["thresholds"]["warmup_windows"].clone()
    };
    assert_eq!([in_force("hasty-1"), in_force("other"), in_force("of-method")], [json!(1.0), json!(5.0), json!(2.0)]);
}

/// count, mean, m2 (full), and the unit fields, of f64 rows.
fn moments<'a>(rows: &[Vec<f64>]) -> Vec<Array<'a>> {
    let (n, d) = (rows.len(), rows[0].len());
    let mean =
        |rows: &[Vec<f64>]| -> Vec<f64> { (0..d).map(|k| rows.iter().map(|r| r[k]).sum::<f64>() / n as f64).collect() };
    let scatter = |rows: &[Vec<f64>]| -> Vec<f64> {
        let mu = mean(rows);
        (0..d * d).map(|at| rows.iter().map(|r| (r[at / d] - mu[at / d]) * (r[at % d] - mu[at % d])).sum()).collect()
    };
    let unit: Vec<Vec<f64>> =
        rows.iter().map(|r| r.iter().map(|x| x / r.iter().map(|x| x * x).sum::<f64>().sqrt()).collect()).collect();
    let unit_m2 = scatter(&unit);
    let variance: Vec<f64> = (0..d).map(|k| unit_m2[k * d + k] / n as f64).collect();
    vec![
        f64s("count", &[1], &[n as f64]),
        f64s("mean", &[d], &mean(rows)),
        f64s("m2", &[d, d], &scatter(rows)),
        f64s("unit_mean", &[d], &mean(&unit)),
        f64s("unit_variance", &[d], &variance),
        f64s("unit_m2", &[d, d], &unit_m2),
    ]
}

fn lower(full: &Array<'_>, d: usize) -> Vec<f64> {
    let values: Vec<f64> = full.3.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    (0..d).flat_map(|i| values[i * d..=i * d + i].to_vec()).collect()
}

#[test]
fn moments_measure_what_rows_measure() {
    let server = Server::start(&[]);
    let (n, d) = (200, 6);
    let mut random = StdRng::seed_from_u64(9);
    let rows: Vec<Vec<f64>> = (0..n)
        .map(|_| (0..d).map(|k| random.sample::<f64, _>(rand_distr::StandardNormal) * (k + 1) as f64 + 0.5).collect())
        .collect();
    let of_rows = server.report("rows/l?last=1", body(&[f64s("z", &[n, d], &rows.concat())], &[]));
    let full = moments(&rows);
    let of_moments = server.report("moments/l?last=1", body(&full, &[]));
    let mut compared = 0;
    for (name, value) in of_moments["measures"].as_object().unwrap() {
        // c eps sqrt(n): both sides sum n products an entry.
        let tolerance = 64.0 * f64::EPSILON * (n as f64).sqrt();
        if let (Some(got), Some(expected)) = (value.as_f64(), of_rows["measures"][name].as_f64()) {
            assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{name}: {got} {expected}");
            compared += 1;
        }
    }
    assert!(compared >= 25, "{compared}");
    for name in ["mean_cosine", "scaled_std", "entropy_rank", "w2_uniformity", "relative_variance", "rankme"] {
        assert!(of_moments["measures"][name].is_f64(), "{name}");
    }
    for name in ["uniformity", "row_norm_mean", "duplicate_rows"] {
        assert_eq!(of_moments["measures"][name], Value::Null, "{name}");
    }
    assert_eq!(words(&of_moments), words(&of_rows));
    let mut packed = full.clone();
    packed[2] = f64s("m2", &[d * (d + 1) / 2], &lower(&full[2], d));
    packed[5] = f64s("unit_m2", &[d * (d + 1) / 2], &lower(&full[5], d));
    assert_eq!(steady(&server.report("packed/l?last=1", body(&packed, &[]))), steady(&of_moments));
    // Halves merged are the whole.
    server.push("halves/l?window=0", body(&moments(&rows[..80]), &[])).error_for_status().unwrap();
    let halves = server.report("halves/l?window=0&last=1", body(&moments(&rows[80..]), &[]));
    for name in ["total_variance", "entropy_rank", "scaled_std", "w2_uniformity"] {
        let (got, expected) =
            (halves["measures"][name].as_f64().unwrap(), of_moments["measures"][name].as_f64().unwrap());
        assert!((got - expected).abs() <= 1e-12 * of_moments["measures"]["total_variance"].as_f64().unwrap(), "{name}");
    }
    all_finite(&server);
}

#[test]
fn without_unit_fields_relative_variance_decides() {
    let server = Server::start(&[]);
    let check = |run: &str, mean: f64, scale: &str| {
        let arrays =
            [f64s("count", &[1], &[100.0]), f64s("mean", &[2], &[mean, 0.0]), f64s("m2", &[3], &[50.0, 0.0, 50.0])];
        let report = server.report(&format!("{run}/l?last=1"), body(&arrays, &[]));
        assert_eq!(words(&report)[1], scale, "{run}: {}", report["verdict"]);
        assert_eq!(report["measures"]["mean_cosine"], Value::Null);
        let reasons = report["verdict"]["reasons"].as_array().unwrap();
        assert!(
            reasons.iter().all(|reason| reason["measure"] == "relative_variance")
                && reasons.is_empty() == (scale == "ok")
        );
    };
    // tr Sigma is 1, so v = 1 / (1 + mean^2), against 0.25 and 0.05.
    check("ok", 1.7, "ok");
    check("warning", 1.75, "warning");
    check("nearly", 4.3, "warning");
    check("critical", 4.4, "critical");
    all_finite(&server);
}

#[test]
fn roles_are_layers_of_their_own() {
    let server = Server::start(&[]);
    let (a, b) = (gaussian(64, 8, 1), gaussian(64, 8, 2));
    let flat = [1.0f32, 2.0, 3.0].repeat(64);
    let tensors = [
        ("z1", 64, 8, &a[..]),
        ("z2", 64, 8, &b[..]),
        ("teacher1", 64, 8, &b[..]),
        ("teacher2", 64, 8, &a[..]),
        ("prediction1", 64, 3, &flat[..]),
        ("pre_bn", 32, 16, &a[..]),
    ];
    let report = server.report("?window=0&last=1", f32_body(&tensors));
    assert_eq!(
        (&report["layer"], &report["rows"], &report["samples"], &report["views"]),
        (&"l".into(), &128.into(), &64.into(), &2.into())
    );
    assert_eq!(server.json("/v1/runs")["runs"][0]["layers"], json!(["l", "l:pre_bn", "l:prediction", "l:teacher"]));
    let check = |layer: &str, rows: u64, views: u64, dim: u64, scale: &str| {
        let listed = server.json(&format!("/v1/runs/r/layers/{layer}/reports"));
        let report = &listed["reports"][0];
        assert_eq!(report["layer"], layer);
        assert_eq!((&report["rows"], &report["views"], &report["dim"]), (&rows.into(), &views.into(), &dim.into()));
        assert_eq!(words(report)[1], scale, "{layer}");
        let series = format!("fullrank_report_rows{{run=\"r\",layer=\"{layer}\"}}");
        assert_eq!(server.metrics().get(&series), Some(rows as f64));
        assert_eq!(
            server.json(&format!("/v1/runs/r/layers/{layer}/spectrum"))["eigenvalues"].as_array().unwrap().len() as u64,
            dim
        );
    };
    check("l", 128, 2, 8, "ok");
    check("l:teacher", 128, 2, 8, "ok");
    check("l:prediction", 64, 1, 3, "critical");
    check("l:pre_bn", 32, 1, 16, "ok");
    for window in 1..6 {
        server.report(&format!("?window={window}&last=1"), f32_body(&tensors));
    }
    let verdict = server.json("/v1/runs/r/verdict");
    assert_eq!(
        (&verdict["layer"], &verdict["state"]),
        (&"l:prediction".into(), &"collapsed".into()),
        "the worst layer's"
    );
}

#[test]
fn a_solver_that_fails_costs_the_spectrum() {
    type Spoil = fn(Vec<f64>) -> Result<Vec<f64>, ComputeError>;
    let check = |spoil: Spoil, note: &str| {
        let server = Server::with_backend(&[], Odd::spoilt(spoil));
        let report = server.report("?window=0&last=1", gaussian_body(64, 8, 1));
        let notes = report["notes"].to_string();
        assert!(notes.contains("the spectrum could not be computed") && notes.contains(note), "{notes}");
        for name in
            ["entropy_rank", "intrinsic_dimension", "numerical_rank", "rankme", "w2_uniformity", "log10_top_to_last"]
        {
            assert_eq!(report["measures"][name], Value::Null, "{name}");
        }
        assert_eq!(words(&report)[1..], ["ok", "unknown", "none"], "the scale axis needs no solver");
        assert!(report["measures"]["stable_rank"].is_f64());
        assert_eq!(report["computed"]["exact"], false);
        assert_eq!(server.metrics().get("fullrank_solver_failures_total"), Some(3.0));
        assert_eq!(server.json("/v1/runs/r/layers/l/spectrum")["eigenvalues"], Value::Null);
        let csv = server.get("/v1/runs/r/layers/l/spectrum").header("accept", "text/csv").send().unwrap();
        assert_eq!(csv.text().unwrap().lines().count(), 1);
        assert!(!server.metrics().0.contains("fullrank_eigenvalue{"));
        all_finite(&server);
    };
    check(|values| Err(ComputeError::NoConvergence { dim: values.len() }), "did not converge");
    check(|_| Err(ComputeError::Device("the card is gone".to_string())), "the card is gone");
    check(|values| Ok(vec![f64::NAN; values.len()]), "not finite");
    check(
        |mut values| {
            values[0] = f64::INFINITY;
            Ok(values)
        },
        "not finite",
    );
    check(
        |mut values| {
            values.pop();
            Ok(values)
        },
        "7 eigenvalues for a matrix of dimension 8",
    );
    check(|values| Ok(values.iter().map(|x| x * 1.01).collect()), "the sum is");
    check(|values| Ok(vec![values.iter().sum::<f64>() / values.len() as f64; values.len()]), "the sum of squares");
}

#[test]
fn a_fault_costs_one_batch_or_report() {
    let broken = Arc::new(AtomicBool::new(true));
    let when = Arc::clone(&broken);
    let server = Server::with_backend(&[], Odd::panicking(move || when.load(Ordering::Acquire)));
    let (status, code, _) = problem(server.push("?window=0&seq=0&last=1&wait=1", gaussian_body(16, 4, 1)));
    assert_eq!((status, code.as_str()), (500, "internal"));
    server.push("?window=1&seq=1", gaussian_body(16, 4, 2)).error_for_status().unwrap();
    while server.metrics().get("fullrank_worker_panics_total") != Some(2.0) {
        std::thread::yield_now();
    }
    broken.store(false, Ordering::Release);
    let report = server.report("?window=1&seq=2&last=1", gaussian_body(16, 4, 3));
    assert_eq!(report["rows"], 16, "of those that were merged");
    assert!(report["notes"].to_string().contains("a batch of worker 0 could not be merged"), "{}", report["notes"]);
    assert_eq!(server.metrics().get("fullrank_inbox_batches"), Some(0.0));
    let failing = Arc::new(AtomicBool::new(true));
    let when = Arc::clone(&failing);
    let server = Server::with_backend(
        &[],
        Odd::spoilt(move |values| {
            assert!(!when.load(Ordering::Acquire), "on purpose: a fault of the solver");
            Ok(values)
        }),
    );
    assert_eq!(problem(server.push("?window=0&seq=0&last=1&wait=1", gaussian_body(16, 4, 1))).1, "internal");
    failing.store(false, Ordering::Release);
    let report = server.report("?window=1&seq=1&last=1", gaussian_body(16, 4, 2));
    assert_eq!((&report["rows"], &report["closed"]), (&16.into(), &true.into()));
    assert_eq!(server.metrics().get("fullrank_worker_panics_total"), Some(1.0));
}
