//! `GET /v1/runs/{run}/verdict`: the verdict now, or (with `wait`) as soon as it changes: a gate for early stopping and
//! CI.
//!
//! Guarantees: answers within `wait` seconds, or when the service drains. Must not: hold a thread while it waits.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use kernels::word::Word;
use serde::Deserialize;
use strum::VariantArray;

use super::site::Site;
use crate::analysis::verdict::VerdictState;
use crate::error::{Code, Refusal};
use crate::wire::extract::{Fields, Segments};
use crate::wire::views::{self, PublishedVerdict};

/// The most seconds to wait for an answer: proxies in between give up after a few minutes.
const LONGEST_WAIT_S: f64 = 300.0;

/// How long after a change of any run this run is checked: a thousand gates must not wake for each of a thousand
/// windows.
const PACE: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateQuery {
    wait: Option<f64>,
    /// The state that the client knows: any other is a change.
    state: Option<String>,
}

pub(crate) async fn verdict(
    State(site): State<Site>,
    Segments(run): Segments<String>,
    Fields(gate): Fields<GateQuery>,
) -> Result<Json<PublishedVerdict>, Refusal> {
    let wait = gate.wait.unwrap_or(0.0);
    if !(0.0..=LONGEST_WAIT_S).contains(&wait) {
        let detail = format!("wait is {wait}: it must be 0 to {LONGEST_WAIT_S} seconds; ask again for longer");
        return Err(Refusal::over(Code::Malformed, detail, LONGEST_WAIT_S as u64));
    }
    let known = gate.state.as_deref().map(known_state).transpose()?;
    // Subscribed before the first check, so that no change in between is missed.
    let mut changes = site.board().changes();
    let mut published = views::verdict(site.board(), &run)?;
    let given_up = tokio::time::sleep(Duration::from_secs_f64(wait));
    tokio::pin!(given_up);
    let first = published.verdict.state;
    let is_news = |state: VerdictState| match known {
        Some(known) => state != known,
        // A collapse is news to a client that has not said it knows.
        None => state != first || state == VerdictState::Collapsed,
    };
    while !is_news(published.verdict.state) && !site.pipeline.admission.is_draining() {
        let changed = async {
            let changed = changes.changed().await;
            tokio::time::sleep(PACE).await;
            changed
        };
        let over = tokio::select! {
            changed = changed => changed.is_err(),
            () = &mut given_up => true,
        };
        published = views::verdict(site.board(), &run)?;
        if over {
            break;
        }
    }
    Ok(Json(published))
}

fn known_state(word: &str) -> Result<VerdictState, Refusal> {
    word.parse().map_err(|_| {
        let known: Vec<&str> = VerdictState::VARIANTS.iter().map(|state| state.word()).collect();
        let detail = format!("state is {}: it must be one of {}", word.escape_debug(), known.join(", "));
        Refusal::new(Code::Malformed, detail)
    })
}
