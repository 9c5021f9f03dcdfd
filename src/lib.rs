//! fullrank
pub mod analysis;
pub mod analyze;
pub mod app;
pub mod compute;
pub mod config;
pub mod demo;
pub mod error;
pub mod ingest;
pub mod pipeline;
pub mod publish;
pub mod telemetry;
pub mod web;
