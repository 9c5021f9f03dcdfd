//! The service's own counters, and the registry behind /metrics.
//!
//! Guarantees: each instance has its own registry, so tests can run many services in one process. Must not: hold the
//! series of runs (`run_metrics` builds those at scrape time).

use std::sync::Arc;

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::Code;
use crate::telemetry::Stages;

/// Version and build of this program, for `fullrank_build_info`.
#[derive(Clone, Debug)]
pub struct Build {
    /// Crate version.
    pub version: &'static str,
    /// Source revision, if known at build time.
    pub revision: &'static str,
    /// The device: `cpu`, `torch`, `torch-cuda:0`.
    pub backend: String,
}

/// The service's own metrics.
#[derive(Debug)]
#[allow(missing_docs)] // each is documented by its help text
pub struct ServiceMetrics {
    pub registry: Registry,
    pub stages: Stages,
    pub rows: IntCounter,
    pub(crate) spectra_skipped: IntCounter,
    pub(crate) solver_failures: IntCounter,
    pub(crate) worker_panics: IntCounter,
    pub(crate) series_dropped: IntCounter,
    pub(crate) compute_fallbacks: IntCounterVec,
    pub(crate) compute_worker_restarts: IntCounter,
    pub inbox_batches: IntGauge,
    pub streams: IntGauge,
    pub connections: IntGauge,
    pub(crate) accumulator_bytes: IntGauge,
    accepted: IntCounterVec,
    duplicates: IntCounterVec,
    rejected: IntCounterVec,
    notifications: IntCounterVec,
    bytes: IntCounter,
}

/// Values of the label `door`: the endpoints.
const DOORS: [&str; 2] = ["http", "grpc"];

impl ServiceMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// If a name is used twice, which is a bug.
    pub fn new(build: &Build, inbox_capacity: usize) -> Result<Arc<Self>, prometheus::Error> {
        let names = Names(Registry::new());
        names
            .gauge("fullrank_inbox_capacity_batches", "Batches that may wait to be merged")?
            .set(inbox_capacity as i64);
        names.build_info(build)?;
        #[cfg(target_os = "linux")]
        names.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let service = Self {
            stages: Stages::register(&names.0)?,
            rows: names.counter("fullrank_rows_total", "Rows admitted, all views counted")?,
            spectra_skipped: names.counter(
                "fullrank_spectra_skipped_total",
                "Windows measured without eigenvalues because the solvers were behind",
            )?,
            solver_failures: names
                .counter("fullrank_solver_failures_total", "Eigensolver results that failed their checks")?,
            worker_panics: names.counter("fullrank_worker_panics_total", "Panics that cost one batch or report")?,
            series_dropped: names.counter(
                "fullrank_series_dropped_total",
                "Series left out of scrapes because of the cardinality cap",
            )?,
            compute_fallbacks: names.counters(
                "fullrank_compute_fallbacks_total",
                "Jobs that the cpu backend did in place of the configured device, by reason",
                &["reason"],
            )?,
            compute_worker_restarts: names
                .counter("fullrank_compute_worker_restarts_total", "Compute workers that replaced a failed one")?,
            inbox_batches: names.gauge("fullrank_inbox_batches", "Batches that wait to be merged")?,
            streams: names.gauge("fullrank_streams", "Layers of unexpired runs")?,
            connections: names.gauge("fullrank_connections", "Open connections")?,
            accumulator_bytes: names
                .gauge("fullrank_accumulator_bytes", "Bytes of accumulators and reservoirs of open windows")?,
            accepted: names.counters("fullrank_batches_accepted_total", "Batches accepted", &["door"])?,
            duplicates: names.counters(
                "fullrank_batches_duplicate_total",
                "Batches that came again (each counts once)",
                &["door"],
            )?,
            rejected: names.counters(
                "fullrank_batches_rejected_total",
                "Batches refused, by error code",
                &["door", "reason"],
            )?,
            notifications: names.counters(
                "fullrank_notifications_total",
                "Alerts posted to a webhook or to Alertmanager: sent, failed (and retried), dropped (too many waiting)",
                &["receiver", "outcome"],
            )?,
            bytes: names.counter("fullrank_received_bytes_total", "Bytes of accepted bodies, decompressed")?,
            registry: names.0,
        };
        service.start_at_zero();
        Ok(Arc::new(service))
    }

    /// Creates every label at the start, so that a rate sees the first event.
    fn start_at_zero(&self) {
        for receiver in ["webhook", "alertmanager"] {
            for outcome in ["sent", "failed", "dropped"] {
                self.notified(receiver, outcome, 0);
            }
        }
        for door in DOORS {
            self.accepted.with_label_values(&[door]);
            self.duplicates.with_label_values(&[door]);
            for code in Code::all() {
                self.rejected.with_label_values(&[door, code.word()]);
            }
        }
    }

    /// Counts a push of `bytes` at an endpoint: accepted, duplicate or refused.
    pub(crate) fn pushed(&self, door: &str, bytes: usize, duplicate: Result<bool, Code>) {
        match duplicate {
            Ok(duplicate) => {
                let counters = if duplicate { &self.duplicates } else { &self.accepted };
                counters.with_label_values(&[door]).inc();
                self.bytes.inc_by(bytes as u64);
            }
            Err(code) => self.rejected(door, code),
        }
    }

    /// Counts a delivery to a receiver of alerts.
    pub fn notified(&self, receiver: &str, outcome: &str, count: u64) {
        self.notifications.with_label_values(&[receiver, outcome]).inc_by(count);
    }

    pub(crate) fn rejected(&self, door: &str, code: Code) {
        self.rejected.with_label_values(&[door, code.word()]).inc();
    }
}

struct Names(Registry);

impl Names {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn build_info(&self, build: &Build) -> Result<(), prometheus::Error> {
        let options = Opts::new("fullrank_build_info", "Version and build of this program; always 1");
        let info = GaugeVec::new(options, &["version", "revision", "backend"])?;
        info.with_label_values(&[build.version, build.revision, &build.backend]).set(1.0);
        self.0.register(Box::new(info))
    }
}
