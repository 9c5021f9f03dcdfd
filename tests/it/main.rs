//! Everything that needs no other program: a file per subject. What drives other programs is in `tests/programs`.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

mod clock;
mod command_line;
#[path = "../shared/dashboard_queries.rs"]
#[allow(dead_code)] // each binary uses its part
mod dashboard_queries;
mod dashboards;
mod decoders;
mod estimates;
#[path = "../shared/files.rs"]
mod files;
mod gate;
mod golden;
#[path = "../shared/harness.rs"]
mod harness;
mod identities;
#[path = "../../examples/dashboards/make/mod.rs"]
mod make;
mod method_values;
mod methods;
mod notify;
mod odd_backend;
mod openapi;
#[cfg(target_os = "linux")]
mod packages;
mod page;
mod refusals;
mod restart;
mod room;
mod rules;
mod slow_clients;
mod smoke;
mod states;
mod telemetry;
mod tidy;
#[cfg(feature = "torch")]
mod torch;
mod verdicts;
mod windows;
#[cfg(target_os = "linux")]
mod worker;
