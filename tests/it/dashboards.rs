//! Grafana's dashboards: the files are what the program makes, name only what it exports, leave none of it out, and keep
//! the rules of Grafana's dashboard-linter that make sense here.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::make as dashboards;
use fullrank::analysis::{measures, methods};
use serde_json::Value;

use crate::dashboard_queries::{Asked, asked, panels, text, variables};
use crate::files::read;
use crate::harness::Server;
use crate::rules::{families, is_word, unknown, words};

const FOLDER: &str = "dashboards/grafana";

/// A query as PromQL in double quotes, with the names of Grafana's variables in place of their values.
fn plain(expression: &str) -> String {
    ["job", "instance", "run", "layer"]
        .iter()
        .fold(expression.replace('`', "\""), |text, name| text.replace(&format!("${{{name}:regex}}"), name))
}

#[test]
fn the_files_are_what_the_program_makes() {
    for (name, dashboard) in dashboards::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(name);
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        let way_out = "run `cargo run --example dashboards`";
        assert!(stored == dashboards::text(&dashboard), "{FOLDER}/{name} is not what this program makes: {way_out}");
    }
}

#[test]
fn the_command_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made/here");
    let fullrank = |dir: &Path| {
        let command = Command::new(env!("CARGO_BIN_EXE_fullrank")).args(["dashboards", "--dir"]).arg(dir).output();
        command.unwrap()
    };
    assert!(fullrank(&made).status.success());
    for (name, dashboard) in dashboards::all() {
        assert_eq!(std::fs::read_to_string(made.join(name)).unwrap(), dashboards::text(&dashboard));
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let refused = fullrank(&folder.path().join("file/under"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("file/under"), "{refused:?}");
}

#[test]
fn panels_name_only_what_fullrank_has() {
    let everything = |change: (&str, &str)| -> String {
        let mut lines: Vec<String> = asked().iter().map(|asked| asked.expression.clone()).collect();
        for (_, dashboard) in dashboards::all() {
            lines.extend(variables(&dashboard).iter().map(|(_, query, _)| (*query).to_string()));
        }
        lines.iter().map(|line| plain(line).replace(change.0, change.1) + "\n").collect()
    };
    let text = everything(("", ""));
    let wrong = unknown(&text);
    assert!(wrong.is_empty(), "{FOLDER} names what fullrank does not have: {wrong:#?}");
    // The check itself: each of these is found, by its name.
    for (right, other) in [
        ("fullrank_scaled_std", "fullrank_scaled_deviation"),
        ("state=\"collapsed\"", "state=\"colapsed\""),
        ("severity=\"warning\"", "severity=\"warn\""),
        ("fullrank_run_loss{job=\"~", "fullrank_run_loss{layer=\"~"),
        ("by (le, stage)", "by (le, step)"),
    ] {
        let changed = everything((&right.replace("=\"~", "=~\""), &other.replace("=\"~", "=~\"")));
        assert_ne!(changed, text, "{right} is not asked for");
        let found = unknown(&changed);
        assert!(!found.is_empty(), "{other} passes");
    }
    let metrics = Server::start(&[]).metrics().0;
    for (name, _) in words(&text, "process_") {
        assert!(metrics.contains(&format!("\n{name} ")), "the metric {name} is unknown");
    }
}

#[test]
fn every_measure_diagnostic_and_counter_is_in_a_panel() {
    let all = asked();
    let in_file = |file: &str| -> BTreeSet<&str> {
        let of_file = all.iter().filter(|asked| asked.file == file && asked.title != "Alerts");
        of_file.flat_map(|asked| words(&asked.expression, "fullrank_")).map(|(name, _)| name).collect()
    };
    let run = in_file("run.json");
    let scalars = measures::TABLE.iter().map(|(name, _)| *name);
    let diagnostics = methods::TABLE.iter().flat_map(|(_, names)| names.iter().map(|(_, name, _)| *name));
    for name in scalars.chain(diagnostics) {
        assert!(run.contains(format!("fullrank_{name}").as_str()), "no panel of run.json shows {name}");
    }
    let shown: BTreeSet<&str> = ["fleet.json", "run.json", "service.json"].into_iter().flat_map(in_file).collect();
    for name in families().keys() {
        assert!(shown.contains(name.as_str()), "no panel shows {name}");
    }
}

/// Units of Grafana that the panels use; a misspelt one would be shown behind each number.
const UNITS: [&str; 9] = ["none", "short", "percentunit", "s", "bytes", "Bps", "ops", "rowsps", "bool_yes_no"];

#[test]
fn the_rules_of_the_linter_are_kept() {
    for (file, dashboard) in dashboards::all() {
        assert_eq!(dashboard["editable"], false, "{file}: what is provisioned cannot be saved");
        assert_eq!(text(&dashboard, "uid"), format!("fullrank-{}", file.trim_end_matches(".json")));
        let list = dashboard["templating"]["list"].as_array().unwrap();
        let sources: Vec<&Value> = list.iter().filter(|variable| variable["type"] == "datasource").collect();
        assert!(
            sources.len() == 1 && sources[0]["name"] == "datasource" && sources[0]["query"] == "prometheus",
            "{file}"
        );
        for name in ["job", "instance"] {
            let variable = list.iter().find(|variable| variable["name"] == name).unwrap();
            assert!(
                variable["multi"] == true && variable["allValue"] == ".+" && variable["refresh"] == 2,
                "{variable}"
            );
        }
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = text(panel, "title");
            let place = format!("{file}: {title}");
            assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{place}");
            let description = text(panel, "description");
            for part in ["**Healthy:** ", "**Trouble:** "] {
                let said = description.split(part).nth(1).unwrap_or_else(|| panic!("{place}: no {part}"));
                assert!(said.split("\n\n").next().unwrap().len() > 1, "{place}: nothing behind {part}");
            }
            let unit = text(&panel["fieldConfig"]["defaults"], "unit");
            assert!(UNITS.contains(&unit), "{place}: unit {unit}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{place} asks for nothing");
            for part in targets.iter().chain([panel]) {
                assert_eq!(part["datasource"]["uid"], "${datasource}", "{place}");
            }
            let grid = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(grid("x") + grid("w") <= 24, "{place} is wider than the page");
            // Thresholds are fullrank's: what a panel compares with is a series.
            let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
            assert!(steps.len() == 1 && steps[0]["value"].is_null(), "{place} has a threshold of its own");
        }
        for (name, query, offered) in variables(&dashboard) {
            assert!(offered.starts_with("/^[") && !offered.contains("`]") || offered == "/^[^`]+$/", "{file}: {name}");
            assert!(query.starts_with("label_values(fullrank_"), "{file}: {query}");
        }
    }
}

#[test]
fn every_selector_has_its_matchers_and_every_counter_its_rate() {
    for Asked { file, title, expression, .. } in asked() {
        let place = format!("{file}: {title}: {expression}");
        for (name, after) in ["fullrank_", "process_", "ALERTS"].iter().flat_map(|prefix| words(&expression, prefix)) {
            let inside = after.strip_prefix('{').unwrap_or_else(|| panic!("{place}: {name} has no matchers"));
            for label in ["job", "instance"] {
                assert!(
                    inside.contains(&format!("{label}=~`${{{label}:regex}}`")),
                    "{place}: {name} is not of {label}"
                );
            }
            let counter = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
            let counter = counter && name != "fullrank_prototypes_count" && name != "fullrank_prototype_targets_count";
            let before = expression[..expression.find(name).unwrap()].ends_with("rate(");
            assert!(!counter || (before && after.contains("[$__rate_interval]")), "{place}: {name} without rate");
        }
        // In no other way, and in nothing but backticks, does a value of a variable stand in a query.
        for (at, _) in expression.match_indices('$') {
            let rest = &expression[at..];
            let escaped = expression[..at].ends_with("=~`")
                && rest.find(":regex}`").is_some_and(|end| rest[2..end].chars().all(is_word));
            assert!(escaped || rest.starts_with("$__rate_interval]"), "{place}");
        }
    }
}

#[test]
fn provisioning_names_what_there_is() {
    let source = read("dashboards/grafana/provisioning/datasources/prometheus.yaml");
    assert!(source.contains("type: prometheus\n") && source.contains("isDefault: true\n"), "{source}");
    let interval = read("dashboards/prometheus/prometheus.yaml");
    let interval = interval.split("scrape_interval: ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(source.contains(&format!("timeInterval: {interval}\n")), "rates ask for what Prometheus scrapes");
    let provider = read("dashboards/grafana/provisioning/dashboards/fullrank.yaml");
    assert!(provider.contains("type: file\n") && provider.contains("allowUiUpdates: false\n"), "{provider}");
}

#[test]
fn alerts_lead_to_dashboards_and_variables_that_there_are() {
    let rules = read("dashboards/prometheus/fullrank.rules.yaml");
    let all = dashboards::all();
    for url in rules.split("dashboard_url: \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let (uid, rest) = url.split("/d/").nth(1).unwrap().split_once('/').unwrap();
        let (_, dashboard) =
            all.iter().find(|(_, dashboard)| dashboard["uid"] == uid).unwrap_or_else(|| panic!("{url}"));
        for name in rest.split("var-").skip(1).map(|rest| rest.split('=').next().unwrap()) {
            assert!(variables(dashboard).iter().any(|(known, ..)| *known == name), "{uid} has no variable {name}");
        }
    }
}
