//! `GET /v1/events`: changes of the board, as server-sent events.
//!
//! Guarantees: a stream holds only the number of the last change it has sent: a slow reader, once it reads on, gets the
//! newest state in one event of at most [`FRAME_BYTES`]. Streams are counted, and refused beyond the limit. Must not:
//! queue.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::site::{MAX_STREAMS, Site};
use crate::error::{Code, Refusal};
use crate::wire::views::RunSummary;

/// Changes that come within this time of an event wait for the next: a training that pushes a hundred batches a second
/// must not make a browser redraw as often.
const PACE: Duration = Duration::from_millis(250);
/// Shorter than the time after which an idle connection is closed, and after which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The most bytes of run lines in one event; beyond that the event says "read them all".
const FRAME_BYTES: usize = 16 << 10;

pub(crate) async fn events(State(site): State<Site>) -> Result<Response, Refusal> {
    if site.pipeline.admission.is_draining() {
        return Err(Refusal::new(Code::Draining, "the service is stopping: ask again once it is back"));
    }
    let place = site.events.take().ok_or_else(|| {
        Refusal::over(
            Code::Overloaded,
            format!("{MAX_STREAMS} event streams are open: close one, or poll /v1/runs"),
            MAX_STREAMS as u64,
        )
    })?;
    let activity = site.board().activity();
    let stream = EventStream { site, activity, change: None, not_before: Instant::now(), _place: place };
    Ok(Sse::new(stream.into_events()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// One stream: the last change that it has sent.
struct EventStream {
    site: Site,
    activity: watch::Receiver<u64>,
    /// `None` before the first event.
    change: Option<u64>,
    not_before: Instant,
    _place: OwnedSemaphorePermit,
}

impl EventStream {
    fn into_events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures_util::stream::unfold(self, |mut stream| async {
            let value = stream.next().await?;
            Some((Ok(Event::default().event("change").data(value.to_string())), stream))
        })
    }

    /// Continues only while the connection accepts data; `None` once the service drains.
    async fn next(&mut self) -> Option<Value> {
        if let Some(seen) = self.change {
            self.activity.wait_for(|change| *change > seen).await.ok()?;
            tokio::time::sleep_until(self.not_before).await;
        }
        if self.site.pipeline.admission.is_draining() {
            return None;
        }
        self.not_before = Instant::now() + PACE;
        let whole = self.change.is_none();
        let since = self.site.board().since(self.change.unwrap_or(0));
        self.change = Some(since.change);
        let runs = since.runs.map(|runs| runs.iter().map(|(name, view)| json!(RunSummary::line(name, view))).collect());
        let short = |lines: &Vec<Value>| lines.iter().map(|line| line.to_string().len()).sum::<usize>() <= FRAME_BYTES;
        let runs = runs.filter(short);
        Some(json!({"change": since.change, "whole": whole, "runs": runs}))
    }
}
