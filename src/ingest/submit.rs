//! Passes a received push to the pipeline.

use std::sync::Arc;

use super::body::Bodies;
use crate::analysis::report::FullReport;
use crate::error::{Code, Refusal};
use crate::pipeline::{Accepted, Pipeline, Push};

/// Bodies up to this length are decoded on the spot: moving them to another thread costs more.
const INLINE_BYTES: usize = 64 * 1024;

/// What both endpoints need.
#[derive(Clone)]
pub(crate) struct Ingest {
    /// Where pushes go.
    pub pipeline: Arc<Pipeline>,
    /// Where bodies are received.
    pub bodies: Arc<Bodies>,
}

impl Ingest {
    /// Submits on a thread that may be busy, unless the body is small.
    pub(super) async fn submit(&self, push: Push) -> Result<Accepted, Refusal> {
        if push.arrival.body.len() <= INLINE_BYTES {
            return self.pipeline.submit(push);
        }
        let pipeline = Arc::clone(&self.pipeline);
        tokio::task::spawn_blocking(move || pipeline.submit(push)).await.unwrap_or_else(|error| {
            Err(Refusal::new(Code::Internal, format!("the batch could not be accepted: {error}")))
        })
    }
}

/// The report that a push waits for; `None` if it does not wait.
pub(super) async fn waited(accepted: &mut Accepted) -> Result<Option<Arc<FullReport>>, Refusal> {
    let Some(report) = accepted.report.take() else { return Ok(None) };
    report.await.map(Some).map_err(|_| {
        let window = accepted.window;
        Refusal::new(
            Code::Internal,
            format!("the rows were accepted, but making the report of window {window} failed; see the service's log"),
        )
    })
}
