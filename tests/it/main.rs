//! The one integration binary: a file a subject.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

mod alerts;
mod browser;
mod clock;
mod command_line;
mod dashboards;
mod dashboards_live;
mod decoders;
mod estimates;
mod gate;
mod golden;
mod harness;
mod identities;
mod interop;
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
mod programs;
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
