//! The metrics of runs and layers, built from the board at each scrape, so a run that ends disappears by itself.
//!
//! Guarantees: an undefined value has no series; there are never more series than the cap, and series left out are
//! counted. Must not: label by step or window.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::word::Word;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use strum::VariantArray;

use super::board::{Board, LayerView, RunView};
use super::service_metrics::ServiceMetrics;
use crate::analysis::measures::TABLE;
use crate::analysis::methods;
use crate::analysis::parameters::Method;
use crate::analysis::report::Report;
use crate::analysis::verdict::{Alarm, FiringAlarm, VerdictState};

/// Metrics that are not in the table of measures: (name, help, labels).
const FAMILIES: [(&str, &str, &[&str]); 15] = [
    (
        "fullrank_components_for_variance",
        "Leading eigenvalues that hold a share of the variance",
        &["run", "layer", "share"],
    ),
    (
        "fullrank_eigenvalue",
        "Eigenvalues of the covariance, by component from 1, log-spaced",
        &["run", "layer", "component"],
    ),
    (
        "fullrank_approximate",
        "1 if the newest report's entropy_rank, intrinsic_dimension or rankme is an estimate, else 0",
        &["run", "layer"],
    ),
    (
        "fullrank_verdict",
        "1 for the published state; latched once collapsed (published until acknowledged)",
        &["run", "layer", "state"],
    ),
    (
        "fullrank_verdict_cause",
        "The cause of the published verdict, latched with it; always 1",
        &["run", "layer", "cause"],
    ),
    (
        "fullrank_verdict_alarm",
        "1 for an alarm of the published verdict at this severity, latched with it",
        &["run", "layer", "alarm", "severity"],
    ),
    ("fullrank_alarm", "1 while the alarm holds at this severity", &["run", "layer", "alarm", "severity"]),
    (
        "fullrank_nonfinite_rows_total",
        "Rows refused because they held NaN, infinities or values too large",
        &["run", "layer"],
    ),
    ("fullrank_run_loss", "The newest loss pushed", &["run"]),
    ("fullrank_run_info", "The run's method; always 1", &["run", "method"]),
    ("fullrank_run_step", "The newest step pushed", &["run"]),
    ("fullrank_run_window", "The newest window pushed", &["run"]),
    ("fullrank_run_last_push_timestamp_seconds", "Time of the last push, Unix time", &["run"]),
    ("fullrank_run_finished", "1 once the run is finished", &["run"]),
    ("fullrank_report_rows", "Pooled rows of the newest window", &["run", "layer"]),
];

/// Collects the metrics of runs and layers from the board.
pub struct RunCollector {
    board: Arc<Board>,
    metrics: Arc<ServiceMetrics>,
    max_series: usize,
    descriptions: Vec<Desc>,
}

#[derive(Default)]
struct Series {
    families: BTreeMap<&'static str, Vec<Metric>>,
    measures: Vec<Vec<Metric>>,
    count: usize,
}

impl RunCollector {
    /// A collector of everything on the board, with at most `max_series` series.
    ///
    /// # Errors
    /// If a name is not a valid metric name, which is a bug.
    pub fn new(board: Arc<Board>, metrics: Arc<ServiceMetrics>, max_series: usize) -> Result<Self, prometheus::Error> {
        let names = |labels: &[&str]| labels.iter().map(|label| (*label).to_string()).collect();
        let mut descriptions = Vec::new();
        for (name, help) in scalar_table() {
            let name = format!("fullrank_{name}");
            descriptions.push(Desc::new(name, help.to_string(), names(&["run", "layer"]), Default::default())?);
        }
        for (name, help, labels) in FAMILIES {
            descriptions.push(Desc::new(name.to_string(), help.to_string(), names(labels), Default::default())?);
        }
        Ok(Self { board, metrics, max_series, descriptions })
    }
}

impl Collector for RunCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let empty = vec![Vec::new(); scalar_table().count()];
        let mut all = Series { measures: empty.clone(), ..Series::default() };
        for (name, run) in self.board.runs() {
            if run.expired {
                continue;
            }
            // A run is included completely or not at all, so that what is there can be trusted.
            let mut mine = Series { measures: empty.clone(), ..Series::default() };
            mine.run(&name, &run);
            for (layer, view) in &run.layers {
                mine.layer(&[("run", &name), ("layer", layer)], view);
            }
            if all.count + mine.count > self.max_series {
                self.metrics.series_dropped.inc_by(mine.count as u64);
                continue;
            }
            all.absorb(mine);
        }
        all.into_families()
    }
}

type Labels<'a> = [(&'a str, &'a str)];

impl Series {
    fn add(&mut self, family: &'static str, labels: &Labels<'_>, more: &Labels<'_>, value: f64) {
        let metric = metric(labels, more, value);
        self.families.entry(family).or_default().push(metric);
        self.count += 1;
    }

    fn run(&mut self, name: &str, run: &RunView) {
        let labels = [("run", name)];
        self.add("fullrank_run_info", &labels, &[("method", run.method.map_or("", Method::word))], 1.0);
        let numbers = [
            ("fullrank_run_loss", run.loss),
            ("fullrank_run_step", run.step.map(|step| step as f64)),
            ("fullrank_run_window", run.window.map(|window| window as f64)),
            ("fullrank_run_last_push_timestamp_seconds", run.last_push.map(|at| at.as_millisecond() as f64 / 1000.0)),
            ("fullrank_run_finished", Some(f64::from(u8::from(run.finished_at.is_some())))),
        ];
        for (family, value) in numbers {
            if let Some(value) = value {
                self.add(family, &labels, &[], value);
            }
        }
    }

    fn layer(&mut self, labels: &Labels<'_>, view: &LayerView) {
        self.families.entry("fullrank_nonfinite_rows_total").or_default().push(counter(labels, view.nonfinite_rows));
        self.count += 1;
        let Some(newest) = &view.newest else { return };
        let report = &newest.report;
        for (index, value) in scalars(report).into_iter().enumerate() {
            if let Some(value) = value {
                self.measures[index].push(metric(labels, &[], value));
                self.count += 1;
            }
        }
        for (label, value) in report.measures.components_for_variance.labelled() {
            if let Some(value) = value {
                self.add("fullrank_components_for_variance", labels, &[("share", label)], value);
            }
        }
        let approximate = f64::from(u8::from(!report.computed.estimated.is_empty()));
        self.add("fullrank_approximate", labels, &[], approximate);
        if let Some(eigenvalues) = newest.eigenvalues() {
            for component in log_spaced_components(eigenvalues.len()) {
                let label = component.to_string();
                self.add("fullrank_eigenvalue", labels, &[("component", &label)], eigenvalues[component - 1]);
            }
        }
        self.add("fullrank_report_rows", labels, &[], report.rows as f64);
        let shown = view.state();
        for state in VerdictState::VARIANTS {
            let value = f64::from(u8::from(*state == shown));
            self.add("fullrank_verdict", labels, &[("state", state.word())], value);
        }
        // What is latched keeps its state at that time: a run may drift from one collapse to another.
        let published = &view.shown().unwrap_or(newest).report.verdict;
        self.add("fullrank_verdict_cause", labels, &[("cause", published.cause.word())], 1.0);
        for (family, verdict) in [("fullrank_verdict_alarm", published), ("fullrank_alarm", &report.verdict)] {
            for (alarm, levels) in Alarm::ALL {
                for level in levels {
                    let holds = verdict.alarms.contains(&FiringAlarm { alarm, severity: *level });
                    let more = [("alarm", alarm.word()), ("severity", level.word())];
                    self.add(family, labels, &more, f64::from(u8::from(holds)));
                }
            }
        }
    }

    fn absorb(&mut self, other: Series) {
        for (family, metrics) in other.families {
            self.families.entry(family).or_default().extend(metrics);
        }
        for (mine, theirs) in self.measures.iter_mut().zip(other.measures) {
            mine.extend(theirs);
        }
        self.count += other.count;
    }

    fn into_families(mut self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for ((name, help), metrics) in scalar_table().zip(self.measures) {
            families.extend(family(&format!("fullrank_{name}"), help, metrics));
        }
        for (name, help, _) in FAMILIES {
            families.extend(family(name, help, self.families.remove(name).unwrap_or_default()));
        }
        families
    }
}

/// (name, help) of every scalar of a layer: the measures, then the methods' diagnostics.
fn scalar_table() -> impl Iterator<Item = (&'static str, &'static str)> {
    let diagnostics = methods::TABLE.iter().flat_map(|(_, names)| names.iter().map(|(_, name, help)| (*name, *help)));
    TABLE.iter().copied().chain(diagnostics)
}

/// In the table's order.
fn scalars(report: &Report) -> Vec<Option<f64>> {
    let mut values = report.measures.scalars();
    for ((_, names), group) in methods::TABLE.iter().zip(report.methods.groups()) {
        values.extend(group.unwrap_or_else(|| vec![None; names.len()]));
    }
    values
}

fn family(name: &str, help: &str, metrics: Vec<Metric>) -> Option<MetricFamily> {
    if metrics.is_empty() {
        return None;
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_string());
    family.set_help(help.to_string());
    let is_counter = name.ends_with("_total");
    family.set_field_type(if is_counter { MetricType::COUNTER } else { MetricType::GAUGE });
    family.set_metric(metrics);
    Some(family)
}

fn pairs(labels: &Labels<'_>, more: &Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_string());
        pair.set_value((*value).to_string());
        pair
    };
    labels.iter().chain(more).map(pair).collect()
}

fn metric(labels: &Labels<'_>, more: &Labels<'_>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels, more));
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &Labels<'_>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels, &[]));
    metric.set_counter(counter);
    metric
}

/// Components 1 to 8, then two per octave: 8 2^(k/2) rounded, up to d.
pub(crate) fn log_spaced_components(d: usize) -> impl Iterator<Item = usize> {
    let spaced = (1..).map(|k| (8.0 * 2f64.powf(f64::from(k) / 2.0)).round() as usize);
    (1..=8).chain(spaced).take_while(move |component| *component <= d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_log_spaced() {
        let components: Vec<usize> = log_spaced_components(64).collect();
        assert_eq!(components, [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 23, 32, 45, 64]);
        assert_eq!(log_spaced_components(3).count(), 3);
    }
}
