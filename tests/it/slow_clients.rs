//! Clients that crawl, stand still or only hold connections cost themselves, not the service.
//! Waiting is for the server to close a socket, never for a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, gaussian_body, read_to_end};

fn impatient(more: &[&str]) -> Server {
    let flags = ["--header-timeout-s", "1", "--body-idle-timeout-s", "1"];
    Server::start(&[&flags, more].concat())
}

const PUSH: &str =
    "POST /v1/runs/r/layers/l/batches?seq=1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-safetensors\r\n";

/// The service is as it was: nothing held, and a push is taken.
fn unharmed(server: &Server) {
    assert_eq!(server.json("/v1/limits")["in_flight_bytes_used"], 0);
    assert_eq!(server.json("/v1/runs")["runs"], json!([]));
    let accepted: serde_json::Value = server.push("?seq=1", gaussian_body(16, 4, 1)).json().unwrap();
    assert_eq!((&accepted["duplicate"], &accepted["rows"]), (&false.into(), &16.into()));
}

#[test]
fn a_header_that_never_ends() {
    let server = impatient(&[]);
    for part in ["", "P", "POST /v1/runs", PUSH] {
        let started = Instant::now();
        let answer = server.raw(part.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{part:?}: {answer}");
        assert!(started.elapsed() >= Duration::from_millis(900), "{part:?} was given its second");
    }
    unharmed(&server);
}

#[test]
fn a_header_that_crawls() {
    let server = impatient(&[]);
    let mut stream = server.connect();
    // A byte at a time keeps no header open: its second runs from its first byte.
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut sent = 0;
    let ended = loop {
        let byte = PUSH.as_bytes().get(sent).copied().unwrap_or(b'x');
        let written = stream.write_all(&[byte]);
        sent += 1;
        match stream.read(&mut [0; 256]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break true,
        }
        if written.is_err() || sent == 100 {
            break written.is_err();
        }
    };
    assert!(ended && sent < 100, "{sent} bytes");
    unharmed(&server);
}

fn started_body(server: &Server, framing: &str, start: &[u8]) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(format!("{PUSH}{framing}\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(start).unwrap();
    stream
}

#[test]
fn a_body_that_stands_still() {
    let server = impatient(&[]);
    for (framing, start) in [
        ("content-length: 4000", &b""[..]),
        ("content-length: 4000", b"0123456789"),
        ("transfer-encoding: chunked", b""),
        ("transfer-encoding: chunked", b"a\r\n0123456789\r\n"),
        ("content-encoding: gzip\r\ncontent-length: 4000", b"\x1f\x8b\x08"),
    ] {
        let answer = read_to_end(&mut started_body(&server, framing, start));
        assert!(answer.starts_with("HTTP/1.1 408 "), "{framing}: {answer}");
        assert!(
            answer.contains("\"code\":\"timeout\"") && answer.to_lowercase().contains("retry-after: 1"),
            "{answer}"
        );
    }
    let rejected = "fullrank_batches_rejected_total{door=\"http\",reason=\"timeout\"}";
    assert_eq!(server.metrics().get(rejected), Some(5.0));
    unharmed(&server);
}

#[test]
fn a_call_whose_body_stands_still() {
    let server = impatient(&[]);
    let mut stream = server.connect();
    let head = "POST /fullrank.v1.Monitor/GetVerdict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n\
                connection: close\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // Whatever it answers, it lets go.
    read_to_end(&mut stream);
    unharmed(&server);
}

#[test]
fn a_body_that_breaks_off() {
    let server = impatient(&[]);
    let stream = started_body(&server, "content-length: 4000", b"0123456789");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut stream = stream;
    let answer = read_to_end(&mut stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    while server.json("/v1/limits")["in_flight_bytes_used"] != 0 {
        std::thread::yield_now();
    }
    unharmed(&server);
}

#[test]
fn connections_over_the_cap() {
    let server = impatient(&["--max-connections", "2"]);
    let held = [server.connect(), server.connect()];
    assert_eq!(read_to_end(&mut server.connect()), "", "closed at once");
    for mut stream in held {
        // Their header's second ends, and with it their places.
        assert_eq!(read_to_end(&mut stream), "");
    }
    let answer = loop {
        // The place is given back just after the socket is closed.
        let answer = server.raw(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        if !answer.is_empty() {
            break answer;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    while server.raw(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").is_empty() {}
    unharmed(&server);
}
