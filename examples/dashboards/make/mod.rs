//! Grafana's dashboards, made from the tables that the metrics are made from. `dashboards/grafana` holds the result, which
//! the binary carries.
//!
//! Guarantees: the same program gives the same bytes; every measure and every diagnostic has a panel, and every panel says
//! how to read it. Must not: touch a disk, a socket or a clock; set a threshold (fullrank judges: the lines to compare
//! with are series that it exports).

mod fleet;
mod frame;
mod measured;
mod methods;
mod panel;
mod run;
mod service;

use serde_json::Value;

/// (file name, the dashboard), in the order in which people look at them.
pub fn all() -> [(&'static str, Value); 3] {
    [("fleet.json", fleet::dashboard()), ("run.json", run::dashboard()), ("service.json", service::dashboard())]
}

/// A dashboard as it stands in its file.
pub fn text(dashboard: &Value) -> String {
    format!("{dashboard:#}\n")
}
