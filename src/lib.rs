//! fullrank tells, while a self-supervised training still runs, whether its embeddings are collapsing, and why.
//!
//! This is the map. A batch of embeddings goes one way, through six stages, whose words name the tracing spans and the
//! `stage` label, and nothing else:
//!
//! ```text
//! ingest -> decode -> accumulate -> spectrum -> diagnose -> publish
//! (shell)  [------------ analysis: pure ------------]      (shell)
//! ```
//!
//! [`pipeline::Line`] is that line: `accumulate` reduces a batch, `process` turns a window into a report. Whoever has
//! read those two functions has read the product.
//!
//! In the order of reading:
//!
//! | room | what is in it |
//! |---|---|
//! | [`analysis`] | pure: [`analysis::batch`] and [`analysis::companions`] what a push means, [`analysis::decode`] bytes to tensors, [`analysis::moments`] the one merge, [`analysis::window`] what a window gathers, [`analysis::spectrum`] eigenvalues and noise floors, [`analysis::measures`] every measure, [`analysis::pairs`] several views, [`analysis::methods`] every method's own diagnostics, [`analysis::reservoir`] the row sample, [`analysis::verdict`] two axes, a cause, and time |
//! | [`compute`] | the kernels worth a device, behind [`compute::Backend`]: [`compute::cpu`] on faer, `compute::torch` on libtorch (with the feature of that name), in a process of its own behind `compute::worker` (Linux); [`compute::choose`] which |
//! | [`pipeline`] | [`pipeline::Inbox`] admits, windows close, [`pipeline::Line`] computes, threads work |
//! | [`publish`] | the [`publish::Board`] (the newest of everything), the [`publish::History`] (SQLite), the metrics, [`publish::dashboards`] made from their tables |
//! | [`ingest`] | the doors: [`ingest::http`] and [`ingest::grpc`] on one port, with limits on memory and patience |
//! | [`web`] | the read side: JSON API, /metrics, health, OpenAPI, the page |
//! | [`app`] | builds, spawns, drains; [`config`] reads the arguments, [`error`] is the one table of refusals, [`telemetry`] logs and times |
//! | [`client`], [`replay`], [`demo`], [`terminal`] | the sub-commands that call a service: requests, recordings pushed as a trainer would, tables |
//! | [`analyze`], [`plot`] | a file by itself, and its spectrum as a picture |
//!
//! Each room may touch only what its row in `docs/design.md` says; `tests/it/tidy.rs` holds it. The interface is in
//! `docs/api.md`, every definition in `docs/metrics.md`.
//!
//! Words: a *run* is one training; a *layer* is where embeddings are taken; a *view* is one of several augmentations of
//! the same samples; a *worker* is one distributed process; a *batch* is one push; a *window* is what is measured together
//! (an epoch, or a step); a *report* is one closed window, measured; a *verdict* is ours, an alert is Prometheus's.

#![forbid(unsafe_code)]

pub mod analysis;
pub mod budget;
pub mod compute;
pub mod identity;
pub mod pipeline;
pub mod publish;

pub mod ingest;
pub mod server;
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
