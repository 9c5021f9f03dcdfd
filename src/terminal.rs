//! What people read in a terminal: tables of runs and reports.
//!
//! Must not: print; `main` does.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// What `GET /v1/runs` says, worst first.
pub fn runs(runs: &Value) -> String {
    const WORST_FIRST: [&str; 5] = ["collapsed", "degrading", "insufficient_rows", "warming_up", "healthy"];
    let mut rows: Vec<&Value> = runs["runs"].as_array().into_iter().flatten().collect();
    if rows.is_empty() {
        return "no runs yet\n".to_string();
    }
    let badness =
        |run: &Value| WORST_FIRST.iter().position(|state| run["state"] == *state).unwrap_or(WORST_FIRST.len());
    rows.sort_by_key(|run| (badness(run), run["run"].as_str().unwrap_or("").to_string()));
    let mut table = plain_table(&["run", "state", "method", "layers", "window", "step", "last push", ""]);
    for run in rows {
        let layers: Vec<&str> = run["layers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let finished = if run["finished"] == true { "finished" } else { "" };
        table.add_row([
            word(&run["run"]),
            word(&run["state"]),
            word(&run["method"]),
            layers.join(" "),
            word(&run["window"]),
            word(&run["step"]),
            word(&run["last_push_at"]),
            finished.to_string(),
        ]);
    }
    for column in [4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

/// One report: the verdict with its reasons, the notes, every measure.
pub fn report(report: &Value) -> String {
    let verdict = &report["verdict"];
    let name = match report["run"].as_str() {
        Some(run) if !run.is_empty() => format!("{run} {}, window {}", word(&report["layer"]), report["window"]),
        _ => word(&report["layer"]),
    };
    let mut text = format!(
        "{name}  {} rows of dimension {}\n  {}: scale {}, dimension {}, cause {}\n",
        report["rows"],
        report["dim"],
        word(&verdict["state"]),
        word(&verdict["scale"]),
        word(&verdict["dimension"]),
        word(&verdict["cause"]),
    );
    for reason in verdict["reasons"].as_array().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  because {} is {} (threshold {})",
            word(&reason["measure"]),
            number(&reason["value"]),
            number(&reason["threshold"])
        );
    }
    for note in report["notes"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  note: {}", word(note));
    }
    let mut table = plain_table(&["measure", "value"]);
    let intervals = &report["computed"]["intervals"];
    let with_interval = |name: &str, value: &Value| match intervals[name].as_array().map(Vec::as_slice) {
        Some([low, high]) => format!("{} ({} to {})", number(value), number(low), number(high)),
        _ => number(value),
    };
    for (name, value) in report["measures"].as_object().into_iter().flatten() {
        match value.as_object() {
            Some(shares) => shares.iter().for_each(|(share, value)| {
                table.add_row([format!("{name} {share}"), number(value)]);
            }),
            None => drop(table.add_row([name.clone(), with_interval(name, value)])),
        }
    }
    for (group, values) in report["methods"].as_object().into_iter().flatten() {
        for (name, value) in values.as_object().into_iter().flatten() {
            table.add_row([format!("{group}.{name}"), number(value)]);
        }
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(text, "{table}");
    text
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// Text as it is, without quotes and control characters; nothing for null.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

/// Whole numbers as they are, others with six significant digits.
fn number(value: &Value) -> String {
    let Some(number) = value.as_f64() else {
        return if value.is_null() { "undefined".to_string() } else { word(value) };
    };
    let magnitude = number.abs();
    if number.fract() == 0.0 && magnitude < 1e9 {
        return format!("{number:.0}");
    }
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{number:.5e}");
    }
    let decimals = (5.0 - magnitude.log10().floor()).max(0.0) as usize;
    format!("{number:.decimals$}")
}
