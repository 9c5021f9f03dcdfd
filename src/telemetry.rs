//! Logs, and the guard that times a stage: a tracing span and a histogram in one.
//!
//! Guarantees: the six stage names are used only for spans and the `stage` label. There are two more spans: `batch`
//! (from the endpoint to the merge) and `window` (from its close to its report). Must not: name a room.

use std::io::IsTerminal;

use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::traces::{self, Traces};

/// The six stages, in the order a batch passes them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Stage {
    Ingest,
    Decode,
    Accumulate,
    Spectrum,
    Diagnose,
    Publish,
}

const WORDS: [&str; 6] = ["ingest", "decode", "accumulate", "spectrum", "diagnose", "publish"];

/// `fullrank_stage_duration_seconds{stage}`.
#[derive(Clone, Debug)]
pub struct Stages {
    histograms: [Histogram; 6],
}

pub(crate) struct StageGuard {
    timer: Option<prometheus::HistogramTimer>,
    _span: tracing::span::EnteredSpan,
}

impl Stages {
    /// Registers the histogram.
    ///
    /// # Errors
    /// If the registry already has a histogram of that name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        // 100 microseconds to 100 seconds: from a small batch to an eigensolve at d = 8192.
        let buckets = prometheus::exponential_buckets(1e-4, 10f64.powf(0.5), 13)?;
        let options = HistogramOpts::new(
            "fullrank_stage_duration_seconds",
            "Time a batch or window spent in a stage, in seconds",
        );
        let family = HistogramVec::new(options.buckets(buckets), &["stage"])?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self { histograms: WORDS.map(|word| family.with_label_values(&[word])) })
    }

    /// Starts a stage; it ends when the guard drops.
    pub(crate) fn enter(&self, stage: Stage) -> StageGuard {
        let word = WORDS[stage as usize];
        let span = tracing::debug_span!("stage", stage = word).entered();
        StageGuard { timer: Some(self.histograms[stage as usize].start_timer()), _span: span }
    }

    /// Records a stage that was timed elsewhere (across awaits).
    pub fn observe(&self, stage: Stage, seconds: f64) {
        self.histograms[stage as usize].observe(seconds);
    }
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.observe_duration();
        }
    }
}

/// Starts logging to standard error: text or JSON lines, filtered by `filter` (`info`, `fullrank=debug`). With `otlp`,
/// the gRPC address of an OpenTelemetry collector, the spans of batches, windows and their stages go there; at most
/// 2048 wait, more are dropped. That needs a tokio runtime.
///
/// # Errors
/// If the filter or the address cannot be used.
pub(crate) fn init(filter: &str, json: bool, otlp: Option<&str>) -> Result<Traces, String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter '{filter}': {e}"))?;
    let (spans, traces) = traces::start(otlp)?;
    // If nobody reads the log any more, do not panic: that message would go the same way.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    // A second call keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init();
    Ok(traces)
}
