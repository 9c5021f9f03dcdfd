//! Alerts from the board: the alarms of published verdicts that are degrading or collapsed, with their evidence.

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

/// Run, layer, alarm, severity: a higher severity is another alert, as in the rules for Prometheus.
pub(super) type Key = (String, String, &'static str, &'static str);

#[derive(Clone, Debug)]
pub(super) struct Alert {
    pub(super) run: String,
    pub(super) layer: String,
    pub(super) alarm: Alarm,
    pub(super) severity: Level,
    pub(super) method: Option<Method>,
    pub(super) since_window: u64,
    /// The published report: the one that latched the verdict, if it is latched.
    pub(super) report: Arc<FullReport>,
    /// When that report's window closed; once the alert has ended, when it ended.
    pub(super) starts_at: Option<Timestamp>,
    pub(super) ends_at: Option<Timestamp>,
}

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
    // An untrained network looks collapsed: nothing fires until it has left the cone.
    if !matches!(verdict.state, VerdictState::Degrading | VerdictState::Collapsed) {
        return Vec::new();
    }
    let alert = |firing: &FiringAlarm| Alert {
        run: run.to_string(),
        layer: layer.to_string(),
        alarm: firing.alarm,
        // Only a collapsed verdict, which takes several critical windows in a row, is critical; before that its alarms
        // are warnings.
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
    /// Identifies the same alert at the next look.
    pub(super) fn key(&self) -> Key {
        (self.run.clone(), self.layer.clone(), self.alarm.word(), self.severity.word())
    }

    /// `FullrankCompleteCollapse`: the names of the rules in `dashboards/prometheus`.
    pub(super) fn name(&self) -> String {
        let words = self.alarm.word().split('_');
        let capitalised = words.map(|word| word[..1].to_uppercase() + &word[1..]);
        std::iter::once("Fullrank".to_string()).chain(capitalised).collect()
    }

    pub(super) fn summary(&self) -> String {
        let what = self.alarm.word().replace('_', " ");
        format!("{what} in run {}, layer {}, since window {}", self.run, self.layer, self.since_window)
    }

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
            if reasons.is_empty() { "no single measure is past its threshold".to_string() } else { reasons.join(", ") }
        )
    }

    /// Everything needed to judge the alert without opening anything: first bad window, measures, spectrum, thresholds.
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
