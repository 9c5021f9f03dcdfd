//! Estimated spectra in a service: what a report says of them, when their intervals may fire, and how solves wait.

use fullrank::analysis::measures::Measures;
use fullrank::analysis::verdict::{Alarm, Baseline, JudgedWindow, Level, Thresholds, judge};
use serde_json::{Value, json};

use crate::harness::{Server, gaussian_body};
use crate::states;

/// A line: D1 = 1.3 is under the threshold with the whole interval, or only with its middle.
#[test]
fn an_estimate_fires_only_with_all_of_its_interval() {
    let measures = Measures {
        entropy_rank: Some(2.0),
        entropy_rank_null: Some(101.0),
        total_variance: Some(1.0),
        intrinsic_dimension: Some(2.0),
        noise_floor: Some(1e-14),
        ..Measures::default()
    };
    let window = |rank_at_best| JudgedWindow { samples: 1000, dim: 256, rank_at_best, ..states::window(&measures) };
    let level = |rank_at_best, baseline: Option<&Baseline>| {
        judge(&window(rank_at_best), &Thresholds::default(), baseline).dimension
    };
    // (2 - 1) / 100 is under 0.02; 2.5 still is, 4 is under 0.05 only, 7 is fine.
    let levels = [None, Some(2.5), Some(4.0), Some(7.0)].map(|best| level(best, None));
    assert_eq!(levels, [Level::Critical, Level::Critical, Level::Warning, Level::Ok]);
    // A missing median is no tail down to the floor.
    let baseline = Baseline { rank: 0.02, samples: 1000, tail: Some(1.0), spread: None };
    let fires = |best| {
        let judged = judge(&window(best), &Thresholds::default(), Some(&baseline));
        judged.alarms.iter().any(|firing| firing.alarm == Alarm::SpectrumTail)
    };
    assert!(fires(None) && !fires(Some(7.0)));
}

/// The label everywhere: report, note, spectrum, Prometheus, gRPC; and the same window exactly, with more memory.
#[test]
fn a_service_with_little_memory_for_solvers() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--solver-bytes", "1048576", "--data-dir", directory.path().to_str().unwrap()];
    let server = Server::start(&flags);
    let body = gaussian_body(2000, 256, 3);
    let report = server.report("r/l?window=0&seq=1&last=1", body.clone());
    let exact = Server::start(&[]).report("r/l?window=0&seq=1&last=1", body.clone());
    let computed = &report["computed"];
    assert_eq!((&computed["exact"], &computed["solver"]), (&false.into(), &"faer+lanczos".into()), "{report}");
    assert_eq!(computed["estimated"], json!(["entropy_rank", "intrinsic_dimension", "rankme"]));
    assert_eq!((&exact["computed"]["exact"], &exact["computed"]["estimated"]), (&true.into(), &json!([])));
    let note = report["notes"].to_string();
    let words =
        ["d = 256 would take 3670016 bytes", "--solver-bytes is 1048576", "are estimates, with their intervals"];
    assert!(words.iter().all(|words| note.contains(words)), "{note}");
    for name in ["entropy_rank", "rankme", "intrinsic_dimension"] {
        let interval = &computed["intervals"][name];
        let (low, high) = (interval[0].as_f64().unwrap(), interval[1].as_f64().unwrap());
        let (value, truth) = (report["measures"][name].as_f64().unwrap(), exact["measures"][name].as_f64().unwrap());
        assert!(low <= value && value <= high && low < high, "{name}: {value} in {interval}");
        // One draw: three times what is to hold in 95 of 100.
        assert!((truth - value).abs() <= 1.5 * (high - low), "{name}: {truth} in {interval}");
        assert!(exact["computed"]["intervals"][name].is_null());
    }
    for name in ["numerical_rank", "log10_top_to_last", "log10_top_to_median", "ln_first_to_last"] {
        assert!(report["measures"][name].is_null() && !exact["measures"][name].is_null(), "{name}");
    }
    for name in ["stable_rank", "total_variance", "w2_uniformity", "correlation_energy", "entropy_rank_null"] {
        assert_eq!(report["measures"][name], exact["measures"][name], "{name}");
    }
    assert_eq!(report["verdict"], exact["verdict"]);
    let labelled = |server: &Server| {
        let spectrum = server.json("/v1/runs/r/layers/l/spectrum");
        assert_eq!((&spectrum["dim"], &spectrum["complete"]), (&256.into(), &false.into()));
        assert!(spectrum["eigenvalues"].as_array().unwrap().len() < 256);
        assert_eq!(server.metrics().get("fullrank_approximate{run=\"r\",layer=\"l\"}"), Some(1.0));
    };
    labelled(&server);
    let limits = server.json("/v1/limits");
    assert_eq!((&limits["solver_bytes"], &limits["solver_bytes_used"]), (&(1 << 20).into(), &0.into()));
    assert_eq!((&limits["max_exact_dim"], &limits["max_dim"]), (&99.into(), &16_384.into()));
    // What fits goes on as ever.
    let small = server.report("r/small?window=0&seq=1&last=1", gaussian_body(200, 64, 3));
    assert_eq!(small["computed"]["exact"], true);
    let metrics = server.metrics();
    assert_eq!(metrics.get("fullrank_approximate{run=\"r\",layer=\"small\"}"), Some(0.0));
    server.stop();
    labelled(&Server::start(&flags));
}

/// Many windows of two sizes over more threads than there is memory for: all get their turn, and none fails.
#[test]
fn solves_wait_for_each_other_without_end_to_none() {
    let server = Server::start(&["--solver-bytes", "3000000", "--threads", "4"]);
    for window in 0..4 {
        for (layer, dim) in [("a", 200), ("b", 100), ("c", 256), ("d", 60)] {
            let place = format!("r/{layer}?window={window}&seq={window}&last=1");
            assert_eq!(server.push(&place, gaussian_body(300, dim, window)).status(), 202);
        }
    }
    let finished: Value = server.post("/v1/runs/r/finish").send().unwrap().json().unwrap();
    assert_eq!(finished["finished"], true, "{finished}");
    for (layer, exact) in [("a", true), ("b", true), ("c", false), ("d", true)] {
        let reports = server.json(&format!("/v1/runs/r/layers/{layer}/reports"));
        let reports = reports["reports"].as_array().unwrap();
        assert_eq!(reports.len(), 4);
        for report in reports {
            assert_eq!(report["computed"]["exact"], exact, "{report}");
            assert!(report["measures"]["rankme"].as_f64().unwrap() > 40.0, "{report}");
        }
    }
    assert_eq!(server.json("/v1/limits")["solver_bytes_used"], 0);
    assert_eq!(server.metrics().get("fullrank_solver_failures_total"), Some(0.0));
}
