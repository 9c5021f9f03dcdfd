//! Alerts as the board has them: the alarms of published verdicts that are degrading or collapsed, with their evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kernels::word::Word;
use serde_json::{Value, json};

use crate::analysis::parameters::Method;
use crate::analysis::report::FullReport;
use crate::analysis::verdict::{Alarm, FiringAlarm, Level, VerdictReason, VerdictState};
use crate::publish::board::{Board, LayerView};
use crate::publish::run_metrics::log_spaced_components;

/// Run, layer, alarm's word, severity's word: one that gets worse is another alert, as with the rules of Prometheus.
pub(super) type Key = (String, String, &'static str, &'static str);

/// One alarm of one layer's published verdict.
#[derive(Clone, Debug)]
pub(super) struct Alert {
    /// Run.
    pub(super) run: String,
    /// Layer, with its role's suffix.
    pub(super) layer: String,
    /// What fires.
    pub(super) alarm: Alarm,
    /// How bad it is.
    pub(super) severity: Level,
    /// The run's method, if it named one.
    pub(super) method: Option<Method>,
    /// Since which window the published state holds.
    pub(super) since_window: u64,
    /// The report that is published: where the verdict is latched, the one that latched it.
    pub(super) report: Arc<FullReport>,
    /// When that report's window closed; later, when the alert ended.
    pub(super) starts_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub(super) ends_at: Option<Timestamp>,
}

/// Everything that fires.
pub(super) fn firing(board: &Board) -> BTreeMap<Key, Alert> {
    let mut alerts = BTreeMap::new();
    for (run, view) in board.runs().into_iter().filter(|(_, view)| !view.expired) {
        for (layer, layer_view) in &view.layers {
            for alert in firing_in_layer(&run, layer, layer_view, view.method) {
                alerts.insert(alert.key(), alert);
            }
        }
    }
    alerts
}

fn firing_in_layer(run: &str, layer: &str, view: &LayerView, method: Option<Method>) -> Vec<Alert> {
    let Some(report) = view.shown() else { return Vec::new() };
    let verdict = &report.report.verdict;
    // An untrained network looks collapsed: until it has left the cone nobody is called.
    if !matches!(verdict.state, VerdictState::Degrading | VerdictState::Collapsed) {
        return Vec::new();
    }
    let alert = |firing: &FiringAlarm| Alert {
        run: run.to_string(),
        layer: layer.to_string(),
        alarm: firing.alarm,
        // Critical is a verdict that has collapsed, which takes several critical windows in a row; before, its alarms warn.
        severity: if verdict.state == VerdictState::Collapsed { firing.severity } else { Level::Warning },
        method,
        since_window: view.since_window,
        report: Arc::clone(report),
        starts_at: report.report.closed_at.as_ref().and_then(|at| at.parse().ok()),
        ends_at: None,
    };
    verdict.alarms.iter().map(alert).collect()
}

impl Alert {
    /// What makes it the same alert at the next look.
    pub(super) fn key(&self) -> Key {
        (self.run.clone(), self.layer.clone(), self.alarm.word(), self.severity.word())
    }

    /// `FullrankCompleteCollapse`: the names of the rules in `dashboards/prometheus`.
    pub(super) fn name(&self) -> String {
        let words = self.alarm.word().split('_');
        let capitalised = words.map(|word| word[..1].to_uppercase() + &word[1..]);
        std::iter::once("Fullrank".to_string()).chain(capitalised).collect()
    }

    /// One line.
    pub(super) fn summary(&self) -> String {
        let what = self.alarm.word().replace('_', " ");
        format!("{what} in run {}, layer {}, since window {}", self.run, self.layer, self.since_window)
    }

    /// The cause and the numbers.
    pub(super) fn description(&self) -> String {
        let verdict = &self.report.report.verdict;
        let number = |reason: &VerdictReason| {
            format!("{} is {:.4} (threshold {:.4})", reason.measure, reason.value, reason.threshold)
        };
        let reasons: Vec<String> = verdict.reasons.iter().map(number).collect();
        format!(
            "The verdict is {}, the cause {}: {}.",
            verdict.state.word(),
            verdict.cause.word(),
            if reasons.is_empty() { "no single measure crossed its threshold".to_string() } else { reasons.join(", ") }
        )
    }

    /// What a person needs to judge it without opening anything: first bad window, measures, spectrum, thresholds.
    pub(super) fn evidence(&self) -> Value {
        let report = &self.report.report;
        let eigenvalues = self.report.eigenvalues().map(|values| {
            let shown = log_spaced_components(values.len()).map(|component| (component, values[component - 1]));
            shown.map(|(component, value)| json!({"component": component, "value": value})).collect::<Vec<_>>()
        });
        json!({
            "first_bad_window": self.since_window,
            "window": report.window,
            "revision": report.revision,
            "step": report.step,
            "rows": report.rows,
            "dim": report.dim,
            "loss": report.loss,
            "verdict": report.verdict,
            "measures": report.measures,
            "thresholds": report.computed.thresholds,
            "spectrum": {"eigenvalues": eigenvalues, "noise_floor": report.measures.noise_floor},
        })
    }
}
