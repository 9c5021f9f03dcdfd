//! What drives other programs: Prometheus, promtool, Alertmanager, curl, sqlite3, Chromium, Python. Built with the feature
//! `test-programs`; `scripts/test` installs them, and a test whose program is missing fails.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

mod alerts;
mod browser;
#[path = "../shared/dashboard_queries.rs"]
#[allow(dead_code)] // each binary uses its part
mod dashboard_queries;
mod dashboards_live;
#[path = "../shared/files.rs"]
mod files;
mod grafana_models;
#[path = "../shared/harness.rs"]
#[allow(dead_code)]
mod harness;
mod interop;
#[path = "../../examples/dashboards/make/mod.rs"]
#[allow(dead_code)]
mod make;
mod program;
