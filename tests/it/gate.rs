//! The verdict as a gate: an answer as soon as it is news, and never later than asked.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Server, f32_body, gaussian_body, problem};

/// Rows on one point.
fn constant() -> Vec<u8> {
    f32_body(&[("z", 128, 4, &[1.0f32; 512])])
}

/// A request under way; its answer comes through the channel.
fn ask(server: &Server, path: &str) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    let request = server.get(path);
    // A request that the drain was faster than ends without an answer.
    std::thread::spawn(move || request.send().is_ok_and(|answer| sender.send(answer.json().unwrap()).is_ok()));
    receiver
}

#[test]
fn a_gate_answers_when_the_state_changes() {
    let server = Server::start(&[]);
    for window in 0..4 {
        server.report(&format!("?window={window}&last=true"), gaussian_body(128, 4, window));
    }
    let state = |value: &Value| value["state"].as_str().unwrap().to_string();
    let path = "/v1/runs/r/verdict";
    let healthy = state(&server.json(path));
    // News already to whoever knows another state.
    assert_eq!(state(&server.json(&format!("{path}?wait=300&state=degrading"))), healthy);
    // Time over: the state as it is.
    assert_eq!(state(&server.json(&format!("{path}?wait=0.01"))), healthy);
    let waiting = ask(&server, &format!("{path}?wait=300&state={healthy}"));
    let silent = ask(&server, &format!("{path}?wait=300"));
    let mut answers = Vec::new();
    for window in 4..20 {
        server.report(&format!("?window={window}&last=true"), constant());
        answers.extend(waiting.try_iter().chain(silent.try_iter()));
    }
    let late = Duration::from_secs(60);
    answers.extend([&waiting, &silent].iter().filter_map(|answer| answer.recv_timeout(late).ok()));
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.iter().all(|answer| state(answer) != healthy), "{answers:?}");
    // Nobody who does not say so waits for a collapse to end.
    assert_eq!(state(&server.json(&format!("{path}?wait=300"))), "collapsed");
    let seen = ask(&server, &format!("{path}?wait=300&state=collapsed"));
    for window in 20..32 {
        server.report(&format!("?window={window}&last=true"), gaussian_body(128, 4, window));
    }
    assert_eq!(server.post("/v1/runs/r/acknowledge").send().unwrap().status(), 200);
    assert_ne!(state(&seen.recv_timeout(late).unwrap()), "collapsed");
}

#[test]
fn a_gate_opens_when_the_service_drains() {
    let server = Server::start(&[]);
    server.report("?window=0&last=true", gaussian_body(128, 4, 0));
    let waiting = ask(&server, "/v1/runs/r/verdict?wait=300");
    server.stop();
    match waiting.recv_timeout(Duration::from_secs(60)) {
        Ok(answer) => assert_eq!(answer["state"], "warming_up"),
        Err(error) => assert_eq!(error, mpsc::RecvTimeoutError::Disconnected, "it still waits"),
    }
}

#[test]
fn what_a_gate_cannot_do() {
    let server = Server::start(&[]);
    server.report("?window=0&last=true", gaussian_body(128, 4, 0));
    for (query, says) in [
        ("wait=301", "wait is 301: it must be 0 to 300 seconds; ask again for longer"),
        ("wait=-1", "wait is -1: it must be 0 to 300"),
        ("wait=NaN", "wait is NaN: it must be 0 to 300"),
        ("wait=soon", "the query cannot be read"),
        ("state=fine", "state is fine: it must be one of warming_up, insufficient_rows, healthy, degrading, collapsed"),
        ("wiat=3", "unknown field `wiat`"),
    ] {
        let (status, code, value) = problem(server.get(&format!("/v1/runs/r/verdict?{query}")).send().unwrap());
        assert_eq!((status, code.as_str()), (400, "malformed"), "{query}");
        assert!(value["detail"].as_str().unwrap().contains(says), "{query}: {value}");
    }
    assert_eq!(problem(server.get("/v1/runs/x/verdict?wait=1").send().unwrap()).0, 404);
}
