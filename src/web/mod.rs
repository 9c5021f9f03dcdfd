//! The read side: the JSON API, /metrics, health, the OpenAPI document, the page, and the same over gRPC.
//!
//! Guarantees: one problem document for every refusal; only close, finish, acknowledge and delete change anything. Must
//! not: compute, or keep state.

pub(crate) mod api;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod history;
mod limits;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod rpc;
mod site;
pub(crate) mod spectrum;

pub use openapi::document as openapi_document;
pub(crate) use site::{EventPlaces, Site};
