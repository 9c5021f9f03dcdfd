//! The HTTP door: `POST /v1/runs/{run}/layers/{layer}/batches`.
//!
//! Guarantees: what can be refused without the body is refused before it is read. Must not: check what the inbox checks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::Scratch;
use super::{Doors, submit};
use crate::analysis::decode::{DecodeError, Decoded, MAX_JSON_BYTES, json as json_body, npy, safetensors};
use crate::analysis::parameters::Parameters;
use crate::error::{Code, Refusal};
use crate::pipeline::{Accepted, Origin, RawBatch, check_name};
use crate::publish::Published;
use crate::telemetry::Stage;
use crate::web::extract::{Fields, Segments};

/// A parsed value of two characters (a digit and a comma) takes 32 bytes, and then 8 as a number.
const JSON_GROWTH: usize = 20;

/// See [`let_go`].
const LET_GO_BYTES: u64 = 256 << 10;
const LET_GO_TIME: Duration = Duration::from_millis(500);

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Safetensors,
    Npy,
    Json,
}

/// The handler.
///
/// # Errors
/// Everything in the contract's refusal table.
pub async fn push(
    State(doors): State<Doors>,
    names: Result<Segments<(String, String)>, Refusal>,
    query: Result<Fields<Vec<(String, String)>>, Refusal>,
    request: Request,
) -> Result<Response, Refusal> {
    let started = std::time::Instant::now();
    let (head, mut body) = request.into_parts();
    let received = match (names, query) {
        (Ok(Segments(names)), Ok(Fields(pairs))) => receive(&doors, names, &pairs, (&head.headers, &mut body)).await,
        (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
    };
    if received.is_err() {
        let_go(&head.headers, &mut body).await;
    }
    doors.service.stages.observe(Stage::Ingest, started.elapsed().as_secs_f64());
    let raw = received.inspect_err(|refusal| doors.service.rejected("http", refusal.code))?;
    let (run, layer) = (raw.origin.run.clone(), raw.origin.layer.clone());
    let accepted = submit(&doors, raw).await?;
    answer(accepted, &run, &layer).await
}

async fn receive(
    doors: &Doors,
    names: (String, String),
    query: &[(String, String)],
    (headers, body): (&HeaderMap, &mut Body),
) -> Result<RawBatch, Refusal> {
    let (run, layer) = names;
    check_name("run", &run)?;
    check_name("layer", &layer)?;
    let mut parameters = Parameters::default();
    for (name, value) in query {
        parameters.set(name, value)?;
    }
    let format = format_of(headers)?;
    let length = length_of(headers)?;
    if format == Format::Json && length.is_some_and(|length| length > MAX_JSON_BYTES as u64) {
        return Err(Refusal::over(
            Code::TooLarge,
            format!("a JSON body of {} bytes; send application/x-safetensors instead", length.unwrap_or(0)),
            MAX_JSON_BYTES as u64,
        ));
    }
    doors.inbox.has_room()?;
    let mut scratch = read(doors, body, length).await?;
    if format == Format::Json {
        scratch.admit_decoded(JSON_GROWTH * scratch.len())?;
    }
    let bytes = scratch.into_bytes();
    let origin = Origin { door: "http", run, layer, body: bytes.clone(), arrived: Timestamp::now() };
    Ok(RawBatch { origin, decode: Box::new(move || decode(format, &bytes, parameters)) })
}

/// Takes in the rest of a small body that was refused: else the connection would have to be closed, and a client that is
/// still sending might never see why. One that asked whether to send, or has much to send, is not waited for.
async fn let_go(headers: &HeaderMap, body: &mut Body) {
    let small = length_of(headers).ok().flatten().is_some_and(|length| length <= LET_GO_BYTES);
    if !small || headers.contains_key(EXPECT) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Out of time: the connection closes.
    let _ = tokio::time::timeout(LET_GO_TIME, rest).await;
}

fn decode(format: Format, bytes: &Bytes, parameters: Parameters) -> Result<Decoded, DecodeError> {
    match format {
        Format::Safetensors => safetensors::decode(bytes, parameters),
        Format::Npy => Ok((vec![npy::decode(bytes)?], parameters)),
        Format::Json => json_body::decode(bytes, parameters),
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, Refusal> {
    // The decompression layer takes off the encodings it knows.
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Refusal::new(
            Code::UnsupportedType,
            format!("Content-Encoding {encoding:?} is not taken: gzip and zstd are"),
        ));
    }
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = header.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-safetensors" | "application/octet-stream" => Ok(Format::Safetensors),
        "application/x-npy" => Ok(Format::Npy),
        "application/json" => Ok(Format::Json),
        _ => Err(Refusal::new(
            Code::UnsupportedType,
            format!(
                "Content-Type '{}' is not taken: send application/x-safetensors, application/x-npy or application/json",
                essence.escape_debug()
            ),
        )),
    }
}

fn length_of(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| Refusal::new(Code::Malformed, format!("Content-Length {value:?} is no length")))
}

async fn read(doors: &Doors, body: &mut Body, length: Option<u64>) -> Result<Scratch, Refusal> {
    let mut scratch = doors.bodies.admit(length)?;
    while let Some(frame) = scratch.next(body.frame()).await? {
        let frame = frame.map_err(|error| {
            Refusal::new(
                Code::Malformed,
                format!("the body broke off or cannot be decompressed after {} bytes: {error}", scratch.len()),
            )
        })?;
        if let Some(data) = frame.data_ref() {
            scratch.append(data)?;
        }
    }
    Ok(scratch)
}

async fn answer(accepted: Accepted, run: &str, layer: &str) -> Result<Response, Refusal> {
    let duplicate = accepted.duplicate;
    let Some(report) = accepted.report else {
        let body = json!({
            "run": run, "layer": layer, "window": accepted.window, "rows": accepted.rows, "duplicate": duplicate,
        });
        return Ok((StatusCode::ACCEPTED, Json(body)).into_response());
    };
    let report = waited(report.await.ok(), accepted.window)?;
    let mut body = report.json.clone();
    if duplicate {
        body["duplicate"] = Value::Bool(true);
    }
    Ok((StatusCode::OK, Json(body)).into_response())
}

/// The report somebody waited for.
pub(super) fn waited(report: Option<Arc<Published>>, window: u64) -> Result<Arc<Published>, Refusal> {
    report.ok_or_else(|| {
        Refusal::new(
            Code::Internal,
            format!("the rows were taken, but the report of window {window} could not be made; see the service's log"),
        )
    })
}
