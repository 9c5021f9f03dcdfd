//! Every measure against an independent NumPy implementation, eigenvalues against certified enclosures, sums of squares
//! against NIST's certified values. How the files were made: tests/golden/README.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::{npy, safetensors};
use fullrank::analysis::measures::TABLE;
use fullrank::analysis::parameters::Parameters;
use fullrank::analysis::report::FullReport;
use fullrank::analyze;
use fullrank::pipeline::ThresholdOverrides;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::moments::Moments;
use kernels::provenance::Precision;
use kernels::rows::Rows;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn expected() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn cases() -> Vec<(String, Value, FullReport)> {
    let backend: Arc<dyn Backend> = Arc::new(Cpu::new(2).unwrap());
    let mut cases = Vec::new();
    for (name, case) in expected().into_iter().filter(|(name, _)| name != "nist") {
        let file = case["file"].as_str().unwrap();
        let bytes = bytes::Bytes::from(std::fs::read(folder().join(file)).unwrap());
        let (tensors, parameters) = if file.ends_with(".npy") {
            (vec![npy::decode(&bytes).unwrap()], Parameters::default())
        } else {
            safetensors::decode(&bytes, Parameters::default()).unwrap()
        };
        let batch = EmbeddingBatch::new(tensors, parameters).unwrap();
        let published = analyze::report(Arc::clone(&backend), batch, &name, &ThresholdOverrides::default()).unwrap();
        cases.push((name, case, published));
    }
    cases
}

/// Absolute and relative tolerance of a measure. The sums behind them have a few thousand terms: eps sqrt(n) is 1e-14,
/// and 1e-12 leaves room for the condition of each formula; where that is bad, the reason stands beside.
fn tolerance(case: &str, measure: &str) -> (f64, f64) {
    // Offsets of 1e6 to 1e9 standard deviations leave f64 that many digits fewer, in both implementations.
    let offset =
        case.contains("offset") || case.contains("constant") || case.contains("cone") || case.starts_with("mean_100");
    match measure {
        // sqrt(1 - |s|^2) near |s| = 1, and sqrt(2 - x) near x = 2, halve the digits.
        "residual_norm" | "w2_uniformity" => (1e-7, 1e-12),
        // Singular values of a rank-deficient matrix by its Gram matrix: noise of sqrt(eps) relative to the largest.
        "rankme" => (0.0, 1e-5),
        // Ratios over 17 decades.
        _ if case == "certified_graded" => (1e-9, 1e-9),
        _ if offset => (1e-9, 1e-9),
        _ => (1e-12, 1e-11),
    }
}

#[test]
fn measures_agree_with_numpy() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (name, case, published) in cases() {
        let got = &serde_json::to_value(&published.report.measures).unwrap();
        let shares = case["components_for_variance"].as_object().into_iter().flatten();
        let shares = shares.map(|(share, value)| (share, value, &got["components_for_variance"][share]));
        let scalars =
            case["measures"].as_object().unwrap().iter().map(|(measure, value)| (measure, value, &got[measure]));
        for (measure, want, got) in scalars.chain(shares) {
            compared += 1;
            let (absolute, relative) = tolerance(&name, measure);
            let agree = match (want.as_f64(), got.as_f64()) {
                (Some(want), Some(got)) => (want - got).abs() <= absolute + relative * want.abs(),
                (None, None) => got.is_null(),
                _ => false,
            };
            if !agree {
                wrong.push(format!("{name} {measure}: want {want}, got {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 1000, "only {compared} values were compared");
}

/// The floors of this program's own arithmetic have no independent value; crates/kernels/tests/it/spectra.rs holds them
/// against the true errors.
const WITHOUT_GOLDEN_VALUE: [&str; 2] = ["noise_floor", "numeric_noise_floor"];

#[test]
fn a_row_in_the_table_of_measures_has_its_golden_value_and_its_paragraph() {
    let expected = expected();
    let documented = std::fs::read_to_string(folder().join("../../docs/metrics.md")).unwrap();
    for (measure, _) in TABLE {
        let values = expected.values().filter_map(|case| case["measures"].get(measure)?.as_f64());
        assert!(
            values.count() > 0 || WITHOUT_GOLDEN_VALUE.contains(measure),
            "{measure}: no number in tests/golden/expected.json; define it in tests/golden/make.py"
        );
        assert!(documented.contains(&format!("`{measure}`")), "{measure} is not in docs/metrics.md");
    }
    let known: Vec<&str> = TABLE.iter().map(|(measure, _)| *measure).collect();
    for (name, case) in &expected {
        for (measure, _) in case["measures"].as_object().into_iter().flatten() {
            assert!(known.contains(&measure.as_str()), "{name}: {measure} is in no row of the table");
        }
    }
}

#[test]
fn eigenvalues_agree_with_numpy_and_stay_within_certified_roots() {
    for (name, case, published) in cases() {
        let got = published.eigenvalues().unwrap();
        let floor = published.report.measures.numeric_noise_floor.unwrap();
        let listed: Vec<f64> = match case["certified"].as_array() {
            Some(roots) => roots.iter().map(|root| root.as_str().unwrap().parse().unwrap()).collect(),
            None => case["eigenvalues"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect(),
        };
        // The published floor, and the relative error that a QR iteration of this size leaves (twice: NumPy has its own).
        let relative = 2.0 * got.len() as f64 * f64::EPSILON;
        for (index, value) in got.iter().enumerate() {
            let want = listed.get(index).copied().unwrap_or(0.0);
            let bound = floor + relative * want;
            assert!(
                (value - want).abs() <= bound,
                "{name} eigenvalue {index}: want {want:e}, got {value:e}, floor {floor:e}"
            );
        }
    }
}

fn of_column(values: &[f64], backend: &Cpu) -> Moments {
    backend.moments(&Rows::from_f64((values.len(), 1), values).unwrap(), Precision::F64).unwrap()
}

#[test]
fn nist_anova_sums_of_squares() {
    let backend = Cpu::new(1).unwrap();
    for case in expected()["nist"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let certified = |key: &str| case[key].as_str().unwrap().parse::<f64>().unwrap();
        let (within, between) = (certified("within_ss_f64"), certified("between_ss_f64"));
        let mut total: Option<Moments> = None;
        let mut within_sum = 0.0;
        for treatment in case["treatments"].as_array().unwrap() {
            let values: Vec<f64> = treatment.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let moments = of_column(&values, &backend);
            within_sum += moments.scatter().trace();
            match &mut total {
                Some(total) => total.merge(&moments),
                None => total = Some(moments),
            }
        }
        let total = total.unwrap().scatter().trace();
        assert!((within_sum / within - 1.0).abs() < 1e-12, "{name} within: {within_sum} {within}");
        // Between treatments the means matter: with k constant leading digits they are known to eps 10^k of the spread.
        let tolerance = match name {
            "SmLs07" | "SmLs08" => 5e-3,
            "AtmWtAg" | "SmLs04" | "SmLs05" => 1e-7,
            _ => 1e-11,
        };
        assert!(
            ((total - within_sum) / between - 1.0).abs() < tolerance,
            "{name} between: {} {between}",
            total - within_sum
        );
    }
}
