//! fullrank reports, while a self-supervised training is still running, whether its embeddings are collapsing, and why.
//!
//! This is the map of the source. A batch of embeddings passes six stages, all but the first of which [`pipeline`] spells out
//! in three functions:
//!
//! ```text
//! ingest -> decode -> accumulate -> spectrum -> diagnose -> publish
//! ```
//!
//! `docs/architecture.md` follows a batch through the files, and says what each room may touch. In reading order:
//!
//! | room | contents |
//! |---|---|
//! | [`pipeline`] | the line, and its owners: admission, accumulation, reports |
//! | [`analysis`] | pure: what a batch means, what a window says, the report |
//! | [`compute`] | batches and windows on a device, and the choice of the device; the kernels are the crate `kernels` |
//! | [`publish`] | the board (the newest of everything), the history (SQLite), metrics, alerts |
//! | [`wire`] | how answers and refusals are written: JSON, problem documents, gRPC |
//! | [`ingest`] | pushes come in, over HTTP and gRPC |
//! | [`web`] | the read side, and the page |
//! | `server` | sockets, access, routes |
//! | `budget`, [`identity`], [`error`], `telemetry`, `traces` | memory, names, refusals, logs and timings, traces |
//! | [`app`], [`config`] | build, configure, start, drain |
//! | [`commands`], [`client`], `replay`, [`demo`], `terminal`, [`analyze`], `plot`, `dashboards` | the sub-commands |
//!
//! Words: a *run* is one training; a *layer* is where embeddings are captured; a *view* is one of several augmentations of
//! the same samples; a *worker* is one distributed process; a *batch* is one push; a *window* is what is measured
//! together (an epoch, or a step); a *report* is one closed window, measured; a *verdict* is ours, an alert is
//! Prometheus's.
//!
//! What `fullrank analyze` does with a file:
//!
//! ```
//! use std::sync::Arc;
//!
//! use fullrank::analysis::batch::EmbeddingBatch;
//! use fullrank::analysis::decode::json;
//! use fullrank::analysis::parameters::Parameters;
//! use fullrank::analysis::verdict::{Cause, VerdictState};
//! use fullrank::analyze;
//! use fullrank::pipeline::ThresholdOverrides;
//! use kernels::cpu::Cpu;
//!
//! // 20 embeddings, all the same: a complete collapse.
//! let body = format!("{{\"z\": [{}]}}", vec!["[1.0, 2.0, 3.0]"; 20].join(","));
//! let (tensors, parameters) = json::decode(body.as_bytes(), Parameters::default())?;
//! let batch = EmbeddingBatch::new(tensors, parameters)?;
//! let full = analyze::report(Arc::new(Cpu::new(1)?), batch, "z", &ThresholdOverrides::default())?;
//! assert_eq!(full.report.verdict.state, VerdictState::Collapsed);
//! assert_eq!(full.report.verdict.cause, Cause::Constant);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod telemetry;
mod traces;

pub mod analyze;
pub mod client;
pub mod commands;
mod dashboards;
pub mod demo;
mod plot;
mod replay;
mod terminal;
