//! The one integration binary: a file a subject.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod harness;
mod smoke;
