//! A stored report's JSON back into a report: the inverse of `report_json`, for the start of the service.

use serde_json::Value;

use super::Published;
use crate::analysis::measures::{Measures, SHARES, TABLE};
use crate::analysis::methods::{self, Diagnostics};
use crate::analysis::report::{Computed, Report};
use crate::analysis::verdict::{Alarm, Cause, Level, Reason, State, Verdict};

/// Measures that only reasons name.
const REASON_MEASURES: [&str; 3] = ["entropy_rank_share", "entropy_rank_to_null", "samples"];

/// `None` when the text is no report of this schema.
pub(super) fn published(json: Value, eigenvalues: Option<Vec<f64>>) -> Option<Published> {
    let report = report(&json)?;
    Some(Published { report, json, eigenvalues })
}

fn report(json: &Value) -> Option<Report> {
    let text = |key: &str| json[key].as_str().map(str::to_string);
    Some(Report {
        run: text("run")?,
        layer: text("layer")?,
        window: json["window"].as_u64()?,
        revision: u32::try_from(json["revision"].as_u64()?).ok()?,
        step: json["step"].as_u64(),
        rows: json["rows"].as_u64()?,
        samples: json["samples"].as_u64()?,
        views: json["views"].as_u64()? as usize,
        dim: json["dim"].as_u64()? as usize,
        closed: json["closed"].as_bool()?,
        complete: json["complete"].as_bool()?,
        closed_at: text("closed_at"),
        loss: json["loss"].as_f64(),
        measures: measures(&json["measures"]),
        diagnostics: diagnostics(&json["methods"]),
        // Of these, but for what is an estimate, only the rendered JSON is read.
        loss_constant: None,
        computed: Computed { estimated: estimated(&json["computed"]["estimated"]), ..Computed::default() },
        notes: Vec::new(),
        verdict: verdict(&json["verdict"])?,
    })
}

fn measures(json: &Value) -> Measures {
    let mut measures = Measures::default();
    for (name, _) in TABLE {
        measures.set(name, json[*name].as_f64());
    }
    for (slot, (_, label)) in measures.components_for_variance.iter_mut().zip(SHARES) {
        *slot = json["components_for_variance"][label].as_f64();
    }
    measures
}

fn estimated(json: &Value) -> Vec<&'static str> {
    let names = json.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.filter_map(|name| TABLE.iter().map(|(known, _)| *known).find(|known| *known == name)).collect()
}

fn diagnostics(json: &Value) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    for (group, names) in methods::TABLE {
        for (name, _, _) in json[*group].as_object().map_or(&[][..], |_| names) {
            diagnostics.set(group, name, json[*group][*name].as_f64());
        }
    }
    diagnostics
}

/// Measures, diagnostics, and what only reasons name.
fn reason_measure(name: &str) -> Option<&'static str> {
    let diagnostics = methods::TABLE.iter().flat_map(|(_, names)| names.iter().map(|(_, exported, _)| *exported));
    TABLE.iter().map(|(name, _)| *name).chain(diagnostics).chain(REASON_MEASURES).find(|known| *known == name)
}

fn verdict(json: &Value) -> Option<Verdict> {
    let level = |key: &str| Level::of(json[key].as_str()?);
    let reason = |json: &Value| {
        let measure = reason_measure(json["measure"].as_str()?)?;
        Some(Reason { measure, value: json["value"].as_f64()?, threshold: json["threshold"].as_f64()? })
    };
    let alarm = |json: &Value| Some((Alarm::of(json["alarm"].as_str()?)?, Level::of(json["severity"].as_str()?)?));
    Some(Verdict {
        state: State::of(json["state"].as_str()?)?,
        scale: level("scale")?,
        dimension: level("dimension")?,
        cause: Cause::of(json["cause"].as_str()?)?,
        reasons: json["reasons"].as_array()?.iter().filter_map(reason).collect(),
        alarms: json["alarms"].as_array()?.iter().filter_map(alarm).collect(),
    })
}
