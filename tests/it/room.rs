//! Refusals for want of room: bodies, memory, queues, streams, disk. What may pass carries Retry-After, and does pass.

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use reqwest::blocking::{Body, Response};
use serde_json::{Value, json};

use crate::harness::{Grpc, Metrics, Server, f32_bytes, gaussian, gaussian_body, grpc_header, problem};
use crate::odd_backend::Odd;
use crate::refusals::says;

/// Refused with this status, word and limit, and with Retry-After where it may pass.
fn refused(response: Response, expected: (u16, &str), limit: u64) {
    let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
    let (status, code, value) = problem(response);
    assert_eq!((status, code.as_str()), expected, "{value}");
    assert_eq!(value["limit"], limit, "{value}");
    assert_eq!(retry.is_some_and(|seconds| seconds > 0), status == 429, "{value}");
}

/// Asks until it is so.
fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

const TENSORS: &str = "application/x-safetensors";

fn send(server: &Server, kind: &str, encoding: &str, body: impl Into<Body>) -> Response {
    let request = server.post("/v1/runs/r/layers/l/batches?seq=1").header("content-type", kind);
    request.header("content-encoding", encoding).body(body).send().unwrap()
}

/// Only the header, with a body of `length` to come.
fn head(kind: &str, length: usize, close: bool) -> String {
    let connection = if close { "close" } else { "keep-alive" };
    format!(
        "POST /v1/runs/r/layers/l/batches?seq=1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\nconnection: {connection}\r\n\r\n"
    )
}

#[test]
fn bodies_over_the_limit() {
    let server = Server::start(&["--max-body-bytes", "65536", "--in-flight-bytes", "131072"]);
    let over = (413, "too_large");
    let declared = server.raw(head(TENSORS, 65_537, true).as_bytes());
    assert!(declared.starts_with("HTTP/1.1 413 ") && declared.contains("\"limit\":65536"), "{declared}");
    // No more than it takes: a body that is still being sent when it is refused may cost the sender the answer.
    let chunk = vec![0u8; 65_537];
    let mut chunked = head(TENSORS, 0, true).replace("content-length: 0", "transfer-encoding: chunked").into_bytes();
    chunked.extend(b"10001\r\n");
    chunked.extend(&chunk);
    let chunked = server.raw(&chunked);
    assert!(chunked.starts_with("HTTP/1.1 413 ") && chunked.contains("\"limit\":65536"), "{chunked}");
    let bomb = vec![0u8; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bomb).unwrap();
    refused(send(&server, TENSORS, "gzip", gzip.finish().unwrap()), over, 65_536);
    refused(send(&server, TENSORS, "zstd", zstd::encode_all(&bomb[..], 1).unwrap()), over, 65_536);
    assert_eq!(server.json("/v1/limits")["in_flight_bytes_used"], 0);
    assert_eq!(server.json("/v1/runs")["runs"], json!([]));
    let packed = zstd::encode_all(&gaussian_body(100, 100, 1)[..], 1).unwrap();
    let accepted: Value = send(&server, TENSORS, "zstd", packed).json().unwrap();
    assert_eq!((&accepted["rows"], &accepted["duplicate"]), (&100.into(), &false.into()), "{accepted}");
}

#[test]
fn json_over_four_mebibytes() {
    let server = Server::start(&[]);
    let limit = 4 << 20;
    let declared = server.raw(head("application/json", limit + 1, true).as_bytes());
    assert!(declared.starts_with("HTTP/1.1 413 ") && declared.contains("\"limit\":4194304"), "{declared}");
    let mut text = b"{\"z\": [[1, 2], [3, 4]]}".to_vec();
    text.resize(limit + 1, b' ');
    let chunked = Body::new(Cursor::new(text.clone()));
    refused(send(&server, "application/json", "identity", chunked), (413, "too_large"), limit as u64);
    text.pop();
    assert_eq!(send(&server, "application/json", "identity", text).status(), 202);
}

#[test]
fn bytes_in_flight() {
    let server = Server::start(&["--max-body-bytes", "65536", "--in-flight-bytes", "65536"]);
    let used = || server.json("/v1/limits")["in_flight_bytes_used"].as_u64().unwrap();
    let mut slow = server.connect();
    slow.write_all(head(TENSORS, 65_000, false).as_bytes()).unwrap();
    until(|| used() == 65_000);
    refused(server.push("?seq=1", gaussian_body(16, 16, 1)), (429, "overloaded"), 65_536);
    let mut grpc = Grpc::connect(&server);
    let bytes = f32_bytes(&gaussian(16, 16, 1));
    says(grpc.push(grpc_header("seq=1", 16, 16), &bytes), tonic::Code::ResourceExhausted, "overloaded", "in flight");
    drop(slow);
    until(|| used() == 0);
    let accepted: Value = server.push("?seq=1", gaussian_body(16, 16, 1)).json().unwrap();
    assert_eq!(accepted["duplicate"], false);
}

#[test]
fn accumulators() {
    let server = Server::start(&["--accumulator-bytes", "1048576"]);
    refused(server.push("?seq=1", gaussian_body(2, 512, 1)), (413, "too_large"), 1 << 20);
    let mut grpc = Grpc::connect(&server);
    let bytes = f32_bytes(&gaussian(2, 512, 1));
    says(grpc.push(grpc_header("seq=1", 2, 512), &bytes), tonic::Code::OutOfRange, "too_large", "accumulator");
    assert_eq!(server.json("/v1/runs")["runs"], json!([]));
    // About 0.4 MiB each, which an open window keeps.
    let place = |layer: &str| format!("r/{layer}?window=0&seq=1");
    for layer in ["a", "b"] {
        assert_eq!(server.push(&place(layer), gaussian_body(8, 300, 1)).status(), 202);
    }
    let before = server.json("/v1/runs");
    refused(server.push(&place("c"), gaussian_body(8, 300, 1)), (429, "overloaded"), 1 << 20);
    let header = fullrank::wire::proto::PushHeader { layer: "c".into(), ..grpc_header("window=0&seq=1", 8, 300) };
    let bytes = f32_bytes(&gaussian(8, 300, 1));
    says(grpc.push(header, &bytes), tonic::Code::ResourceExhausted, "overloaded", "close windows");
    assert_eq!(server.json("/v1/runs"), before);
    server.post("/v1/runs/r/windows/0/close").send().unwrap().error_for_status().unwrap();
    until(|| server.metrics().get("fullrank_accumulator_bytes") == Some(0.0));
    let accepted: Value = server.push(&place("c"), gaussian_body(8, 300, 1)).json().unwrap();
    assert_eq!((&accepted["duplicate"], &accepted["rows"]), (&false.into(), &8.into()));
    let rejected = |metrics: &Metrics, door: &str, reason: &str| {
        metrics.get(&format!("fullrank_batches_rejected_total{{door=\"{door}\",reason=\"{reason}\"}}"))
    };
    let metrics = server.metrics();
    assert_eq!([rejected(&metrics, "http", "overloaded"), rejected(&metrics, "grpc", "too_large")], [Some(1.0); 2]);
}

#[test]
fn streams() {
    let server = Server::start(&["--max-streams", "1"]);
    server.report("r/l?seq=1", gaussian_body(16, 4, 1));
    let before = server.json("/v1/runs");
    for place in ["r/m?seq=1", "s/l?seq=1"] {
        refused(server.push(place, gaussian_body(16, 4, 1)), (429, "too_many_streams"), 1);
    }
    let mut grpc = Grpc::connect(&server);
    let header = fullrank::wire::proto::PushHeader { run: "s".into(), ..grpc_header("seq=1", 2, 2) };
    says(grpc.push(header, &[0; 16]), tonic::Code::ResourceExhausted, "too_many_streams", "finish or delete");
    assert_eq!(server.json("/v1/runs"), before);
    server.report("r/l?seq=2", gaussian_body(16, 4, 1));
    assert_eq!(server.client.delete(server.url("/v1/runs/r")).send().unwrap().status(), 204);
    let accepted: Value = server.push("s/l?seq=1", gaussian_body(16, 4, 1)).json().unwrap();
    assert_eq!(accepted["duplicate"], false);
}

#[test]
fn batches_that_wait() {
    let gate = Arc::new(Mutex::new(()));
    let server = Server::with_backend(&["--inbox-batches", "1"], Odd::gated(Arc::clone(&gate)));
    let shut = gate.lock().unwrap();
    assert_eq!(server.push("?seq=1&window=0", gaussian_body(16, 4, 1)).status(), 202);
    refused(server.push("?seq=2&window=0", gaussian_body(16, 4, 2)), (429, "overloaded"), 1);
    let mut grpc = Grpc::connect(&server);
    says(grpc.push(grpc_header("seq=2", 1, 4), &[0; 16]), tonic::Code::ResourceExhausted, "overloaded", "1 batches");
    assert_eq!(server.metrics().get("fullrank_inbox_batches"), Some(1.0));
    drop(shut);
    until(|| server.metrics().get("fullrank_inbox_batches") == Some(0.0));
    let report = server.report("?seq=2&window=0&last=1", gaussian_body(16, 4, 2));
    assert_eq!((&report["rows"], &report["closed"]), (&32.into(), &true.into()));
}

#[test]
fn a_disk_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&["--data-dir", directory.path().to_str().unwrap()]);
    server.report("?window=0&seq=0&last=1", gaussian_body(16, 4, 1));
    let other = rusqlite::Connection::open(directory.path().join("fullrank.sqlite3")).unwrap();
    other.execute_batch("ALTER TABLE spectra RENAME TO hidden").unwrap();
    // Measured and answered, but not stored: nothing more is taken until it is.
    let report = server.report("?window=1&seq=1&last=1", gaussian_body(16, 4, 2));
    assert_eq!(report["closed"], true);
    let response = server.push("?window=2&seq=2", gaussian_body(16, 4, 3));
    assert!(response.headers().contains_key("retry-after"));
    let (status, code, value) = problem(response);
    assert_eq!((status, code.as_str()), (507, "storage_full"), "{value}");
    assert_eq!(problem(server.get("/readyz").send().unwrap()).1, "storage_full");
    assert_eq!(server.get("/livez").send().unwrap().status(), 200);
    let mut grpc = Grpc::connect(&server);
    says(grpc.push(grpc_header("seq=2&window=2", 1, 4), &[0; 16]), tonic::Code::Unavailable, "storage_full", "");
    other.execute_batch("ALTER TABLE hidden RENAME TO spectra").unwrap();
    until(|| server.get("/readyz").send().unwrap().status() == 200);
    let reports = server.json("/v1/runs/r/layers/l/reports");
    assert_eq!(reports["reports"].as_array().unwrap().len(), 2);
    assert_eq!(reports["reports"][1]["rows"], 16);
    let accepted: Value = server.push("?window=2&seq=2", gaussian_body(16, 4, 3)).json().unwrap();
    assert_eq!(accepted["duplicate"], false);
}
