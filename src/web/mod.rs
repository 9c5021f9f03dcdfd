//! The read side: the JSON API, /metrics, health, the OpenAPI document and the page.
//!
//! Guarantees: one problem document for every refusal; nothing here changes a window, but for close, finish, acknowledge
//! and delete. Must not: compute, or keep state.

mod api;
mod course;
mod events;
pub mod extract;
mod gate;
mod limits;
mod openapi;
mod page;
mod problem;
pub mod read;
mod routes;
mod spectrum;

use std::sync::Arc;

pub(crate) use api::{arrived, close_window, on_disk};
pub use events::Events;
pub use openapi::document as openapi_document;
pub use routes::{metrics_router, router};
pub(crate) use spectrum::find as find_spectrum;

use crate::ingest::{Access, Bodies};
use crate::pipeline::Inbox;
use crate::publish::{Board, History, Service};

/// What the read side needs.
#[derive(Clone)]
pub struct Site {
    /// For close, finish, acknowledge, delete and the limits.
    pub inbox: Arc<Inbox>,
    /// The newest of everything.
    pub board: Arc<Board>,
    /// Everything stored.
    pub history: Arc<History>,
    /// Counters and the registry.
    pub service: Arc<Service>,
    /// Bodies in flight.
    pub bodies: Arc<Bodies>,
    /// Who may come in.
    pub access: Access,
    /// Places for event streams.
    pub events: Events,
    /// Series cap, for the limits.
    pub max_series: usize,
    /// Threads that solve, for the limits.
    pub spectrum_threads: usize,
}
