//! What is read, as JSON values: shared by the HTTP routes and the gRPC service.

use serde_json::{Value, json};

use super::Site;
use crate::error::{Code, Refusal};
use crate::publish::{Board, LayerView, RunView, verdict_value};

/// The published verdict of a run.
///
/// # Errors
/// `not_found` for an unknown run.
pub fn verdict(board: &Board, run: &str) -> Result<Value, Refusal> {
    let view = run_view(board, run)?;
    let worst = view.verdict();
    let shown = worst.view.shown();
    let mut value = match shown {
        Some(published) => verdict_value(&published.report.verdict),
        None => json!({
            "state": "warming_up", "scale": "unknown", "dimension": "unknown", "cause": "none", "reasons": [], "alarms": [],
        }),
    };
    let newest = worst.view.newest.as_ref();
    value["run"] = json!(run);
    value["layer"] = json!(worst.layer);
    value["latched"] = json!(worst.view.latched.is_some());
    value["since_window"] = json!(shown.map(|_| worst.view.since_window));
    value["window"] = json!(newest.map(|newest| newest.report.window));
    value["current"] = json!(newest.map(|newest| verdict_value(&newest.report.verdict)));
    Ok(value)
}

/// Every run, a line each.
pub fn runs(board: &Board) -> Value {
    let runs: Vec<Value> = board.runs().iter().map(|(name, view)| run_line(name, view)).collect();
    json!({ "runs": runs })
}

/// One run with its layers.
///
/// # Errors
/// `not_found` for an unknown run.
pub fn run(site: &Site, name: &str) -> Result<Value, Refusal> {
    let view = run_view(&site.board, name)?;
    let open = site.inbox.open_windows(name);
    let layers: Vec<Value> = view
        .layers
        .iter()
        .map(|(layer, view)| {
            let windows = open.iter().find(|(open, _)| open == layer).map(|(_, windows)| windows.as_slice());
            let windows: Vec<Value> =
                windows.unwrap_or_default().iter().map(|w| json!({"window": w.window, "rows": w.rows})).collect();
            layer_value(layer, view, &windows)
        })
        .collect();
    let mut value = run_line(name, &view);
    value["layers"] = Value::Array(layers);
    Ok(value)
}

pub(super) fn run_line(name: &str, view: &RunView) -> Value {
    let interrupted: Vec<Value> =
        view.interrupted.iter().map(|(layer, window)| json!({"layer": layer, "window": window})).collect();
    let worst = view.verdict();
    let shown = worst.view.shown().map(|shown| verdict_value(&shown.report.verdict));
    let of = |field: &str| shown.as_ref().map_or(Value::Null, |verdict| verdict[field].clone());
    json!({
        "run": name,
        "method": view.method,
        "state": worst.view.state().word(),
        "cause": of("cause"),
        "reasons": of("reasons"),
        "worst_layer": worst.layer,
        "latched": worst.view.latched.is_some(),
        "since_window": shown.as_ref().map(|_| worst.view.since_window),
        "layers": view.layers.keys().collect::<Vec<_>>(),
        "last_push_at": view.last_push.map(|at| at.to_string()),
        "finished": view.finished_at.is_some(),
        "step": view.step,
        "window": view.window,
        // Their rows were lost when the service stopped without draining; what is pushed to them later is incomplete.
        "interrupted_windows": interrupted,
    })
}

fn layer_value(layer: &str, view: &LayerView, open: &[Value]) -> Value {
    json!({
        "layer": layer,
        "dim": view.newest.as_ref().map(|newest| newest.report.dim),
        "state": view.state().word(),
        "latched": view.latched.is_some(),
        "since_window": view.since_window,
        "nonfinite_rows": view.nonfinite_rows,
        "open_windows": open,
        "newest": view.newest.as_ref().map(|newest| newest.json.clone()),
    })
}

/// One run on the board.
///
/// # Errors
/// `not_found`.
pub fn run_view(board: &Board, run: &str) -> Result<RunView, Refusal> {
    board.run(run).ok_or_else(|| Refusal::not_found(format!("run {}", run.escape_debug())))
}

/// A layer of a run must be known before its history is read.
///
/// # Errors
/// `not_found`.
pub fn known_layer(board: &Board, run: &str, layer: &str) -> Result<(), Refusal> {
    let view = run_view(board, run)?;
    if view.layers.contains_key(layer) {
        return Ok(());
    }
    let names: Vec<&str> = view.layers.keys().map(String::as_str).collect();
    Err(Refusal::new(
        Code::NotFound,
        format!("run {run} has no layer {} with a closed window; it has: {}", layer.escape_debug(), names.join(", ")),
    ))
}
