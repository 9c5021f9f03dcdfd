//! `fullrank analyze FILE`: the report of a file by itself, with no warm-up and no hysteresis.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;

use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::decode::{npy, safetensors};
use crate::analysis::parameters::Parameters;
use crate::analysis::report::{self, Closed, Content, FullReport, Heading, Judging};
use crate::budget::Budget;
use crate::compute::lend::with_kernels;
use crate::compute::reduce::{gather, reduce};
use crate::compute::solve::Solver;
use crate::pipeline::ThresholdOverrides;

/// Bytes read between two calls of `progress`.
const STRIDE: u64 = 16 << 20;

/// The report of one file; `progress` is called with the bytes read so far and the total.
///
/// # Errors
/// What is wrong with the file, which is named.
pub fn file(path: &Path, overrides: &ThresholdOverrides, progress: &dyn Fn(u64, u64)) -> Result<FullReport, String> {
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
    report(Arc::new(backend), batch, &name, overrides)
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

/// The report of a batch by itself: exact, using all available memory.
///
/// # Errors
/// If the device fails, or the batch holds nothing to measure.
pub fn report(
    backend: Arc<dyn Backend>,
    batch: EmbeddingBatch,
    name: &str,
    overrides: &ThresholdOverrides,
) -> Result<FullReport, String> {
    let fail = |error: String| format!("{name}: {error}");
    let mut content = Content { scalars: batch.parameters.scalars.clone(), ..Content::default() };
    let asked = Parameters { unit_moments: Some(true), ..batch.parameters.clone() };
    for part in &batch.parts {
        let rows = reduce(&*backend, part, &asked, Precision::F64).map_err(|error| fail(error.to_string()))?;
        content.roles.insert(part.role, rows);
    }
    gather(&*backend, &batch, &mut content.gathered).map_err(fail)?;
    let solver = Solver { backend, memory: Budget::new(usize::MAX) };
    let solved = content.roles.iter().map(|(role, rows)| (*role, solver.solve(rows))).collect();
    let parameters = batch.parameters;
    let heading = Heading {
        layer: name.to_string(),
        window: parameters.window.unwrap_or(0),
        revision: 1,
        step: parameters.step,
        closed: Some(Closed { complete: true, at: None }),
        ..Heading::default()
    };
    let thresholds = overrides.thresholds("", parameters.method);
    let judging = Judging { thresholds: &thresholds, method: parameters.method, memory: None, factorise: true };
    let made = with_kernels(&*solver.backend, |kernels| report::make(&content, solved, &heading, judging, kernels));
    // The layer itself comes first; those derived from it are in its diagnostics.
    made.reports.into_iter().next().ok_or_else(|| fail("there is nothing to measure in it".to_string()))
}
