//! The gRPC messages, and how the answers become them.

use crate::analysis::report::{self, FullReport};
use crate::analysis::verdict::VerdictReason;
use kernels::word::Word;

use super::views::{PublishedVerdict, RunSummary};

/// The generated code.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    tonic::include_proto!("fullrank.v1");
}

pub use generated::*;

/// The descriptors, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fullrank.bin"));

impl generated::Report {
    /// Builds the message from a report and its JSON.
    pub fn new(report: &report::Report, json: String) -> Self {
        let (verdict, measures) = (&report.verdict, report.measures.by_name());
        Self {
            run: report.run.clone(),
            layer: report.layer.clone(),
            window: report.window,
            revision: report.revision,
            measures: measures.filter_map(|(name, value)| Some((name.to_string(), value?))).collect(),
            state: verdict.state.word().to_string(),
            scale: verdict.scale.word().to_string(),
            dimension: verdict.dimension.word().to_string(),
            cause: verdict.cause.word().to_string(),
            json,
        }
    }
}

impl From<&FullReport> for generated::Report {
    fn from(full: &FullReport) -> Self {
        // Numbers, texts and maps by name: writing a report cannot fail.
        Self::new(&full.report, serde_json::to_string(&full.report).unwrap_or_default())
    }
}

impl From<VerdictReason> for generated::Reason {
    fn from(reason: VerdictReason) -> Self {
        Self { measure: reason.measure, value: reason.value, threshold: reason.threshold }
    }
}

impl From<PublishedVerdict> for generated::Verdict {
    fn from(published: PublishedVerdict) -> Self {
        let verdict = published.verdict;
        Self {
            run: published.run,
            layer: published.layer.unwrap_or_default(),
            state: verdict.state.word().to_string(),
            scale: verdict.scale.word().to_string(),
            dimension: verdict.dimension.word().to_string(),
            cause: verdict.cause.word().to_string(),
            reasons: verdict.reasons.into_iter().map(Into::into).collect(),
            latched: published.latched,
            since_window: published.since_window,
            window: published.window,
            current_state: published.current.map_or("", |current| current.state.word()).to_string(),
        }
    }
}

impl From<RunSummary<String>> for generated::Run {
    fn from(run: RunSummary<String>) -> Self {
        Self {
            run: run.run,
            method: run.method,
            state: run.state.word().to_string(),
            layers: run.layers,
            last_push_at: run.last_push_at.unwrap_or_default(),
            finished: run.finished,
        }
    }
}

impl From<&FullReport> for generated::Spectrum {
    fn from(full: &FullReport) -> Self {
        let (report, measures) = (&full.report, &full.report.measures);
        Self {
            run: report.run.clone(),
            layer: report.layer.clone(),
            window: report.window,
            revision: report.revision,
            eigenvalues: full.eigenvalues().unwrap_or_default().to_vec(),
            noise_floor: measures.noise_floor,
            input_noise_floor: measures.input_noise_floor,
            numeric_noise_floor: measures.numeric_noise_floor,
            dim: report.dim as u64,
            complete: full.complete_spectrum().unwrap_or(false),
        }
    }
}
