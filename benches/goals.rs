//! The goals that are ratios, each measured on both sides in one run, in turns: medians and quartile spreads.
//!
//! `FULLRANK_TEST_PYTHON=... cargo bench --bench goals` with a Python that has numpy. Prints a table.

#![allow(missing_docs, dead_code, unreachable_pub, clippy::print_stdout)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Service, bare_socket, body, median};
use fullrank::analysis::measures::{RankMe, Solved, measure};
use fullrank::analysis::window::Accumulator;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::{Float, Order, Rows};

const PAIRS: usize = 9;

/// The other side of the comparisons with NumPy: reads a word a line, answers with seconds.
const NUMPY: &str = r#"
import sys, time
import numpy as np
rng = np.random.default_rng(1)
data = {}
def gram():
    x = data.setdefault("gram", rng.standard_normal((16384, 1024)))
    start = time.perf_counter(); x.T @ x; return time.perf_counter() - start
def svd():
    x = data.setdefault("svd", rng.standard_normal((65536, 2048), dtype=np.float32))
    start = time.perf_counter(); np.linalg.svd(x, compute_uv=False); return time.perf_counter() - start
for line in sys.stdin:
    print({"gram": gram, "svd": svd}[line.strip()](), flush=True)
"#;

struct Numpy {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Numpy {
    fn start() -> Option<Self> {
        let python = std::env::var("FULLRANK_TEST_PYTHON").ok()?;
        let mut child = std::process::Command::new(python)
            .args(["-c", NUMPY])
            .env("OPENBLAS_NUM_THREADS", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let (input, output) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        Some(Self { child, input, output })
    }

    fn seconds(&mut self, what: &str) -> f64 {
        writeln!(self.input, "{what}").expect("python reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("python answers");
        line.trim().parse().expect("seconds")
    }
}

impl Drop for Numpy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn rows(n: usize, d: usize) -> Rows {
    let body = body(n, d);
    let data = bytes::Bytes::from(body).split_off(0);
    let header = data.len() - n * d * 4;
    Rows::new(Float::F32, Order::RowMajor, (n, d), data.slice(header..)).expect("the sizes agree")
}

fn show(what: &str, ours: Vec<f64>, theirs: Vec<f64>, goal: &str) {
    let ((ours, our_spread), (theirs, their_spread)) = (median(ours), median(theirs));
    let milli = |x: f64| format!("{:.3}", x * 1e3);
    println!(
        "| {what} | {} (±{}) | {} (±{}) | {:.2} | {goal} |",
        milli(ours),
        milli(our_spread),
        milli(theirs),
        milli(their_spread),
        theirs / ours
    );
}

fn moments_against_numpy(numpy: &mut Numpy) {
    let backend = Cpu::new(2).expect("threads");
    let rows = rows(16_384, 1024);
    let ours = || seconds(|| drop(backend.moments(&rows, Precision::F64).expect("no device to fail")));
    let (mut mine, mut theirs) = (vec![], vec![]);
    ours();
    numpy.seconds("gram"); // both warm
    for _ in 0..PAIRS {
        mine.push(ours());
        theirs.push(numpy.seconds("gram"));
    }
    show("moments of f32 rows in f64, 16,384 x 1024, against numpy `X.T @ X` in f64", mine, theirs, "at least 0.8");
}

fn step_against_svd(numpy: &mut Numpy) {
    let backend = Cpu::new(2).expect("threads");
    let rows = rows(1024, 2048);
    let mut window: Option<Accumulator> = None;
    let mut step = || {
        seconds(|| {
            let moments = backend.moments(&rows, Precision::F64).expect("no device to fail");
            let batch = Accumulator::from_views(std::slice::from_ref(&rows), moments, None, 4096);
            match &mut window {
                Some(window) => window.merge(&batch),
                None => window = Some(batch),
            }
            let window = window.as_ref().expect("just set");
            assert!(measure(window, &Solved::default(), RankMe::default()).measures.stable_rank.is_some());
        })
    };
    step();
    let mine: Vec<f64> = (0..PAIRS).map(|_| step()).collect();
    // Minutes each: one warm-up-free run has to do.
    let theirs = vec![numpy.seconds("svd")];
    show(
        "all O(d^2) measures after a batch of 1024 x 2048, against numpy svd of a 65,536-row f32 window",
        mine,
        theirs,
        "at least 50",
    );
}

fn ingest_against_bare_socket() {
    let service = Service::start();
    let body = body(8192, 2048);
    let mut bare = bare_socket(body.len());
    let mut client = Client::connect(service.address);
    // One window, no eigenvalues: the 202 is what is measured. Each batch is merged before the next is sent.
    let settle = |client: &mut Client, window: usize| {
        assert_eq!(client.request("POST", &format!("/v1/runs/i/windows/{window}/close"), b""), 200);
    };
    let (mut mine, mut theirs) = (vec![], vec![]);
    for pair in 0..=PAIRS {
        let path = format!("/v1/runs/i/layers/l/batches?window={pair}");
        let ours = seconds(|| assert_eq!(client.request("POST", &path, &body), 202));
        settle(&mut client, pair);
        let other = seconds(|| {
            bare.write_all(&body).expect("it reads");
            bare.read_exact(&mut [0]).expect("it answers");
        });
        if pair > 0 {
            mine.push(ours);
            theirs.push(other);
        }
    }
    show(
        "HTTP ingest of 64 MiB f32 to the 202, against a bare socket read into a reused buffer",
        mine,
        theirs,
        "at least 0.5",
    );
}

/// Seconds of /livez and of a small push, in turns. `pause` before each turn lets the eigensolve take the caches.
fn probe(client: &mut Client, count: usize, pause: Duration, out: &mut (Vec<f64>, Vec<f64>)) {
    let small = body(16, 16);
    for _ in 0..count {
        std::thread::sleep(pause);
        out.0.push(seconds(|| assert_eq!(client.request("GET", "/livez", b""), 200)));
        loop {
            let mut status = 0;
            let took = seconds(|| status = client.request("POST", "/v1/runs/s/layers/l/batches?window=1", &small));
            if status == 202 {
                out.1.push(took);
                break;
            }
            // At full speed the inbox fills; a refusal is no push.
            assert_eq!(status, 429);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn doors_during_an_eigensolve(pause: Duration, how: &str) {
    let service = Service::start();
    let mut client = Client::connect(service.address);
    probe(&mut client, 200, pause, &mut (vec![], vec![]));
    let large = body(4096 + 64, 4096);
    let (mut quiet, mut busy) = ((vec![], vec![]), (vec![], vec![]));
    for round in 0..3 {
        probe(&mut client, 500, pause, &mut quiet);
        let done = Arc::new(AtomicBool::new(false));
        let (flag, address, large) = (Arc::clone(&done), service.address, large.clone());
        let solving = std::thread::spawn(move || {
            let path = format!("/v1/runs/big/layers/l/batches?window={round}&last=true");
            let mut client = Client::connect(address);
            assert_eq!(client.request("POST", &path, &large), 202);
            // Answered once the window is measured: the eigensolves run until then.
            assert_eq!(client.request("POST", &format!("/v1/runs/big/windows/{round}/close"), b""), 200);
            flag.store(true, Ordering::Release);
        });
        std::thread::sleep(Duration::from_secs(4)); // past the push and the merge, into the eigensolve
        while !done.load(Ordering::Acquire) {
            let mut samples = (vec![], vec![]);
            probe(&mut client, 20, pause, &mut samples);
            if !done.load(Ordering::Acquire) && busy.0.len() < 20_000 {
                busy.0.extend(samples.0);
                busy.1.extend(samples.1);
            }
        }
        solving.join().expect("the large push");
    }
    let goal = "at least 0.83 (20 % slower)";
    show(&format!("/livez during a d = 4096 eigensolve, against none, {how}"), busy.0, quiet.0, goal);
    show(&format!("16 x 16 push during a d = 4096 eigensolve, against none, {how}"), busy.1, quiet.1, goal);
}

fn main() {
    println!("| what | ours, ms (quartiles) | other, ms (quartiles) | ratio | goal |\n|---|---|---|---|---|");
    ingest_against_bare_socket();
    doors_during_an_eigensolve(Duration::ZERO, "one after the other");
    doors_during_an_eigensolve(Duration::from_millis(2), "every 2 ms (caches cold)");
    match Numpy::start() {
        Some(mut numpy) => {
            moments_against_numpy(&mut numpy);
            step_against_svd(&mut numpy);
        }
        None => println!("| against numpy: set FULLRANK_TEST_PYTHON to a Python that has it | | | | |"),
    }
}
