//! The race: what fullrank does against what people call today. Both sides in one run, with the same threads, in turns,
//! medians and quartile spreads, and every result of either side held against an f64 oracle of the same run.
//!
//! `FULLRANK_TEST_PYTHON=... cargo bench --bench versus [-- name ...]` with a Python that has torch 2.11, numpy and the
//! client. Prints the tables of `benches/README.md`.

#![allow(missing_docs, dead_code, unreachable_pub, clippy::print_stdout)]

mod common;
#[path = "versus/growth.rs"]
mod growth;
#[path = "versus/ingest.rs"]
mod ingest;
#[path = "versus/opponents.rs"]
mod opponents;
#[path = "versus/ours.rs"]
mod ours;

use std::path::PathBuf;

use common::median;
use faer::{MatRef, Par, Side};
use kernels::backend::Backend;
use kernels::provenance::Precision;
use kernels::rows::Float;
use nalgebra::DMatrix;
use opponents::Opponents;
use ours::{Array, Ours, seconds};
use serde_json::json;

pub const THREADS: usize = 2;
/// Turns of each side; fewer where one takes minutes, and then the table says so.
const PAIRS: usize = 7;
const ROWS: usize = 65_536;
const DIM: usize = 2048;

/// One line of the table.
pub struct Race<'a> {
    pub claim: &'a str,
    /// Must, goal, moonshot.
    pub marks: Option<[f64; 3]>,
    /// Turns of each side.
    pub pairs: usize,
    /// Theirs was run once, before: it takes too long.
    pub once: bool,
}

impl Race<'_> {
    /// Runs both in turns, once each to warm up, and prints the line.
    pub fn run(&self, mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64, accuracy: &str) {
        ours();
        if !self.once && self.pairs > 1 {
            theirs();
        }
        let (mut mine, mut other) = (vec![], vec![]);
        for _ in 0..self.pairs {
            mine.push(ours());
            other.push(theirs());
        }
        // The spread of the ratio itself: pairs run next to each other in time.
        let ratios: Vec<f64> = other.iter().zip(&mine).map(|(theirs, ours)| theirs / ours).collect();
        let ((mine, a), (other, b), (ratio, spread)) = (median(mine), median(other), median(ratios));
        let reached = self.marks.map_or(String::new(), |marks| {
            let best = marks.iter().zip(["must", "goal", "moonshot"]).rfind(|(mark, _)| ratio >= **mark);
            let [must, goal, moonshot] = marks;
            format!("{must} / {goal} / {moonshot}: {}", best.map_or("missed", |(_, name)| name))
        });
        println!(
            "| {} | {} (±{}) | {} (±{}) | {} | {ratio:.2} (±{spread:.2}) | {reached} | {accuracy} |",
            self.claim,
            show(mine),
            show(a),
            show(other),
            show(b),
            if self.once { format!("{} / 1", self.pairs) } else { self.pairs.to_string() }
        );
    }
}

fn show(seconds: f64) -> String {
    if seconds >= 1.0 { format!("{seconds:.2} s") } else { format!("{:.3} ms", seconds * 1e3) }
}

fn head() {
    println!(
        "| claim | ours (quartiles) | theirs (quartiles) | turns | ratio | must / goal / moonshot: reached | accuracy |"
    );
    println!("|---|---|---|---|---|---|---|");
}

/// Where the arrays lie: memory, where there is such a place.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    parent.join(format!("fullrank-versus-{}", std::process::id()))
}

fn rankme(theirs: &mut Opponents, z: &Array) {
    let ours = Ours::new();
    theirs.load("z", z);
    let call = json!({"call": "gram_eigvalsh", "z": "z", "dtype": "float64"});
    let truth = theirs.call(call).1.as_f64().expect("a number");
    let (found, kernel) = ours.rankme(&z.rows, Precision::Auto);
    let ours_off = (found / truth - 1.0).abs();
    let mut off = |call: serde_json::Value| {
        let result = theirs.call(call).1;
        result.as_f64().map_or("none".to_string(), |value| format!("{:.0e}", (value / truth - 1.0).abs()))
    };
    let by_svd = off(json!({"call": "svdvals", "z": "z"}));
    let by_gram = off(json!({"call": "gram_eigvalsh", "z": "z", "dtype": "float64"}));
    let accuracy =
        |theirs: &str| format!("RankMe off by {ours_off:.0e} ({kernel}), theirs {theirs}; torch's f64 {by_gram}");
    let mine = || ours.seconds(|ours| drop(ours.rankme(&z.rows, Precision::Auto)));
    let race = |claim, marks, pairs| Race { claim, marks, pairs, once: false };
    race("exact RankMe, bf16, 65,536 x 2048, against `torch.linalg.svdvals(z.float())`", Some([2.0, 4.0, 8.0]), 3).run(
        mine,
        || theirs.call(json!({"call": "svdvals", "z": "z"})).0,
        &accuracy(&by_svd),
    );
    race("the same against `eigvalsh(cov(z))` in f32", Some([1.2, 2.0, 4.0]), PAIRS).run(
        mine,
        || theirs.call(json!({"call": "cov_eigvalsh", "z": "z", "dtype": "float32"})).0,
        &accuracy("not comparable (centred)"),
    );
    race("the same against `eigvalsh(cov(z))` in f64", None, PAIRS).run(
        mine,
        || theirs.call(json!({"call": "cov_eigvalsh", "z": "z", "dtype": "float64"})).0,
        "",
    );
    race("the same against stable-pretraining's RankMe callback, on a full queue", None, 1).run(
        mine,
        || theirs.call(json!({"call": "peer", "z": "z"})).0,
        "their epsilon is 1e-5",
    );
}

fn accumulation(theirs: &mut Opponents, bf16: &Array, f32: &Array) {
    let ours = Ours::new();
    theirs.load("z", bf16);
    theirs.load("x", f32);
    let off = |array: &Array| {
        let exact = ours.backend.moments(&array.rows, Precision::F64).expect("no device to fail");
        let fast = ours.backend.moments(&array.rows, Precision::Fast).expect("no device to fail");
        let difference = (fast.scatter().to_full() - exact.scatter().to_full()).norm();
        format!("|error| / |M2| {:.0e}", difference / exact.scatter().frobenius_squared().sqrt())
    };
    let mine = |array: &Array| {
        let rows = array.rows.clone();
        let ours = &ours;
        move || ours.seconds(|ours| drop(ours.backend.moments(&rows, Precision::Fast).expect("no device to fail")))
    };
    Race {
        claim: "bf16 accumulation, 65,536 x 2048, against `z.float().T @ z.float()`",
        marks: Some([3.0, 6.0, 10.0]),
        pairs: PAIRS,
        once: false,
    }
    .run(mine(bf16), || theirs.call(json!({"call": "gram", "z": "z"})).0, &off(bf16));
    Race {
        claim: "f32 accumulation (merged in f64), 16,384 x 2048, against sgemm",
        marks: Some([1.5, 1.8, 1.95]),
        pairs: PAIRS,
        once: false,
    }
    .run(mine(f32), || theirs.call(json!({"call": "gram", "z": "x"})).0, &off(f32));
    Race { claim: "the same against numpy", marks: None, pairs: PAIRS, once: false }.run(
        mine(f32),
        || theirs.call(json!({"call": "numpy_gram", "z": "x"})).0,
        "",
    );
    let exact =
        || ours.seconds(|ours| drop(ours.backend.moments(&f32.rows, Precision::F64).expect("no device to fail")));
    Race { claim: "f32 rows in f64, the same, against sgemm (f32)", marks: None, pairs: PAIRS, once: false }.run(
        exact,
        || theirs.call(json!({"call": "gram", "z": "x"})).0,
        "",
    );
}

fn eigenvalues(theirs: &mut Opponents) {
    let ours = Ours::new();
    for dim in [512, 1024, 2048, 4096] {
        let array = Array::covariance(&theirs.folder, dim);
        theirs.load("s", &array);
        let matrix = array.matrix();
        let pairs = if dim < 4096 { PAIRS + 2 } else { PAIRS };
        let found = ours.eigenvalues(&matrix);
        let (by_torch, by_numpy) = (
            theirs.call(json!({"call": "eigvalsh", "z": "s"})).1,
            theirs.call(json!({"call": "numpy_eigvalsh", "z": "s"})).1,
        );
        // Three eigenvalues, against the mean of the two other libraries'.
        let at = [dim - 1, dim - 1 - dim / 2, 0];
        let off = at.iter().enumerate().map(|(k, at)| {
            let truth = f64::midpoint(by_torch[k].as_f64().expect("a number"), by_numpy[k].as_f64().expect("a number"));
            (found[*at] - truth).abs() / found[0]
        });
        let accuracy = format!("{:.0e} of lambda_1 from torch and numpy", off.fold(0.0, f64::max));
        let mine = || ours.seconds(|ours| drop(ours.eigenvalues(&matrix)));
        let marks = |marks| (dim == 4096).then_some(marks);
        let claim = format!("eigenvalues, f64, d = {dim}, against faer");
        let by_faer = || {
            seconds(|| {
                faer::set_global_parallelism(Par::rayon(THREADS));
                let view = MatRef::from_column_major_slice(matrix.as_slice(), dim, dim);
                drop(view.self_adjoint_eigenvalues(Side::Lower).expect("it converges"));
            })
        };
        Race { claim: &claim, marks: marks([1.0, 3.0, 5.0]), pairs, once: false }.run(mine, by_faer, &accuracy);
        let claim = format!("the same against `torch.linalg.eigvalsh` (d = {dim})");
        let by_torch = || theirs.call(json!({"call": "eigvalsh", "z": "s"})).0;
        Race { claim: &claim, marks: marks([0.7, 1.5, 2.0]), pairs, once: false }.run(mine, by_torch, "");
        if dim <= 1024 {
            let claim = format!("the same against nalgebra (d = {dim}, one thread)");
            let by_nalgebra = || seconds(|| drop(matrix.clone().symmetric_eigenvalues()));
            Race { claim: &claim, marks: None, pairs: 3, once: false }.run(mine, by_nalgebra, "");
        }
    }
}

fn steps(theirs: &mut Opponents, z: &Array) {
    let mut ours = Ours::new();
    theirs.load("z", z);
    ours.fill_window(&z.rows, 1024);
    let mut theirs = || theirs.call(json!({"call": "svdvals", "z": "z"})).0;
    let svd = theirs();
    Race {
        claim: "all O(d^2) measures per step, window 65,536 x 2048 bf16, batch 1024, against svdvals of the window (once)",
        marks: Some([50.0, 200.0, 500.0]),
        pairs: PAIRS + 2,
        once: true,
    }
    .run(|| ours.step(false), || svd, "live values as of the window's moments");
    Race { claim: "full spectrum per step, same", marks: Some([4.0, 8.0, 15.0]), pairs: PAIRS + 2, once: true }.run(
        || ours.step(true),
        || svd,
        "covariance, RankMe's second moment and all measures of them",
    );
}

fn uniformity(theirs: &mut Opponents) {
    let ours = Ours::new();
    let array = Array::embeddings(&theirs.folder, "u", (16_384, 2048), Float::F32);
    theirs.load("u", &array);
    let truth = theirs.call(json!({"call": "oracle_uniformity", "z": "u"})).1.as_f64().expect("a number");
    let by_pdist = theirs.call(json!({"call": "pdist", "z": "u"})).1.as_f64().expect("a number");
    let (value, interval) = ours.uniformity(&array.rows);
    let accuracy = format!(
        "{:.4} ± {interval:.4}, off by {:.0e} nats; theirs off by {:.0e}",
        value,
        (value - truth).abs(),
        (by_pdist - truth).abs()
    );
    Race {
        claim: "uniformity to 0.01 nats, N = 16,384, d = 2048, against pdist",
        marks: Some([50.0, 150.0, 500.0]),
        pairs: 3,
        once: false,
    }
    .run(
        || ours.seconds(|ours| _ = ours.uniformity(&array.rows)),
        || theirs.call(json!({"call": "pdist", "z": "u"})).0,
        &accuracy,
    );
    Race {
        claim: "the same against pdist on 1024 rows, as many as ours compares",
        marks: None,
        pairs: PAIRS,
        once: false,
    }
    .run(
        || ours.seconds(|ours| _ = ours.uniformity(&array.rows)),
        || theirs.call(json!({"call": "pdist", "z": "u", "rows": 1024})).0,
        "ours draws them from all 16,384, by their contents",
    );
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let folder = folder();
    std::fs::create_dir_all(&folder).expect("a folder for the arrays");
    let mut theirs = Opponents::start(&folder, THREADS);
    println!("{}\n", theirs.about);
    head();
    let z = || Array::embeddings(&folder, "z", (ROWS, DIM), Float::Bf16);
    if want("eigenvalues") {
        eigenvalues(&mut theirs);
    }
    if want("accumulation") {
        accumulation(&mut theirs, &z(), &Array::embeddings(&folder, "x", (16_384, DIM), Float::F32));
    }
    if want("uniformity") {
        uniformity(&mut theirs);
    }
    if want("rankme") {
        rankme(&mut theirs, &z());
    }
    if want("steps") {
        steps(&mut theirs, &z());
    }
    if wanted.iter().any(|word| word == "parts") {
        let mut ours = Ours::new();
        ours.fill_window(&z().rows, 1024);
        let parts: Vec<[f64; 4]> = (0..15).map(|_| ours.parts()).collect();
        for (k, what) in ["moments", "row pass", "merge", "measures"].iter().enumerate() {
            println!("{what}: {}", show(median(parts.iter().map(|part| part[k]).collect()).0));
        }
    }
    if want("ingest") {
        ingest::run();
    }
    if want("trainer") {
        ingest::trainer(&mut theirs, &z());
    }
    if want("growth") {
        growth::run();
    }
    drop(theirs);
    let _ = std::fs::remove_dir_all(&folder);
}

/// The matrix that a file of the opponents holds, for the accuracy's sake.
pub fn square(values: Vec<f64>) -> DMatrix<f64> {
    let dim = (values.len() as f64).sqrt() as usize;
    DMatrix::from_vec(dim, dim, values)
}
