//! What the page is made of: its files, its event stream, and histories of a bounded size.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Server, f32_body, gaussian_body, problem};

/// A connection that has asked for events.
fn stream(server: &Server) -> BufReader<TcpStream> {
    let mut socket = server.connect();
    socket.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    BufReader::new(socket)
}

/// The next event's data; `None` at the stream's end.
fn event(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut line = String::new();
    while stream.read_line(&mut line).unwrap_or(0) > 0 {
        if let Some(data) = line.strip_prefix("data: ") {
            return Some(serde_json::from_str(data).unwrap());
        }
        line.clear();
    }
    None
}

/// Reads events until one tells window `window` of run `r` with the state `state`; how many it took.
fn until(stream: &mut BufReader<TcpStream>, window: u64, state: &str) -> usize {
    for count in 1.. {
        let told = event(stream).expect("the stream goes on");
        let lines = told["runs"].as_array().expect("a short list");
        if lines.iter().any(|run| run["run"] == "r" && run["window"] == window && run["state"] == state) {
            return count;
        }
    }
    unreachable!("it counts on")
}

#[test]
fn an_event_tells_a_published_report() {
    let server = Server::start(&[]);
    let mut stream = stream(&server);
    let first = event(&mut stream).unwrap();
    assert_eq!((&first["whole"], &first["runs"]), (&true.into(), &serde_json::json!([])));
    // The very first change is told, too: a batch of a window that stays open.
    assert_eq!(server.push("?window=0", gaussian_body(64, 8, 1)).status(), 202);
    until(&mut stream, 0, "warming_up");
    server.report("?window=0&last=true", gaussian_body(64, 8, 2));
    let constant = || f32_body(&[("z", 64, 8, &[0.5; 64 * 8])]);
    for window in 1..8 {
        server.report(&format!("?window={window}&last=true"), constant());
    }
    until(&mut stream, 7, "collapsed");
    assert_eq!(server.json("/v1/runs")["runs"][0]["cause"], "constant", "the line says why");
    assert_eq!(server.client.delete(server.url("/v1/runs/r")).send().unwrap().status(), 204);
    loop {
        // Whatever else it tells before: a run that was taken away means "read them all".
        if event(&mut stream).unwrap()["runs"].is_null() {
            break;
        }
    }
    server.stop();
    while event(&mut stream).is_some() {}
}

#[test]
fn who_does_not_read_holds_nothing_up_and_gets_the_newest_state() {
    let server = Server::start(&[]);
    let mut idle: Vec<_> = (0..16).map(|_| stream(&server)).collect();
    let mut reader = stream(&server);
    event(&mut reader).unwrap();
    const PUSHED: u64 = 300;
    for window in 0..PUSHED {
        server.report(&format!("?window={window}&last=true"), gaussian_body(32, 4, window));
    }
    until(&mut reader, PUSHED - 1, "healthy");
    for stream in &mut idle {
        let told = until(stream, PUSHED - 1, "healthy");
        assert!(told < PUSHED as usize / 2, "{told} events were kept for {PUSHED} windows");
    }
}

#[test]
fn an_event_is_short_however_many_runs_changed() {
    let server = Server::start(&[]);
    for run in 0..200 {
        let place = format!("a-run-with-a-rather-long-name-{run:0>60}/l?window=0");
        assert_eq!(server.push(&place, gaussian_body(4, 2, 1)).status(), 202);
    }
    let mut stream = stream(&server);
    assert!(event(&mut stream).unwrap()["runs"].is_null(), "it says: read them all");
}

#[test]
fn one_stream_too_many_is_refused_and_a_closed_one_makes_room() {
    let server = Server::start(&[]);
    let limit = server.json("/v1/limits")["event_streams"].as_u64().unwrap();
    let mut held: Vec<_> = (0..limit).map(|_| stream(&server)).collect();
    for stream in &mut held {
        event(stream).unwrap();
    }
    let refused = server.get("/v1/events").send().unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, code, value) = problem(refused);
    assert_eq!((status, code.as_str(), &value["limit"]), (429, "overloaded", &limit.into()), "{value}");
    held.pop();
    while server.json("/v1/limits")["event_streams_used"] == limit {
        std::thread::yield_now();
    }
    assert!(event(&mut stream(&server)).is_some());
}

#[test]
fn events_are_for_who_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let server = Server::start(&["--token-file", token.to_str().unwrap()]);
    for path in ["/v1/events", "/v1/runs/r/layers/l/history", "/v1/runs/r/layers/l/spectra", "/page/app.js"] {
        assert_eq!(problem(server.get(path).send().unwrap()).0, 401, "{path}");
        let other = server.get(path).header("host", "elsewhere.example").bearer_auth("secret").send().unwrap();
        assert_eq!(problem(other).0, 403, "{path}");
    }
}

#[test]
fn files_are_compressed_and_not_sent_twice() {
    let server = Server::start(&[]);
    let plain = server.get("/page/uPlot.js").send().unwrap();
    let tag = plain.headers()["etag"].clone();
    let whole = plain.bytes().unwrap();
    let packed = server.get("/page/uPlot.js").header("accept-encoding", "gzip").send().unwrap();
    assert_eq!((&packed.headers()["content-encoding"], &packed.headers()["etag"]), (&"gzip".parse().unwrap(), &tag));
    let packed = packed.bytes().unwrap();
    assert!(packed.len() * 2 < whole.len(), "{} of {}", packed.len(), whole.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, whole);
    let again = server.get("/page/uPlot.js").header("if-none-match", tag).send().unwrap();
    assert_eq!(again.status(), 304);
    assert!(again.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    assert!(again.bytes().unwrap().is_empty());
}

#[test]
fn a_long_history_comes_in_few_points() {
    let server = Server::start(&[]);
    for window in 0..50 {
        let body = gaussian_body(32, 8, window);
        server.report(&format!("?window={window}&last=true&method=simsiam&loss=-0.5"), body);
    }
    let place = "/v1/runs/r/layers/l";
    let all = server.json(&format!("{place}/history"));
    assert_eq!((all["total"].as_u64(), all["windows"].as_array().unwrap().len()), (Some(50), 50));
    let report = &server.json(&format!("{place}/reports?from=7&to=7"))["reports"][0];
    assert_eq!(all["measures"]["entropy_rank"][7], report["measures"]["entropy_rank"]);
    let few = server.json(&format!("{place}/history?points=7&measures=entropy_rank,loss.constant&from=10"));
    assert_eq!((few["total"].as_u64(), few["windows"].as_array().unwrap().len()), (Some(40), 7));
    assert_eq!(few["windows"][6], 49, "the newest is always there");
    assert_eq!(few["measures"]["loss.constant"][0], -1.0);
    let spectra = server.json(&format!("{place}/spectra?points=5&components=4"));
    assert_eq!(spectra["components"], serde_json::json!([1, 2, 4, 8]));
    let exact = server.json(&format!("{place}/spectrum"));
    let (near, value) = (spectra["eigenvalues"][4][3].as_f64().unwrap(), exact["eigenvalues"][7].as_f64().unwrap());
    assert!((near - value).abs() <= 5e-4 * value, "four digits: {near}, {value}");
    assert_eq!(spectra["cumulative"][4][3], 1.0);
    for wrong in ["history?points=0", "history?points=2001", "history?measures=no_such", "spectra?components=257"] {
        assert_eq!(problem(server.get(&format!("{place}/{wrong}")).send().unwrap()).1, "malformed", "{wrong}");
    }
    assert_eq!(problem(server.get("/v1/runs/r/layers/none/history").send().unwrap()).0, 404);
}
