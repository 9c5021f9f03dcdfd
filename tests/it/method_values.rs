//! Every diagnostic against an independent NumPy implementation (tests/golden/methods.py), and one push against many.

use std::path::Path;
use std::sync::Arc;

use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::safetensors;
use fullrank::analysis::methods::TABLE;
use fullrank::analysis::parameters::Parameters;
use fullrank::analyze;
use fullrank::pipeline::ThresholdOverrides;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use serde_json::Value;

fn read(name: &str) -> bytes::Bytes {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(name)).unwrap().into()
}

fn batch(file: &str) -> EmbeddingBatch {
    let (tensors, parameters) = safetensors::decode(&read(file), Parameters::default()).unwrap();
    EmbeddingBatch::new(tensors, parameters).unwrap()
}

/// Absolute and relative tolerance: 1e-10 for sums of products in f64 whose matrices have conditions up to 1e3.
fn tolerance(group: &str) -> (f64, f64) {
    match group {
        // A ridge of 1e-9 of the mean variance, times conditions up to 1e3.
        "mutual_information" | "predictor" | "labels" => (0.0, 1e-6),
        _ => (1e-10, 1e-10),
    }
}

#[test]
fn diagnostics_agree_with_numpy() {
    let backend: Arc<dyn Backend> = Arc::new(Cpu::new(1).unwrap());
    let expected: Value = serde_json::from_slice(&read("methods.json")).unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, case) in expected.as_object().unwrap() {
        let published = analyze::report(
            Arc::clone(&backend),
            batch(case["file"].as_str().unwrap()),
            name,
            &ThresholdOverrides::default(),
        )
        .unwrap();
        let got = &serde_json::to_value(&published.report.methods).unwrap();
        for (group, values) in case["methods"].as_object().unwrap() {
            let Some(values) = values.as_object() else {
                compared += 1;
                if !got[group].is_null() {
                    wrong.push(format!("{name} {group}: want null, got {}", got[group]));
                }
                continue;
            };
            for (key, want) in values {
                compared += 1;
                let (absolute, relative) = tolerance(group);
                let agree = match (want.as_f64(), got[group][key].as_f64()) {
                    (Some(want), Some(got)) => (want - got).abs() <= absolute + relative * want.abs(),
                    (want, got) => want == got && !got.is_some_and(f64::is_nan),
                };
                if !agree {
                    wrong.push(format!("{name} {group}.{key}: want {want}, got {}", got[group][key]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    // Every diagnostic is compared at least once.
    let mut stated = std::collections::BTreeSet::new();
    for case in expected.as_object().unwrap().values() {
        for (group, values) in case["methods"].as_object().unwrap() {
            let numbers =
                values.as_object().into_iter().flatten().filter(|(_, value)| value.is_f64() || value.is_i64());
            stated.extend(numbers.map(|(key, _)| (group.clone(), key.clone())));
        }
    }
    for (group, names) in TABLE {
        for (name, _, _) in *names {
            assert!(stated.contains(&((*group).to_string(), (*name).to_string())), "{group}.{name} is not compared");
        }
    }
}
