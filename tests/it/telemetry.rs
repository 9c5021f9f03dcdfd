//! Logs and traces of the program itself: what they say, and that nobody can make them grow.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use reqwest::blocking::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::harness::{f32_body, gaussian_body};

/// The program, serving, and its log from the line on that told the address.
struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
    url: String,
}

impl Program {
    fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fullrank"));
        command.args(["serve", "--listen=127.0.0.1:0", "--log-json"]).args(flags);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let url = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
            let line: Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = line["fields"]["address"].as_str() {
                break format!("http://{address}");
            }
        };
        Self { child, log, url }
    }

    fn push(&self, window: u64, body: Vec<u8>) -> u16 {
        let url = format!("{}/v1/runs/r/layers/l/batches?window={window}&last=true&wait=true", self.url);
        let request = Client::new().post(url).header("content-type", "application/x-safetensors").body(body);
        request.send().unwrap().status().as_u16()
    }

    /// What it said from then on.
    fn stop(mut self) -> Vec<Value> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let lines = self.log.by_ref().lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert!(self.child.wait().unwrap().success());
        lines
    }
}

#[test]
fn a_flood_of_refusals_writes_no_log() {
    let program = Program::start(&[]);
    let client = Client::new();
    for i in 0..500 {
        let url = format!("{}/v1/runs/no+name{i}/layers/l/batches", program.url);
        assert_eq!(client.post(url).body("x").send().unwrap().status(), 400);
        assert_eq!(client.get(format!("{}/no/such/{i}\n", program.url)).send().unwrap().status(), 404);
    }
    let lines = program.stop();
    assert!(lines.len() <= 3, "{lines:?}");
}

#[test]
fn a_verdict_that_changes_is_a_line() {
    let program = Program::start(&[]);
    for window in 0..12 {
        let point = f32_body(&[("z", 128, 4, &[1.0f32; 512])]);
        let body = if window < 4 { gaussian_body(128, 4, window) } else { point };
        assert_eq!(program.push(window, body), 200);
    }
    let said = program.stop();
    let states: Vec<&str> = said
        .iter()
        .filter(|line| line["fields"]["message"] == "verdict")
        .map(|line| line["fields"]["state"].as_str().unwrap())
        .collect();
    assert_eq!(states.last(), Some(&"collapsed"), "{said:?}");
    assert!(states.len() <= 4, "one line a change: {states:?}");
}

/// What a collector was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_collector_gets_a_trace_from_the_door_to_the_merge_and_from_the_close_to_the_report() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let collector = Collector::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
    runtime.spawn(async move { axum::serve(listener, router).await });
    let program = Program::start(&["--otlp-endpoint", &endpoint]);
    assert_eq!(program.push(7, gaussian_body(64, 8, 1)), 200);
    // What is left goes out at the stop.
    program.stop();
    let spans = collector.0.lock().unwrap().clone();
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let (batch, window) = (named("batch"), named("window"));
    assert_eq!([attribute(batch, "run"), attribute(batch, "layer"), attribute(batch, "door")], ["r", "l", "http"]);
    assert_eq!([attribute(window, "run"), attribute(window, "window")], ["r", "7"]);
    let stage = |word: &str| {
        let of = |span: &&Span| span.name == "stage" && attribute(span, "stage") == word;
        spans.iter().find(of).unwrap_or_else(|| panic!("{word}: {spans:?}"))
    };
    for (word, parent) in
        [("decode", batch), ("accumulate", batch), ("spectrum", window), ("diagnose", window), ("publish", window)]
    {
        assert_eq!(stage(word).parent_span_id, parent.span_id, "{word}");
    }
}

#[test]
fn a_collector_that_is_not_there_costs_nothing() {
    let program = Program::start(&["--otlp-endpoint", "http://127.0.0.1:9"]);
    for window in 0..50 {
        assert_eq!(program.push(window, gaussian_body(64, 8, window)), 200);
    }
    let lines = program.stop();
    assert!(lines.len() <= 10, "{lines:?}");
}
