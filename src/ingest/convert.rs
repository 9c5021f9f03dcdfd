//! The read side's JSON as proto messages: one rendering, two wires.

use serde_json::Value;

use super::grpc::proto;
use crate::publish::Published;

pub(super) fn report(json: &Value) -> proto::Report {
    let measures = json["measures"].as_object().into_iter().flatten();
    let verdict = &json["verdict"];
    proto::Report {
        run: text(&json["run"]),
        layer: text(&json["layer"]),
        window: json["window"].as_u64().unwrap_or(0),
        revision: json["revision"].as_u64().unwrap_or(0) as u32,
        measures: measures.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect(),
        state: text(&verdict["state"]),
        scale: text(&verdict["scale"]),
        dimension: text(&verdict["dimension"]),
        cause: text(&verdict["cause"]),
        json: json.to_string(),
    }
}

pub(super) fn verdict(json: &Value) -> proto::Verdict {
    let reason = |json: &Value| proto::Reason {
        measure: text(&json["measure"]),
        value: json["value"].as_f64().unwrap_or(f64::NAN),
        threshold: json["threshold"].as_f64().unwrap_or(f64::NAN),
    };
    proto::Verdict {
        run: text(&json["run"]),
        layer: text(&json["layer"]),
        state: text(&json["state"]),
        scale: text(&json["scale"]),
        dimension: text(&json["dimension"]),
        cause: text(&json["cause"]),
        reasons: json["reasons"].as_array().into_iter().flatten().map(reason).collect(),
        latched: json["latched"].as_bool().unwrap_or(false),
        since_window: json["since_window"].as_u64().unwrap_or(0),
        window: json["window"].as_u64().unwrap_or(0),
        current_state: text(&json["current"]["state"]),
    }
}

pub(super) fn run(json: &Value) -> proto::Run {
    proto::Run {
        run: text(&json["run"]),
        method: json["method"].as_str().map(str::to_string),
        state: text(&json["state"]),
        layers: json["layers"].as_array().into_iter().flatten().map(text).collect(),
        last_push_at: text(&json["last_push_at"]),
        finished: json["finished"].as_bool().unwrap_or(false),
    }
}

pub(super) fn spectrum(published: &Published) -> proto::Spectrum {
    let (report, measures) = (&published.report, &published.report.measures);
    proto::Spectrum {
        run: report.run.clone(),
        layer: report.layer.clone(),
        window: report.window,
        revision: report.revision,
        eigenvalues: published.eigenvalues.clone().unwrap_or_default(),
        noise_floor: measures.noise_floor.unwrap_or(0.0),
        input_noise_floor: measures.input_noise_floor.unwrap_or(0.0),
        numeric_noise_floor: measures.numeric_noise_floor.unwrap_or(0.0),
        dim: report.dim as u64,
        complete: published.complete_spectrum().unwrap_or(false),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_string()
}
