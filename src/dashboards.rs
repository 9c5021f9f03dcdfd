//! Grafana's dashboards, as in `dashboards/grafana`. `cargo run --example dashboards` generates those files from the
//! tables of measures and diagnostics, and a test compares them.

/// (file name, text), in the order in which people look at them.
pub(crate) const FILES: [(&str, &str); 3] = [
    ("fleet.json", include_str!("../dashboards/grafana/fleet.json")),
    ("run.json", include_str!("../dashboards/grafana/run.json")),
    ("service.json", include_str!("../dashboards/grafana/service.json")),
];
