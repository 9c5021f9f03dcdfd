//! What Grafana's dashboards ask of Prometheus.

use serde_json::Value;

use crate::make;

/// Something that Grafana asks Prometheus for.
pub struct Asked {
    /// The file.
    pub file: &'static str,
    /// The panel's title, or what else asks.
    pub title: String,
    /// The query, with Grafana's variables in it.
    pub expression: String,
    /// For one moment, not for a range of time.
    pub instant: bool,
    /// For a column of a table.
    pub column: bool,
}

/// Panels, also those in closed rows, without the rows.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    let within = all.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    all.iter().chain(within).filter(|panel| panel["type"] != "row").collect()
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Every query of every panel and annotation.
pub fn asked() -> Vec<Asked> {
    let mut all = Vec::new();
    for (file, dashboard) in make::all() {
        let mut add = |title: &str, expression: &str, instant, column| {
            all.push(Asked { file, title: title.to_string(), expression: expression.to_string(), instant, column });
        };
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                add(text(panel, "title"), text(target, "expr"), target["instant"] == true, panel["type"] == "table");
            }
        }
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            add(text(annotation, "name"), text(annotation, "expr"), true, false);
        }
    }
    all
}

/// Variables that are filled by a query: (name, query, which values are offered).
pub fn variables(dashboard: &Value) -> Vec<(&str, &str, &str)> {
    let all = dashboard["templating"]["list"].as_array().unwrap().iter().filter(|variable| variable["type"] == "query");
    all.map(|variable| (text(variable, "name"), text(&variable["query"], "query"), text(variable, "regex"))).collect()
}
