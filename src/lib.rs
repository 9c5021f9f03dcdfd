//! fullrank reports, while a self-supervised training is still running, whether its embeddings are collapsing, and why.
//!
//! This is the map of the source. A batch of embeddings passes six stages, whose names are used for the tracing spans
//! and the `stage` label:
//!
//! ```text
//! ingest -> decode -> accumulate -> spectrum -> diagnose -> publish
//! (shell)  [------------ analysis: pure ------------]      (shell)
//! ```
//!
//! [`pipeline::Pipeline`] is that path: `submit` accepts a push, `accumulate` merges it into its window, `report` turns
//! a closed window into a published report.
//!
//! In reading order:
//!
//! | room | contents |
//! |---|---|
//! | [`analysis`] | pure: what a push means (`batch`, `companions`), bytes to tensors (`decode`), what a window gathers (`window`), every measure (`measures`), the diagnostics of each method (`methods`), the reports (`report`), two axes, a cause, and time (`verdict`) |
//! | [`compute`] | batches and windows on a device: the CPU, or libtorch (feature `torch`) in a process of its own (`compute::worker`, Linux only); [`compute::choose`] picks the device |
//! | [`pipeline`] | admits pushes, merges batches, closes windows, makes reports |
//! | [`publish`] | the [`publish::Board`] (the newest state of everything), the [`publish::History`] (SQLite), the metrics, alerts |
//! | `ingest` | the push endpoints, HTTP and gRPC, with limits on memory and time |
//! | [`web`] | the read side: JSON API, /metrics, health, OpenAPI, the page; `wire` holds the shapes of the answers |
//! | [`app`] | builds, spawns, drains; `server` owns the sockets, [`config`] reads the arguments, [`error`] is the one table of refusals, [`telemetry`] logs and times |
//! | [`client`], [`replay`], [`demo`], [`terminal`] | the subcommands that call a service: requests, replayed recordings, tables |
//! | [`analyze`], [`plot`] | the report of a file by itself, and a picture of its spectrum |
//!
//! What each room may touch is in `docs/design.md`, and `tests/it/tidy.rs` checks it. The interface is in
//! `docs/api.md`, every definition in `docs/metrics.md`.
//!
//! Words: a *run* is one training; a *layer* is where embeddings are captured; a *view* is one of several augmentations
//! of the same samples; a *worker* is one distributed process; a *batch* is one push; a *window* is what is measured
//! together (an epoch, or a step); a *report* is one closed window, measured; a *verdict* is ours, an alert is
//! Prometheus's.

#![forbid(unsafe_code)]

pub mod analysis;
mod budget;
pub mod compute;
mod identity;
pub mod pipeline;
pub mod publish;

mod ingest;
mod server;
pub mod web;
pub mod wire;

pub mod app;
pub mod config;
pub mod error;
pub mod telemetry;

pub mod analyze;
pub mod client;
pub mod dashboards;
pub mod demo;
pub mod plot;
pub mod replay;
pub mod terminal;
