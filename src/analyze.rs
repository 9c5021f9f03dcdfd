//! `fullrank analyze FILE`: the report of a file by itself, with no warm-up and no hysteresis.

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::decode::{npy, safetensors};
use crate::analysis::origin::Precision;
use crate::analysis::parameters::Parameters;
use crate::analysis::report::Report;
use crate::compute::Backend;
use crate::compute::cpu::Cpu;
use crate::pipeline::{Content, Judging, Line, Policy, SolverRoom};
use crate::publish::Published;
use crate::telemetry::Stages;

/// The report of one file, as JSON.
///
/// # Errors
/// What is wrong with the file, named.
pub fn file(path: &Path, policy: &Policy) -> Result<Value, String> {
    let name = path.display().to_string();
    let fail = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let bytes = Bytes::from(std::fs::read(path).map_err(|e| fail(&e))?);
    let (tensors, parameters) = if bytes.starts_with(b"\x93NUMPY") {
        (vec![npy::decode(&bytes).map_err(|e| fail(&e))?], Parameters::default())
    } else {
        safetensors::decode(&bytes, Parameters::default()).map_err(|e| fail(&e))?
    };
    let batch = EmbeddingBatch::new(tensors, parameters).map_err(|e| fail(&e))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let backend = Cpu::new(cores).map_err(|e| fail(&e))?;
    Ok(report(&backend, batch, &name, policy)?.json)
}

/// The report of a batch by itself.
///
/// # Errors
/// When the backend fails.
pub fn report(backend: &dyn Backend, batch: EmbeddingBatch, name: &str, policy: &Policy) -> Result<Published, String> {
    let registry = prometheus::Registry::new();
    let stages = Stages::register(&registry).map_err(|e| e.to_string())?;
    // A file is measured exactly, in what memory there is.
    let room = SolverRoom::new(usize::MAX);
    let line = Line { backend, stages: &stages, precision: Precision::F64, room: &room };
    let mut content = Content::default();
    let mut asked = batch.parameters.clone();
    asked.unit_moments = Some(true);
    for part in &batch.parts {
        content.roles.insert(part.role, line.accumulate(part, &asked).map_err(|e| format!("{name}: {e}"))?);
    }
    line.gather(&batch, &mut content.gathered).map_err(|e| format!("{name}: {e}"))?;
    let parameters = batch.parameters;
    content.scalars.clone_from(&parameters.scalars);
    let thresholds = policy.thresholds("", parameters.method);
    let judging = Judging {
        thresholds: &thresholds,
        streams: None,
        step: parameters.step,
        method: parameters.method,
        skip_spectrum: None,
    };
    // The layer itself comes first; those derived from it are in its diagnostics.
    let outcome = line.process(&content, judging).into_iter().next();
    let outcome = outcome.ok_or_else(|| format!("{name}: there is nothing to measure in it"))?;
    let computed = line.computed(&content, &outcome, &thresholds);
    let (rows, samples, views, dim) = outcome.shape;
    let report = Report {
        run: String::new(),
        layer: format!("{name}{}", outcome.role.suffix()),
        window: parameters.window.unwrap_or(0),
        revision: 1,
        step: parameters.step,
        rows,
        samples,
        views,
        dim,
        closed: true,
        complete: true,
        closed_at: None,
        loss: content.scalars.get("loss").copied(),
        measures: outcome.measured.measures,
        diagnostics: outcome.diagnosed.diagnostics,
        loss_constant: outcome.diagnosed.constant,
        computed,
        notes: outcome.notes,
        verdict: outcome.verdict,
    };
    Ok(Published::new(report, outcome.eigenvalues))
}

/// A report for people.
pub fn table(report: &Value) -> String {
    let verdict = &report["verdict"];
    let word = |value: &Value| value.as_str().unwrap_or("?").to_string();
    let mut text = format!(
        "{}  {} rows of dimension {}\n  {}: scale {}, dimension {}, cause {}\n",
        word(&report["layer"]),
        report["rows"],
        report["dim"],
        word(&verdict["state"]),
        word(&verdict["scale"]),
        word(&verdict["dimension"]),
        word(&verdict["cause"]),
    );
    for reason in verdict["reasons"].as_array().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  because {} is {} (threshold {})",
            word(&reason["measure"]),
            reason["value"],
            reason["threshold"]
        );
    }
    for note in report["notes"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  note: {}", word(note));
    }
    let diagnostics = report["methods"].as_object().into_iter().flatten().flat_map(|(group, values)| {
        values.as_object().into_iter().flatten().map(move |(name, value)| (format!("{group}.{name}"), value))
    });
    let measures = report["measures"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value));
    for (name, value) in measures.chain(diagnostics) {
        match value.as_f64() {
            Some(number) => drop(writeln!(text, "  {name:<32} {:>14}", significant(number))),
            None if value.is_null() => drop(writeln!(text, "  {name:<32} {:>14}", "undefined")),
            None => drop(writeln!(text, "  {name:<32} {value}")),
        }
    }
    text
}

/// Whole numbers as they are, others with six significant digits.
fn significant(number: f64) -> String {
    let magnitude = number.abs();
    if number.fract() == 0.0 && magnitude < 1e9 {
        return format!("{number:.0}");
    }
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{number:.5e}");
    }
    let decimals = (5.0 - magnitude.log10().floor()).max(0.0) as usize;
    format!("{number:.decimals$}")
}
