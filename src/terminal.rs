//! What users read in a terminal: tables of runs and reports.
//!
//! Must not: print; `main` does.

use std::cmp::Reverse;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use kernels::word::Word;

use crate::analysis::methods;
use crate::analysis::report::Report;
use crate::wire::views::{RunList, RunSummary};

/// A table of runs, worst first.
pub(crate) fn runs(list: &RunList) -> String {
    let mut runs: Vec<&RunSummary<String>> = list.runs.iter().collect();
    if runs.is_empty() {
        return "no runs yet\n".to_string();
    }
    runs.sort_by_key(|run| (Reverse(run.state), run.run.clone()));
    let mut table = plain_table(&["run", "state", "method", "layers", "window", "step", "last push", ""]);
    let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    for run in runs {
        table.add_row([
            printable(&run.run),
            run.state.word().to_string(),
            run.method.clone().unwrap_or_default(),
            printable(&run.layers.join(" ")),
            number(run.window),
            number(run.step),
            run.last_push_at.clone().unwrap_or_default(),
            if run.finished { "finished" } else { "" }.to_string(),
        ]);
    }
    for column in [4, 5] {
        align_right(&mut table, column);
    }
    format!("{table}\n")
}

/// One report: the verdict with its reasons, the notes, every measure.
pub(crate) fn report(report: &Report) -> String {
    let verdict = &report.verdict;
    let name = match report.run.as_str() {
        "" => printable(&report.layer),
        run => format!("{} {}, window {}", printable(run), printable(&report.layer), report.window),
    };
    let mut text = format!(
        "{name}  {} rows of dimension {}\n  {}: scale {}, dimension {}, cause {}\n",
        report.rows,
        report.dim,
        verdict.state.word(),
        verdict.scale.word(),
        verdict.dimension.word(),
        verdict.cause.word(),
    );
    for reason in &verdict.reasons {
        let (value, threshold) = (number(Some(reason.value)), number(Some(reason.threshold)));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  because {} is {value} (threshold {threshold})", reason.measure);
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note: {}", printable(note));
    }
    let _ = writeln!(text, "{}", values(report));
    text
}

fn values(report: &Report) -> Table {
    let mut table = plain_table(&["measure", "value"]);
    let intervals = &report.computed.intervals;
    for (name, value) in report.measures.by_name() {
        let shown = match intervals.get(name) {
            Some((low, high)) => format!("{} ({} to {})", number(value), number(Some(*low)), number(Some(*high))),
            None => number(value),
        };
        table.add_row([name.to_string(), shown]);
    }
    for (share, value) in report.measures.components_for_variance.labelled() {
        table.add_row([format!("components_for_variance {share}"), number(value)]);
    }
    for ((group, names), values) in methods::TABLE.iter().zip(report.methods.groups()) {
        for ((name, _, _), value) in names.iter().zip(values.into_iter().flatten()) {
            table.add_row([format!("{group}.{name}"), number(value)]);
        }
    }
    if let Some(text) = report.methods.loss.as_ref().and_then(|loss| loss.text.as_ref()) {
        table.add_row(["loss.formula".to_string(), text.formula.clone()]);
    }
    align_right(&mut table, 1);
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// Replaces control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Whole numbers unchanged, others with six significant digits.
fn number(value: Option<f64>) -> String {
    let Some(number) = value else { return "undefined".to_string() };
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
