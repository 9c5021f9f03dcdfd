//! How time and memory grow: slopes in log-log.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use kernels::backend::Backend;
use kernels::provenance::Precision;
use kernels::rows::Float;
use nalgebra::DMatrix;

use crate::common::{Client, Service, body, median};
use crate::ours::{Array, Ours, seconds};

pub fn run() {
    println!("\n| growth | sizes | times or bytes | slope | expected |\n|---|---|---|---|---|");
    let ours = Ours::new();
    let folder = std::env::temp_dir();
    let rows = |n, d| Array::embeddings(&folder, "fullrank-growth", (n, d), Float::Bf16).rows;
    let middle = |work: &dyn Fn()| median((0..5).map(|_| seconds(work)).collect()).0;
    let moments = |n, d| {
        let rows = rows(n, d);
        middle(&|| drop(ours.backend.moments(&rows, Precision::Fast).expect("no device to fail")))
    };
    line("accumulate against N (d = 1024)", &[4096, 8192, 16_384, 32_768], |n| moments(n, 1024), "1.0");
    line("accumulate against d (N = 8192)", &[512, 1024, 2048, 4096], |d| moments(8192, d), "2");
    let eigenvalues = |d: usize| {
        let matrix = DMatrix::from_fn(d, d, |i, j| 1.0 / (1.0 + i.abs_diff(j) as f64));
        middle(&|| drop(ours.eigenvalues(&matrix)))
    };
    line("eigenvalues against d", &[1024, 2048, 4096], eigenvalues, "3");
    line("runs pushed one after another, 64 x 64 each", &[50, 100, 200, 400], push_runs, "1");
    line(
        "resident bytes that a window adds, against N (d = 512)",
        &[16_384, 32_768, 65_536, 131_072],
        window_bytes,
        "0",
    );
}

fn line(what: &str, sizes: &[usize], mut measure: impl FnMut(usize) -> f64, expected: &str) {
    let found: Vec<f64> = sizes.iter().map(|size| measure(*size)).collect();
    let points: Vec<(f64, f64)> = sizes.iter().zip(&found).map(|(x, y)| ((*x as f64).ln(), y.max(1e-9).ln())).collect();
    let n = points.len() as f64;
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>()
        / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    let show = |values: Vec<String>| values.join(", ");
    println!(
        "| {what} | {} | {} | {slope:.2} | {expected} |",
        show(sizes.iter().map(ToString::to_string).collect()),
        show(found.iter().map(|y| format!("{y:.3e}")).collect())
    );
}

fn push_runs(runs: usize) -> f64 {
    let service = Service::start();
    let mut client = Client::connect(service.address);
    let body = body(64, 64);
    let start = Instant::now();
    for run in 0..runs {
        let path = format!("/v1/runs/r{run}/layers/l/batches?window=1&last=true&wait=true");
        assert_eq!(client.request("POST", &path, &body), 200);
    }
    start.elapsed().as_secs_f64()
}

/// Resident bytes of a service in a process of its own, after a window of so many rows.
fn window_bytes(rows: usize) -> f64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fullrank"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log-json"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the service starts");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let mut lines = log.lines().map(|line| line.expect("text"));
    let address = lines.find_map(|line| address(&line)).expect("it says where it listens");
    // Read on, so that a full pipe holds nothing up.
    let reader = std::thread::spawn(move || lines.for_each(drop));
    let mut client = Client::connect(address);
    let body = body(4096, 512);
    for _ in 0..rows / 4096 {
        // Answered once it is merged: what is measured is the window, not the queue.
        let path = "/v1/runs/r/layers/l/batches?window=1&wait=true&spectrum=false";
        assert_eq!(client.request("POST", path, &body), 200);
    }
    let bytes = resident(child.id());
    child.kill().and_then(|()| child.wait()).expect("it ends");
    reader.join().expect("the log ends with it");
    bytes
}

fn address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["fields"]["address"].as_str()?.parse().ok()
}

fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("Linux");
    status.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("pages") * 4096.0
}
