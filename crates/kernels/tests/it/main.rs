//! The one integration binary of the kernels: a file per subject.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod lanczos;
mod spectra;
mod sums;
mod two_stage;
