//! `fullrank analyze FILE`: the report of a file by itself, with no warm-up and no hysteresis.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;

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

/// Bytes read between two calls of `progress`.
const STRIDE: u64 = 16 << 20;

/// The report of one file; `progress` is called with the bytes read so far and all of them.
///
/// # Errors
/// What is wrong with the file, named.
pub fn file(path: &Path, policy: &Policy, progress: &dyn Fn(u64, u64)) -> Result<Published, String> {
    let name = path.display().to_string();
    let fail = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let bytes = Bytes::from(read(path, progress).map_err(|e| fail(&e))?);
    let (tensors, parameters) = if bytes.starts_with(b"\x93NUMPY") {
        (vec![npy::decode(&bytes).map_err(|e| fail(&e))?], Parameters::default())
    } else {
        safetensors::decode(&bytes, Parameters::default()).map_err(|e| fail(&e))?
    };
    let batch = EmbeddingBatch::new(tensors, parameters).map_err(|e| fail(&e))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let backend = Cpu::new(cores).map_err(|e| fail(&e))?;
    report(&backend, batch, &name, policy)
}

fn read(path: &Path, progress: &dyn Fn(u64, u64)) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let all = file.metadata()?.len();
    let mut bytes = Vec::new();
    while file.by_ref().take(STRIDE).read_to_end(&mut bytes)? > 0 {
        progress(bytes.len() as u64, all);
    }
    Ok(bytes)
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
