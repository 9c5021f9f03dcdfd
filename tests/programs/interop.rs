//! Programs other than our own: promtool, curl, Python's urllib and grpcio, sqlite3.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::harness::{Server, gaussian_body};

/// Runs a program to its end, feeding it `input`.
fn run(mut command: Command, input: &[u8]) -> Output {
    let name = command.get_program().to_string_lossy().to_string();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{name}: {error}; scripts/test installs what the tests need"));
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends early tells why below.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// Runs a program that must end well; what it said.
pub fn passes(command: Command, input: &[u8]) -> String {
    let name = format!("{command:?}");
    let output = run(command, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
    assert!(output.status.success(), "{name}:\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// A script of tests/clients.
pub fn python(script: &str) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("FULLRANK_TEST_PYTHON").map_or(root.join(".venv/bin/python"), PathBuf::from);
    let mut command = Command::new(python);
    command.arg(root.join("tests/clients").join(script));
    command
}

/// The same, told where the service is.
pub fn python_client(script: &str, server: &Server) -> Command {
    let mut command = python(script);
    command.arg(server.url("").trim_end_matches('/'));
    command
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let server = Server::start(&[]);
    server.report("?window=0&last=true&step=3&loss=0.5&method=simsiam", gaussian_body(64, 16, 1));
    let metrics = server.get("/metrics").send().unwrap().bytes().unwrap();
    let said = passes(program("promtool", &["check", "metrics"]), &metrics);
    assert_eq!(said, "", "promtool has advice");
}

#[test]
fn python_urllib_is_a_client() {
    let server = Server::start(&[]);
    passes(python_client("urllib_push.py", &server), b"");
}

#[test]
fn python_grpcio_is_a_client_through_reflection() {
    let server = Server::start(&[]);
    passes(python_client("grpc_push.py", &server), b"");
}

#[test]
fn curl_is_a_client() {
    let server = Server::start(&[]);
    let url = server.url("/v1/runs/c/layers/z/batches?wait=true");
    let body = r#"{"z": [[1, 2], [2, 1], [3, 5], [4, 4], [5, 1], [1, 1], [2, 6], [7, 3]]}"#;
    let said =
        passes(program("curl", &["-sS", "--fail", &url, "-H", "Content-Type: application/json", "-d", body]), b"");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["rows"], 8);
}

#[test]
fn sqlite3_opens_the_history_while_the_service_runs() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&["--data-dir", directory.path().to_str().unwrap()]);
    server.report("?window=4&last=true", gaussian_body(64, 16, 1));
    let file = directory.path().join("fullrank.sqlite3");
    let query = "SELECT run, layer, window, json_extract(report, '$.measures.stable_rank') > 1 FROM reports";
    assert_eq!(passes(program("sqlite3", &[file.to_str().unwrap(), query]), b"").trim(), "r|l|4|1");
    let blob = "SELECT length(eigenvalues) FROM spectra";
    assert_eq!(passes(program("sqlite3", &[file.to_str().unwrap(), blob]), b"").trim(), "128");
}
