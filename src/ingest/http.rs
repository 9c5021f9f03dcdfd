//! Pushes over HTTP: `POST /v1/runs/{run}/layers/{layer}/batches`.
//!
//! Guarantees: what can be refused without the body is refused before it is read. Must not: repeat the pipeline's
//! checks.

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

use super::body::Scratch;
use super::submit::{Ingest, waited};
use crate::analysis::decode::{DecodeError, Decoded, MAX_JSON_BYTES, json as json_body, npy, safetensors};
use crate::analysis::parameters::Parameters;
use crate::error::{Code, Refusal};
use crate::identity::{LayerName, RunName};
use crate::pipeline::{Accepted, Arrival, Push};
use crate::telemetry::Stage;
use crate::wire::extract::{Fields, Segments};
use crate::wire::views::{PushAccepted, PushReport};

/// A parsed value of two characters (a digit and a comma) takes 32 bytes, then 8 as a number.
const JSON_GROWTH: usize = 20;

/// The most bytes that [`drain_small`] reads, and for how long.
const LET_GO_BYTES: u64 = 256 << 10;
const LET_GO_TIME: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq)]
enum BodyFormat {
    Safetensors,
    Npy,
    Json,
}

/// The handler.
///
/// # Errors
/// Everything in the contract's refusal table.
pub(crate) async fn push(
    State(ingest): State<Ingest>,
    names: Result<Segments<(String, String)>, Refusal>,
    query: Result<Fields<Vec<(String, String)>>, Refusal>,
    request: Request,
) -> Result<Response, Refusal> {
    let started = std::time::Instant::now();
    let (head, mut body) = request.into_parts();
    let received = match (names, query) {
        (Ok(Segments((run, layer))), Ok(Fields(pairs))) => match Addressee::parse(&run, &layer, &pairs) {
            Ok(to) => receive(&ingest, to, &head.headers, &mut body).await,
            Err(refusal) => Err(refusal),
        },
        (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
    };
    if received.is_err() {
        drain_small(&head.headers, &mut body).await;
    }
    ingest.pipeline.reports.metrics.stages.observe(Stage::Ingest, started.elapsed().as_secs_f64());
    let push = received.inspect_err(|refusal| ingest.pipeline.reports.metrics.rejected("http", refusal.code))?;
    let (run, layer) = (push.arrival.run.clone(), push.arrival.layer.clone());
    let accepted = ingest.submit(push).await?;
    answer(accepted, &run, &layer).await
}

/// What the address of a push says.
struct Addressee {
    run: RunName,
    layer: LayerName,
    parameters: Parameters,
}

impl Addressee {
    fn parse(run: &str, layer: &str, query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut to = Self { run: run.parse()?, layer: layer.parse()?, parameters: Parameters::default() };
        for (name, value) in query {
            to.parameters.set(name, value)?;
        }
        Ok(to)
    }
}

async fn receive(ingest: &Ingest, to: Addressee, headers: &HeaderMap, body: &mut Body) -> Result<Push, Refusal> {
    let Addressee { run, layer, parameters } = to;
    let format = format_of(headers)?;
    let length = length_of(headers)?;
    if format == BodyFormat::Json && length.is_some_and(|length| length > MAX_JSON_BYTES as u64) {
        return Err(Refusal::over(
            Code::TooLarge,
            format!("a JSON body of {} bytes; send application/x-safetensors instead", length.unwrap_or(0)),
            MAX_JSON_BYTES as u64,
        ));
    }
    ingest.pipeline.admission.has_room()?;
    let mut scratch = read(ingest, body, length).await?;
    if format == BodyFormat::Json {
        scratch.admit_decoded(JSON_GROWTH * scratch.len())?;
    }
    let bytes = scratch.into_bytes();
    let arrival = Arrival { door: "http", run, layer, body: bytes.clone(), arrived: Timestamp::now() };
    Ok(Push { arrival, decode: Box::new(move || decode(format, &bytes, parameters)) })
}

/// Reads the rest of a small body that was refused: otherwise the connection would have to be closed, and a client that
/// is still sending might never see the reason. Clients that asked before sending, or have much to send, are not waited
/// for.
async fn drain_small(headers: &HeaderMap, body: &mut Body) {
    let small = length_of(headers).ok().flatten().is_some_and(|length| length <= LET_GO_BYTES);
    if !small || headers.contains_key(EXPECT) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Out of time: close the connection.
    let _ = tokio::time::timeout(LET_GO_TIME, rest).await;
}

fn decode(format: BodyFormat, bytes: &Bytes, parameters: Parameters) -> Result<Decoded, DecodeError> {
    match format {
        BodyFormat::Safetensors => safetensors::decode(bytes, parameters),
        BodyFormat::Npy => Ok((vec![npy::decode(bytes)?], parameters)),
        BodyFormat::Json => json_body::decode(bytes, parameters),
    }
}

fn format_of(headers: &HeaderMap) -> Result<BodyFormat, Refusal> {
    // The decompression layer removes the encodings it supports.
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Refusal::new(
            Code::UnsupportedType,
            format!("Content-Encoding {encoding:?} is not accepted: send gzip, zstd or none"),
        ));
    }
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = header.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-safetensors" | "application/octet-stream" => Ok(BodyFormat::Safetensors),
        "application/x-npy" => Ok(BodyFormat::Npy),
        "application/json" => Ok(BodyFormat::Json),
        _ => Err(Refusal::new(
            Code::UnsupportedType,
            format!(
                "Content-Type '{}' is not accepted: send application/x-safetensors, application/x-npy or application/json",
                essence.escape_debug()
            ),
        )),
    }
}

fn length_of(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| Refusal::new(Code::Malformed, format!("Content-Length {value:?} is not a length")))
}

async fn read(ingest: &Ingest, body: &mut Body, length: Option<u64>) -> Result<Scratch, Refusal> {
    let mut scratch = ingest.bodies.admit(length)?;
    while let Some(frame) = scratch.next(body.frame()).await? {
        let frame = frame.map_err(|error| {
            Refusal::new(
                Code::Malformed,
                format!("the body ended early or cannot be decompressed after {} bytes: {error}", scratch.len()),
            )
        })?;
        if let Some(data) = frame.data_ref() {
            scratch.append(data)?;
        }
    }
    Ok(scratch)
}

async fn answer(mut accepted: Accepted, run: &RunName, layer: &LayerName) -> Result<Response, Refusal> {
    if let Some(report) = waited(&mut accepted).await? {
        return Ok((StatusCode::OK, Json(PushReport { report, duplicate: accepted.duplicate })).into_response());
    }
    let Accepted { window, rows, duplicate, .. } = accepted;
    let (run, layer) = (run.to_string(), layer.to_string());
    Ok((StatusCode::ACCEPTED, Json(PushAccepted { run, layer, window, rows, duplicate })).into_response())
}
