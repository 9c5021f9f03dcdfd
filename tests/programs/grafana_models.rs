//! Grafana's own models of its dashboards, in Python.

use std::path::PathBuf;

use crate::interop::python;

#[test]
fn nothing_is_lost_in_the_models_of_grafana() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let files = ["fleet.json", "run.json", "service.json"].map(|name| root.join("dashboards/grafana").join(name));
    let mut command = python("dashboards.py");
    command.args(files);
    crate::interop::passes(command, b"");
}
