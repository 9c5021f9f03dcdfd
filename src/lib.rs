//! fullrank
pub mod analysis;
pub mod compute;
pub mod error;
pub mod pipeline;
pub mod publish;
pub mod telemetry;
