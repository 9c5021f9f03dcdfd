//! A report as the contract's JSON. An undefined value is null.

use serde_json::{Map, Value, json};

use crate::analysis::measures::{Measures, SHARES, TABLE};
use crate::analysis::methods;
use crate::analysis::report::Report;
use crate::analysis::verdict::Verdict;

/// The whole report.
pub(super) fn report_value(report: &Report) -> Value {
    let computed = &report.computed;
    let intervals: Map<String, Value> =
        computed.intervals.iter().map(|(name, (low, high))| ((*name).to_string(), json!([low, high]))).collect();
    let thresholds: Map<String, Value> =
        computed.thresholds.iter().map(|(name, value)| ((*name).to_string(), json!(value))).collect();
    let alpha_fit =
        computed.alpha_fit.map(|fit| json!({"first_rank": fit.first, "last_rank": fit.last, "residual": fit.residual}));
    json!({
        "run": report.run,
        "layer": report.layer,
        "window": report.window,
        "revision": report.revision,
        "step": report.step,
        "rows": report.rows,
        "samples": report.samples,
        "views": report.views,
        "dim": report.dim,
        "closed": report.closed,
        "complete": report.complete,
        "closed_at": report.closed_at,
        "loss": report.loss,
        "measures": measures_value(&report.measures),
        "methods": methods_value(report),
        "computed": {
            "device": computed.device,
            "kernel": computed.kernel,
            "solver": computed.solver,
            "exact": computed.exact,
            "estimated": computed.estimated,
            "intervals": intervals,
            "alpha_fit": alpha_fit,
            "rankme": computed.rankme.map(|how| json!({"epsilon": how.epsilon, "centered": how.centered})),
            "thresholds": thresholds,
        },
        "notes": notes(report),
        "verdict": verdict_value(&report.verdict),
    })
}

fn measures_value(measures: &Measures) -> Value {
    let mut map: Map<String, Value> =
        TABLE.iter().zip(measures.scalars()).map(|((name, _), value)| ((*name).to_string(), json!(value))).collect();
    let shares: Map<String, Value> = SHARES
        .iter()
        .zip(measures.components_for_variance)
        .map(|((_, label), value)| ((*label).to_string(), json!(value)))
        .collect();
    map.insert("components_for_variance".to_string(), Value::Object(shares));
    Value::Object(map)
}

/// Every group of the table: null without its inputs.
fn methods_value(report: &Report) -> Value {
    let mut all = Map::new();
    for ((group, names), values) in methods::TABLE.iter().zip(report.diagnostics.groups()) {
        let value = values.map(|values| {
            names.iter().zip(values).map(|((name, _, _), value)| ((*name).to_string(), json!(value))).collect()
        });
        all.insert((*group).to_string(), value.map_or(Value::Null, Value::Object));
    }
    if let (Some(constant), Some(Value::Object(loss))) = (&report.loss_constant, all.get_mut("loss")) {
        loss.insert("formula".to_string(), json!(constant.formula));
        loss.insert("meaning".to_string(), json!(constant.holds().then_some(constant.meaning)));
    }
    Value::Object(all)
}

/// A verdict, not latched.
pub fn verdict_value(verdict: &Verdict) -> Value {
    let reasons: Vec<Value> = verdict
        .reasons
        .iter()
        .map(|reason| json!({"measure": reason.measure, "value": reason.value, "threshold": reason.threshold}))
        .collect();
    let alarms: Vec<Value> =
        verdict.alarms.iter().map(|(alarm, level)| json!({"alarm": alarm.word(), "severity": level.word()})).collect();
    json!({
        "state": verdict.state.word(),
        "scale": verdict.scale.word(),
        "dimension": verdict.dimension.word(),
        "cause": verdict.cause.word(),
        "reasons": reasons,
        "alarms": alarms,
    })
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = report.notes.clone();
    if report.verdict.state == crate::analysis::verdict::State::WarmingUp {
        notes.push(
            "warming up: an untrained network looks collapsed, so nothing is called until it has spread out in two windows or has had its time"
                .to_string(),
        );
    }
    notes
}
