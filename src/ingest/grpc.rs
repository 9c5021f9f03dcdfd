//! The gRPC door, and the read side over gRPC: the same inbox, the same refusals, the same reports.
//!
//! Guarantees: a push's memory is admitted from its header before a chunk is read; every refusal carries its code word in
//! ErrorInfo and, where it may pass, RetryInfo. Must not: check what the inbox checks.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use super::convert;
use super::http::waited;
use super::{Doors, MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, submit};
use crate::analysis::decode::{Element, Tensor, byte_length};
use crate::analysis::parameters::{Parameters, shorten};
use crate::error::{Code, Refusal};
use crate::pipeline::{Origin, RawBatch, check_name};
use crate::telemetry::Stage;
use crate::web::{Site, read};

/// The generated code.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("fullrank.v1");
    /// For reflection.
    pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fullrank.bin"));
}

use proto::monitor_server::{Monitor, MonitorServer};
use proto::push_request::Part;

/// A refusal as a gRPC status.
pub(super) fn status_of(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::new();
    let limit = refusal.limit.map(|limit| ("limit".to_string(), limit.to_string()));
    details.set_error_info(
        refusal.code.word(),
        "fullrank",
        limit.into_iter().collect::<std::collections::HashMap<_, _>>(),
    );
    if let Some(seconds) = refusal.code.retry_after() {
        details.set_retry_info(Some(Duration::from_secs(seconds)));
    }
    Status::with_error_details(refusal.code.grpc(), refusal.detail.clone(), details)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status_of(&refusal)
    }
}

/// Monitor, health and reflection.
pub fn router(site: &Site, doors: &Doors) -> Router {
    let service = Service { site: site.clone(), doors: doors.clone() };
    let monitor =
        MonitorServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(usize::MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    let serving = tonic_health::ServingStatus::Serving;
    // The reporter's state is in memory: setting it completes at once.
    tokio::spawn(async move { reporter.set_service_status("fullrank.v1.Monitor", serving).await });
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = tonic::service::Routes::new(monitor).add_service(health);
    // The descriptors are compiled in: that they can be read is held by a test.
    if let (Ok(v1), Ok(v1alpha)) = (describe().build_v1(), describe().build_v1alpha()) {
        routes = routes.add_service(v1).add_service(v1alpha);
    }
    routes.into_axum_router().reset_fallback()
}

/// Reports read from the history at a time.
const LISTED: usize = 100;
/// A client must take a report within this time.
const STALL: Duration = Duration::from_secs(30);

struct Service {
    site: Site,
    doors: Doors,
}

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Monitor for Service {
    type ListReportsStream = Streamed<proto::Report>;
    type WatchVerdictsStream = Streamed<proto::Verdict>;

    async fn push(&self, request: Request<Streaming<proto::PushRequest>>) -> Reply<proto::PushResponse> {
        let started = std::time::Instant::now();
        let received = receive(&self.doors, request.into_inner()).await;
        self.doors.service.stages.observe(Stage::Ingest, started.elapsed().as_secs_f64());
        let raw = received.inspect_err(|refusal| self.doors.service.rejected("grpc", refusal.code))?;
        let (run, layer) = (raw.origin.run.clone(), raw.origin.layer.clone());
        let accepted = submit(&self.doors, raw).await?;
        let report = match accepted.report {
            Some(report) => Some(convert::report(&waited(report.await.ok(), accepted.window)?.json)),
            None => None,
        };
        Ok(Response::new(proto::PushResponse {
            run,
            layer,
            window: accepted.window,
            rows: accepted.rows,
            duplicate: accepted.duplicate,
            report,
        }))
    }

    async fn close_window(&self, request: Request<proto::CloseWindowRequest>) -> Reply<proto::CloseWindowResponse> {
        let proto::CloseWindowRequest { run, window } = request.into_inner();
        let reports = crate::web::close_window(&self.site, &run, window).await?;
        Ok(Response::new(proto::CloseWindowResponse { reports: reports.iter().map(convert::report).collect() }))
    }

    async fn finish_run(&self, request: Request<proto::FinishRunRequest>) -> Reply<proto::FinishRunResponse> {
        let run = request.into_inner().run;
        let inbox = Arc::clone(&self.doors.inbox);
        let reports = crate::web::on_disk(move || inbox.finish(&run, Timestamp::now())).await??;
        let reports = crate::web::arrived(reports).await;
        Ok(Response::new(proto::FinishRunResponse { reports: reports.iter().map(convert::report).collect() }))
    }

    async fn acknowledge(&self, request: Request<proto::AcknowledgeRequest>) -> Reply<proto::Verdict> {
        let run = request.into_inner().run;
        let (inbox, name) = (Arc::clone(&self.doors.inbox), run.clone());
        crate::web::on_disk(move || inbox.acknowledge(&name)).await??;
        Ok(Response::new(convert::verdict(&read::verdict(&self.site.board, &run)?)))
    }

    async fn list_runs(&self, _: Request<proto::ListRunsRequest>) -> Reply<proto::ListRunsResponse> {
        let runs = read::runs(&self.site.board);
        let runs = runs["runs"].as_array().into_iter().flatten().map(convert::run).collect();
        Ok(Response::new(proto::ListRunsResponse { runs }))
    }

    async fn list_reports(&self, request: Request<proto::ListReportsRequest>) -> Reply<Self::ListReportsStream> {
        let proto::ListReportsRequest { run, layer, from, to } = request.into_inner();
        read::known_layer(&self.site.board, &run, &layer)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let (site, range) = (self.site.clone(), (from.unwrap_or(0), to.unwrap_or(u64::MAX)));
        tokio::spawn(async move { list(&site, (run, layer), range, &sender).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_spectrum(&self, request: Request<proto::GetSpectrumRequest>) -> Reply<proto::Spectrum> {
        let proto::GetSpectrumRequest { run, layer, window } = request.into_inner();
        let published = crate::web::find_spectrum(&self.site, &run, &layer, window).await?;
        Ok(Response::new(convert::spectrum(&published)))
    }

    async fn get_verdict(&self, request: Request<proto::GetVerdictRequest>) -> Reply<proto::Verdict> {
        let verdict = read::verdict(&self.site.board, &request.into_inner().run)?;
        Ok(Response::new(convert::verdict(&verdict)))
    }

    async fn watch_verdicts(&self, request: Request<proto::WatchVerdictsRequest>) -> Reply<Self::WatchVerdictsStream> {
        let run = request.into_inner().run;
        let board = Arc::clone(&self.site.board);
        if !run.is_empty() {
            read::run_view(&board, &run)?;
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let inbox = Arc::clone(&self.doors.inbox);
        tokio::spawn(async move {
            let mut changes = board.changes();
            let mut sent = std::collections::HashMap::new();
            while !inbox.is_draining() {
                let runs = if run.is_empty() { board.runs().into_keys().collect() } else { vec![run.clone()] };
                for name in runs {
                    let Ok(value) = read::verdict(&board, &name) else { continue };
                    let verdict = convert::verdict(&value);
                    let key = (verdict.state.clone(), verdict.current_state.clone(), verdict.cause.clone());
                    if sent.insert(name, key.clone()) != Some(key) && sender.send(Ok(verdict)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends stored reports, page by page; a client that takes none for a while, or a drain, ends it.
async fn list(
    site: &Site,
    names: (String, String),
    range: (u64, u64),
    sender: &tokio::sync::mpsc::Sender<Result<proto::Report, Status>>,
) {
    let mut next = Some(range.0);
    while let Some(start) = next.filter(|_| !site.inbox.is_draining()) {
        let (history, (run, layer)) = (Arc::clone(&site.history), names.clone());
        let page = crate::web::on_disk(move || history.reports(&run, &layer, (start, range.1), LISTED)).await;
        let page = page.and_then(|page| page.map_err(|error| Refusal::new(Code::Internal, error.to_string())));
        let (texts, more) = match page {
            Ok(page) => page,
            Err(refusal) => {
                let _ = sender.send(Err(refusal.into())).await;
                return;
            }
        };
        for text in texts {
            let report = serde_json::from_str(&text).map(|json| convert::report(&json));
            let report = report.map_err(|e| Refusal::new(Code::Internal, format!("a stored report: {e}")).into());
            if sender.send_timeout(report, STALL).await.is_err() {
                return;
            }
        }
        next = more;
    }
}

async fn receive(doors: &Doors, mut stream: Streaming<proto::PushRequest>) -> Result<RawBatch, Refusal> {
    let patience = doors.bodies.limits().header_timeout_s;
    let first = tokio::time::timeout(Duration::from_secs(patience), stream.message()).await.map_err(|_| {
        Refusal::over(Code::Timeout, format!("no header came within {patience} s of the call"), patience)
    })?;
    let first = first.map_err(broken)?.and_then(|message| message.part);
    let Some(Part::Header(header)) = first else {
        return Err(Refusal::new(Code::Malformed, "a push begins with its header: run, layer, parameters, tensors"));
    };
    check_name("run", &header.run)?;
    check_name("layer", &header.layer)?;
    let mut parameters = Parameters::default();
    for (name, text) in &header.parameters {
        parameters.set(name, text)?;
    }
    let (elements, length) = layout(&header.tensors)?;
    doors.inbox.has_room()?;
    let mut scratch = doors.bodies.admit(Some(length as u64))?;
    while let Some(message) = scratch.next(stream.message()).await?.map_err(broken)? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(Refusal::new(Code::Malformed, "after its header a push holds chunks only"));
        };
        if chunk.len() > MAX_CHUNK_BYTES {
            let what = format!("a chunk of {} bytes; send more and smaller chunks", chunk.len());
            return Err(Refusal::over(Code::TooLarge, what, MAX_CHUNK_BYTES as u64));
        }
        if scratch.len() + chunk.len() > length {
            let what = format!("the header's tensors take {length} bytes, but {} came", scratch.len() + chunk.len());
            return Err(Refusal::new(Code::WrongLength, what));
        }
        scratch.append(&chunk)?;
    }
    if scratch.len() != length {
        let what = format!("the header's tensors take {length} bytes, but {} came", scratch.len());
        return Err(Refusal::new(Code::WrongLength, what));
    }
    let bytes = scratch.into_bytes();
    let origin =
        Origin { door: "grpc", run: header.run, layer: header.layer, body: bytes.clone(), arrived: Timestamp::now() };
    let tensors = header.tensors;
    Ok(RawBatch { origin, decode: Box::new(move || Ok((cut(&tensors, &elements, &bytes)?, parameters))) })
}

fn broken(status: Status) -> Refusal {
    match status.code() {
        tonic::Code::OutOfRange => Refusal::over(Code::TooLarge, status.message(), MAX_MESSAGE_BYTES as u64),
        _ => Refusal::new(Code::Malformed, format!("the stream broke off: {}", status.message())),
    }
}

/// The tensors' types, and how many bytes they take together.
fn layout(tensors: &[proto::Tensor]) -> Result<(Vec<Element>, usize), Refusal> {
    let mut elements = Vec::new();
    let mut total = 0usize;
    for tensor in tensors {
        let element = Element::of_word(&tensor.name, &tensor.dtype)?;
        let shape: Option<Vec<usize>> = tensor.shape.iter().map(|n| usize::try_from(*n).ok()).collect();
        let length = shape.and_then(|shape| byte_length(&shape, element));
        total = length.and_then(|length| total.checked_add(length)).ok_or_else(|| {
            Refusal::new(Code::WrongLength, format!("the shape of tensor {} overflows", shorten(&tensor.name)))
        })?;
        elements.push(element);
    }
    Ok((elements, total))
}

fn cut(
    tensors: &[proto::Tensor],
    elements: &[Element],
    bytes: &Bytes,
) -> Result<Vec<Tensor>, crate::analysis::decode::DecodeError> {
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
