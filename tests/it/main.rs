//! The one integration binary: a file a subject.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod decoders;
mod golden;
mod harness;
mod identities;
mod interop;
mod openapi;
mod smoke;
mod spectra;
mod tidy;
