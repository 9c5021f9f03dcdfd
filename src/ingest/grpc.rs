//! Pushes over gRPC: a header, then the tensors' bytes in chunks.
//!
//! Guarantees: a push's memory is admitted from its header before a chunk is read. Must not: repeat the pipeline's
//! checks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tonic::{Status, Streaming};

use super::submit::{Ingest, waited};
use crate::analysis::decode::{DecodeError, Element, Tensor, byte_length};
use crate::analysis::parameters::Parameters;
use crate::analysis::text::shorten;
use crate::error::{Code, Refusal};
use crate::identity::{LayerName, RunName};
use crate::pipeline::{Arrival, Push};
use crate::telemetry::Stage;
use crate::wire::proto;
use crate::wire::proto::push_request::Part;

pub(crate) const MAX_CHUNK_BYTES: usize = 1 << 20;

pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The `Push` call.
pub(crate) async fn push(
    ingest: &Ingest,
    stream: Streaming<proto::PushRequest>,
) -> Result<proto::PushResponse, Refusal> {
    let started = Instant::now();
    let received = receive(ingest, stream).await;
    let metrics = &ingest.pipeline.reports.metrics;
    metrics.stages.observe(Stage::Ingest, started.elapsed().as_secs_f64());
    let push = received.inspect_err(|refusal| metrics.rejected("grpc", refusal.code))?;
    let (run, layer) = (push.arrival.run.to_string(), push.arrival.layer.to_string());
    let mut accepted = ingest.submit(push).await?;
    let report = waited(&mut accepted).await?.map(|report| proto::Report::from(&*report));
    let (window, rows, duplicate) = (accepted.window, accepted.rows, accepted.duplicate);
    Ok(proto::PushResponse { run, layer, window, rows, duplicate, report })
}

async fn receive(ingest: &Ingest, mut stream: Streaming<proto::PushRequest>) -> Result<Push, Refusal> {
    let patience = ingest.bodies.limits().header_timeout_s;
    let first = tokio::time::timeout(Duration::from_secs(patience), stream.message()).await.map_err(|_| {
        Refusal::over(Code::Timeout, format!("no header arrived within {patience} s of the call"), patience)
    })?;
    let first = first.map_err(broken)?.and_then(|message| message.part);
    let Some(Part::Header(header)) = first else {
        return Err(Refusal::new(
            Code::Malformed,
            "a push must begin with its header: run, layer, parameters, tensors",
        ));
    };
    let (run, layer): (RunName, LayerName) = (header.run.parse()?, header.layer.parse()?);
    let mut parameters = Parameters::default();
    for (name, text) in &header.parameters {
        parameters.set(name, text)?;
    }
    let (elements, length) = layout(&header.tensors)?;
    ingest.pipeline.admission.has_room()?;
    let mut scratch = ingest.bodies.admit(Some(length as u64))?;
    while let Some(message) = scratch.next(stream.message()).await?.map_err(broken)? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(Refusal::new(Code::Malformed, "after its header a push must hold only chunks"));
        };
        if chunk.len() > MAX_CHUNK_BYTES {
            let what = format!("a chunk of {} bytes; send more and smaller chunks", chunk.len());
            return Err(Refusal::over(Code::TooLarge, what, MAX_CHUNK_BYTES as u64));
        }
        if scratch.len() + chunk.len() > length {
            let what = format!("the header's tensors take {length} bytes, but {} arrived", scratch.len() + chunk.len());
            return Err(Refusal::new(Code::WrongLength, what));
        }
        scratch.append(&chunk)?;
    }
    if scratch.len() != length {
        let what = format!("the header's tensors take {length} bytes, but {} arrived", scratch.len());
        return Err(Refusal::new(Code::WrongLength, what));
    }
    let bytes = scratch.into_bytes();
    let arrival = Arrival { door: "grpc", run, layer, body: bytes.clone(), arrived: Timestamp::now() };
    let tensors = header.tensors;
    Ok(Push { arrival, decode: Box::new(move || Ok((cut(&tensors, &elements, &bytes)?, parameters))) })
}

fn broken(status: Status) -> Refusal {
    match status.code() {
        tonic::Code::OutOfRange => Refusal::over(Code::TooLarge, status.message(), MAX_MESSAGE_BYTES as u64),
        _ => Refusal::new(Code::Malformed, format!("the stream broke: {}", status.message())),
    }
}

/// The tensors' types, and their total size in bytes.
fn layout(tensors: &[proto::Tensor]) -> Result<(Vec<Element>, usize), Refusal> {
    let mut elements = Vec::new();
    let mut total = 0usize;
    for tensor in tensors {
        let element = Element::parse(&tensor.name, &tensor.dtype)?;
        let shape: Option<Vec<usize>> = tensor.shape.iter().map(|n| usize::try_from(*n).ok()).collect();
        let length = shape.and_then(|shape| byte_length(&shape, element));
        total = length.and_then(|length| total.checked_add(length)).ok_or_else(|| {
            Refusal::new(Code::WrongLength, format!("the shape of tensor {} overflows", shorten(&tensor.name)))
        })?;
        elements.push(element);
    }
    Ok((elements, total))
}

fn cut(tensors: &[proto::Tensor], elements: &[Element], bytes: &Bytes) -> Result<Vec<Tensor>, DecodeError> {
    let mut start = 0;
    let mut out = Vec::new();
    for (tensor, element) in tensors.iter().zip(elements) {
        let shape: Vec<usize> = tensor.shape.iter().map(|n| *n as usize).collect();
        let length = byte_length(&shape, *element).unwrap_or(0);
        out.push(Tensor::new(&tensor.name, *element, shape, bytes.slice(start..start + length))?);
        start += length;
    }
    Ok(out)
}
