//! `GET /v1/limits`: every limit, so that a client can adapt before it sends.

use serde_json::{Value, json};

use super::site::{MAX_STREAMS, Site};
use crate::analysis::arrays::MAX_DIM;
use crate::analysis::batch::MAX_VIEWS;
use crate::analysis::decode::{MAX_HEADER_BYTES, MAX_JSON_BYTES};
use crate::analysis::parameters::{MAX_WINDOW, MAX_WORKERS};
use crate::compute::solve::exact_bytes;
use crate::identity::MAX_NAME;
use crate::ingest::{MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES};
use kernels::lanczos;
use kernels::reservoir;

/// The most reports on a page of a listing.
pub(super) const MAX_PAGE: usize = 1000;

pub(super) fn limits(site: &Site) -> Value {
    let (ingest, admission) = (site.bodies.limits(), &site.pipeline.admission);
    let (pipeline, solver_memory) = (&admission.limits, &site.pipeline.reports.solver.memory);
    let mut value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "max_body_bytes": ingest.max_body_bytes,
        "max_json_bytes": MAX_JSON_BYTES,
        "max_header_bytes": MAX_HEADER_BYTES,
        "max_chunk_bytes": MAX_CHUNK_BYTES,
        "max_message_bytes": MAX_MESSAGE_BYTES,
        "in_flight_bytes": ingest.in_flight_bytes,
        "in_flight_bytes_used": site.bodies.used(),
        "max_connections": ingest.max_connections,
        "header_timeout_seconds": ingest.header_timeout_s,
        "body_idle_timeout_seconds": ingest.body_idle_timeout_s,
        "min_body_bytes_per_second": ingest.min_body_rate,
        "max_dim": MAX_DIM,
        "max_views": MAX_VIEWS,
        "max_workers": MAX_WORKERS,
        "max_window": MAX_WINDOW,
        "max_name_characters": MAX_NAME,
        "inbox_batches": pipeline.inbox_batches,
        "accumulator_bytes": pipeline.accumulator_bytes,
        "accumulator_bytes_used": admission.memory.used(),
        "accumulator_bytes_per_role_window_and_worker": "4 d (d + 1), as much again with unit_moments, 16 d^2 more with two views or more, and 40 d; 16 K with scores over prototypes, up to 16 MiB + 4 d (d + 1) each with ids and labels",
        "reservoir_rows": reservoir::CAPACITY,
        "reservoir_bytes_per_row": "4 d + 96, or 8 d + 96 for F64",
        "accumulate_scratch_bytes_per_thread": "12 d^2, or 36 d^2 with two views or more, and 4096 d",
        "spectrum_threads": site.spectrum_threads,
        "solver_bytes": pipeline.solver_bytes,
        "solver_bytes_used": solver_memory.used(),
        "solver_bytes_per_exact_solve": "24 d^2 + 8192 d; above solver_bytes the spectrum is estimated",
        "max_exact_dim": max_exact_dim(pipeline.solver_bytes),
        "solver_bytes_per_estimate": lanczos::scratch_bytes(1).to_string() + " d",
        "solver_bytes_per_row_sample": "24 d k + 24 min(k, d)^2 + 8192 min(k, d), k = min(distinct rows, 4096)",
        "spectra_waiting": pipeline.spectra_waiting,
        "streams": pipeline.streams,
        "window_patience_seconds": pipeline.window_patience_s,
        "run_ttl_seconds": pipeline.run_ttl_s,
        "idle_finish_seconds": pipeline.idle_finish_s,
        "max_series": site.max_series,
        "max_reports_per_page": MAX_PAGE,
        "formats": ["application/x-safetensors", "application/octet-stream", "application/x-npy", "application/json"],
        "encodings": ["gzip", "zstd"],
    });
    value["event_streams"] = MAX_STREAMS.into();
    value["event_streams_used"] = site.events.used().into();
    value
}

/// The largest dimension whose eigenvalues are computed exactly.
fn max_exact_dim(solver_bytes: usize) -> usize {
    let (mut fits, mut over) = (0, MAX_DIM + 1);
    while over - fits > 1 {
        let middle = fits.midpoint(over);
        if exact_bytes(middle) <= solver_bytes { fits = middle } else { over = middle }
    }
    fits
}
