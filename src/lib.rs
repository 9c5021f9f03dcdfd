//! fullrank
pub mod analysis;
pub mod compute;
