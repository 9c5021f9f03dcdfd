//! The compute worker: one that crashes, hangs, lies, replies short, dies at its start; the pauses; the metrics.
//!
//! The bad workers are this test binary, started again as `worker::as_a_worker` with the misdeed in its environment.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fullrank::compute::choose::{self, BackendChoice};
use fullrank::compute::resources::{BackendResources, Clock};
use fullrank::compute::worker::frames::{self, Hello, KernelName, Layout, PROTOCOL, ReplyBody, Request, WorkerReply};
use fullrank::compute::worker::memory::SharedMemory;
use fullrank::compute::worker::process::Launch;
use fullrank::compute::worker::process::WorkerLaunches;
use fullrank::compute::worker::{Supervised, child};
use kernels::backend::{Backend, CenteredRows, ComputeError, Solution};
use kernels::cpu::Cpu;
use kernels::fault::{DeviceEvent, FallbackReason};
use kernels::moments::Moments;
use kernels::packed::Packed;
use kernels::provenance::{Device, Precision, Provenance};
use kernels::rows::{Float, Order, Rows};
use kernels::word::Word;
use nalgebra::DMatrix;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};
use strum::VariantArray;

use crate::harness::{Server, gaussian, gaussian_body};

const MISDEED: &str = "FULLRANK_TEST_MISDEED";
const MARK: &str = "FULLRANK_TEST_MARK";

/// Long enough that a busy machine never meets it, short enough for those tests that wait for it.
const PATIENCE: Duration = Duration::from_secs(60);
const IMPATIENCE: Duration = Duration::from_secs(2);

/// Not a test: the bad worker. Started as a test it has nothing to do.
#[test]
fn as_a_worker() {
    let Ok(misdeed) = std::env::var(MISDEED) else { return };
    // Whoever finds the mark is another worker's successor.
    let mark = std::env::var_os(MARK).map(PathBuf::from);
    let first =
        mark.as_ref().is_none_or(|mark| std::fs::write(mark.with_extension("next"), "").is_ok() && !mark.exists());
    if let Some(mark) = &mark {
        std::fs::write(mark, std::process::id().to_string()).unwrap();
    }
    let misdeed = match misdeed.strip_prefix("then ") {
        Some(later) if !first => later,
        Some(_) => "exit",
        None if first || mark.is_none() => misdeed.as_str(),
        None => "none",
    };
    match misdeed {
        "die at the start" => std::process::exit(3),
        "say nothing" => park(),
        "announce too much" | "end within a frame" | "other job" | "other protocol" | "shrink" | "other count"
        | "leave" => {
            speak(misdeed);
        }
        _ => child::serve(Device::Torch, || Ok(Bad { misdeed: misdeed.to_string(), cpu: Cpu::new(1)? })).unwrap(),
    }
    std::process::exit(0);
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// Says by itself what `child::serve` never would.
fn speak(misdeed: &str) {
    use std::io::Write;
    use std::os::fd::AsFd;

    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let memory = SharedMemory::from_fd(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    let protocol = if misdeed == "other protocol" { PROTOCOL + 1 } else { PROTOCOL };
    let device = Device::Torch.to_string();
    frames::write(&mut stream, &Hello { protocol, device, complaint: None }).unwrap();
    let Ok(request) = frames::read::<Request>(&mut stream) else { return };
    let done = |results| ReplyBody::Done { kernel: "f64".to_string(), results };
    let reply = |job, results| WorkerReply { job, outcome: done(results) };
    match misdeed {
        "announce too much" => stream.write_all(&[0xff; 4]).unwrap(),
        "end within a frame" => stream.write_all(&[9, 0, 0, 0, b'{']).unwrap(),
        "other job" => frames::write(&mut stream, &reply(request.job + 1, vec![4, 10, 3])).unwrap(),
        "leave" => {
            memory.start().put_numbers(&[3.0]).unwrap();
            let outcome = ReplyBody::Done { kernel: "eigh".to_string(), results: vec![1] };
            frames::write(&mut stream, &WorkerReply { job: request.job, outcome }).unwrap();
        }
        "other count" => frames::write(&mut stream, &reply(request.job, vec![4, 9, 3])).unwrap(),
        _ => {
            memory.clear().unwrap();
            frames::write(&mut stream, &reply(request.job, vec![4, 10, 3])).unwrap();
        }
    }
}

/// faer, with a misdeed before or after.
struct Bad {
    misdeed: String,
    cpu: Cpu,
}

impl Bad {
    fn act(&self) -> Result<(), ComputeError> {
        match self.misdeed.as_str() {
            // Rust's own handler returns once.
            "segfault" => loop {
                kill_process(getpid(), Signal::SEGV).unwrap();
            },
            "abort" => std::process::abort(),
            "exit" => std::process::exit(7),
            "hang" => park(),
            "out of memory" => Err(ComputeError::OutOfMemory("CUDA out of memory".to_string())),
            "device error" => Err(ComputeError::Device("CUDA error: unspecified launch failure".to_string())),
            "no convergence" => Err(ComputeError::NoConvergence { dim: 4 }),
            _ => Ok(()),
        }
    }

    /// Spoils some of the numbers.
    fn spoil(&self, values: &mut [f64]) {
        match self.misdeed.as_str() {
            "nan" => values[0] = f64::NAN,
            "lie" => values.iter_mut().for_each(|value| *value *= 1.01),
            _ => {}
        }
    }

    fn spoilt(&self, mut matrix: DMatrix<f64>) -> DMatrix<f64> {
        self.spoil(matrix.as_mut_slice());
        matrix
    }
}

impl Backend for Bad {
    fn device(&self) -> Device {
        Device::Torch
    }

    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError> {
        if self.misdeed == "abort at moments" {
            std::process::abort();
        }
        self.act()?;
        let moments = self.cpu.moments(rows, precision)?;
        let mut values = moments.scatter().values().to_vec();
        self.spoil(&mut values);
        let scatter = Packed::from_rows(moments.dim(), values).unwrap();
        let origin = *moments.provenances().first().unwrap();
        Ok(Moments::new(moments.rows(), moments.mean().to_vec(), scatter).computed(origin, moments.sums().clone()))
    }

    fn cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.cross(a, b).map(|product| self.spoilt(product))
    }

    fn gram(&self, x: &DMatrix<f64>, outer: bool) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.gram(x, outer).map(|product| self.spoilt(product))
    }

    fn inner(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.inner(a, b).map(|product| self.spoilt(product))
    }

    fn eigenvalues(&self, symmetric: &DMatrix<f64>) -> Result<Solution, ComputeError> {
        self.act()?;
        let mut solved = self.cpu.eigenvalues(symmetric)?;
        self.spoil(&mut solved.values);
        Ok(solved)
    }

    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError> {
        self.cpu.eigenvectors(symmetric).map(|(values, vectors)| (values, self.spoilt(vectors)))
    }

    fn whiten(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.whiten(a, b).map(|solved| self.spoilt(solved))
    }
}

/// A clock that tests set.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn clock(&self) -> Clock {
        let milliseconds = Arc::clone(&self.0);
        Arc::new(move || Duration::from_millis(milliseconds.load(Ordering::Acquire)))
    }

    fn forward(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::AcqRel);
    }
}

fn real() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// Both workers with that misdeed; with a folder for marks only the first of each does it.
fn workers(misdeed: &str, marks: Option<&Path>, patience: Duration) -> WorkerLaunches {
    let launch = |lane: &str| Launch {
        program: std::env::current_exe().unwrap(),
        arguments: ["--exact", "worker::as_a_worker", "--nocapture"].map(Into::into).to_vec(),
        environment: vec![
            (MISDEED, Some(misdeed.to_string())),
            (MARK, marks.map(|folder| folder.join(lane).display().to_string())),
        ],
        device: Device::Torch,
        patience,
    };
    WorkerLaunches { sums: launch("sums"), solves: launch("solves"), budget: None }
}

/// What happened, in words: `ended crashed 0` (the pause in seconds), `fell back crashed`, `restarted`.
type Heard = Arc<Mutex<Vec<String>>>;

fn heard(backend: &dyn Backend) -> Heard {
    let heard = Heard::default();
    let to = Arc::clone(&heard);
    backend.on_event(Box::new(move |event| to.lock().unwrap().push(in_words(event))));
    heard
}

fn in_words(event: &DeviceEvent) -> String {
    match event {
        DeviceEvent::FellBack(reason) => format!("fell back {}", reason.word()),
        DeviceEvent::Ended { reason, pause, .. } => format!("ended {} {}", reason.word(), pause.as_secs()),
        DeviceEvent::Restarted => "restarted".to_string(),
    }
}

fn taken(heard: &Heard) -> Vec<String> {
    std::mem::take(&mut heard.lock().unwrap())
}

fn some_rows(rows: usize, dim: usize) -> Rows {
    let values: Vec<f64> = gaussian(rows, dim, 1).into_iter().map(f64::from).collect();
    Rows::from_f64((rows, dim), &values).unwrap()
}

fn device_of(moments: &Moments) -> Device {
    moments.provenances().first().unwrap().device
}

#[test]
fn a_worker_that_fails_costs_one_job_which_is_done_again() {
    let misdeeds = [
        ("segfault", "crashed", "was killed by signal 11"),
        ("abort", "crashed", "was killed by signal 6"),
        ("exit", "crashed", "ended with exit code 7"),
        ("hang", "timeout", "no answer within 2.0 s"),
        ("nan", "malformed_reply", "it holds NaN"),
        ("lie", "malformed_reply", "M2 holds"),
        ("other job", "malformed_reply", "answered job 2, not 1"),
        ("other count", "malformed_reply", "results of [4, 9, 3] values came, [4, 10, 3] were requested"),
        ("shrink", "malformed_reply", "the results are incomplete"),
        ("announce too much", "malformed_reply", "a frame of 4294967295 bytes was announced"),
        ("end within a frame", "malformed_reply", "the stream ended within a frame of 9 bytes"),
        ("out of memory", "out_of_memory", "CUDA out of memory"),
        ("device error", "device_error", "unspecified launch failure"),
    ];
    let rows = some_rows(40, 4);
    let own = Cpu::new(1).unwrap().moments(&rows, Precision::F64).unwrap();
    for (misdeed, reason, detail) in misdeeds {
        let marks = tempfile::tempdir().unwrap();
        let patience = if misdeed == "hang" { IMPATIENCE } else { PATIENCE };
        let workers = workers(misdeed, Some(marks.path()), patience);
        let backend = Supervised::start(workers, Cpu::new(1).unwrap(), &real()).unwrap();
        let (heard, details) = (Heard::default(), Heard::default());
        let to = [Arc::clone(&heard), Arc::clone(&details)];
        backend.on_event(Box::new(move |event| {
            to[0].lock().unwrap().push(in_words(event));
            if let DeviceEvent::Ended { detail, .. } = event {
                to[1].lock().unwrap().push(detail.clone());
            }
        }));
        assert_eq!(backend.moments(&rows, Precision::F64).unwrap(), own, "{misdeed}");
        assert!(taken(&details)[0].contains(detail), "{misdeed}");
        assert_eq!(taken(&heard), [format!("ended {reason} 0"), format!("fell back {reason}")], "{misdeed}");
        let again = backend.moments(&rows, Precision::F64).unwrap();
        assert_eq!((device_of(&again), again.scatter()), (Device::Torch, own.scatter()), "{misdeed}");
        assert_eq!(taken(&heard), ["restarted"], "{misdeed}");
    }
}

#[test]
fn every_kernel_is_checked() {
    for (misdeed, caught) in [("nan", 7), ("lie", 6)] {
        let cpu = Cpu::new(1).unwrap();
        // No marks: every worker lies, so each kernel needs a backend of its own, or it would find a pause.
        let fresh = || Supervised::start(workers(misdeed, None, PATIENCE), Cpu::new(1).unwrap(), &real()).unwrap();
        let rows = some_rows(40, 4);
        let x = DMatrix::from_fn(4, 6, |i, j| (i * i + 3 * j) as f64 % 5.0 - 1.0);
        let symmetric = &x * x.transpose() + DMatrix::identity(4, 4);
        let moments = cpu.moments(&rows, Precision::F64).unwrap();
        let both = (CenteredRows::new(&rows, &moments), CenteredRows::new(&rows, &moments));
        let mut malformed = 0;
        let mut with = |call: &dyn Fn(&dyn Backend)| {
            let backend = fresh();
            let heard = heard(&backend);
            call(&backend);
            malformed += usize::from(taken(&heard).contains(&"ended malformed_reply 0".to_string()));
        };
        with(&|backend| {
            assert_eq!(backend.moments(&rows, Precision::F64).unwrap(), cpu.moments(&rows, Precision::F64).unwrap())
        });
        with(&|backend| assert_eq!(backend.cross(both.0, both.1).unwrap(), cpu.cross(both.0, both.1).unwrap()));
        with(&|backend| assert_eq!(backend.gram(&x, true).unwrap(), cpu.gram(&x, true).unwrap()));
        with(&|backend| assert_eq!(backend.inner(&x, &x).unwrap(), cpu.inner(&x, &x).unwrap()));
        with(&|backend| assert_eq!(backend.eigenvalues(&symmetric).unwrap(), cpu.eigenvalues(&symmetric).unwrap()));
        with(&|backend| assert_eq!(backend.eigenvectors(&symmetric).unwrap(), cpu.eigenvectors(&symmetric).unwrap()));
        // L^-1 B cannot be told from another matrix without the work itself: only what is not finite is found.
        with(&|backend| drop(backend.whiten(&symmetric, &x).unwrap()));
        assert_eq!(malformed, caught, "{misdeed}");
    }
}

#[test]
fn a_worker_that_keeps_failing_is_started_ever_later() {
    let hand = Hand::default();
    let backend = Supervised::start(workers("abort", None, PATIENCE), Cpu::new(1).unwrap(), &hand.clock()).unwrap();
    let heard = heard(&backend);
    let rows = some_rows(40, 4);
    let job = || assert_eq!(device_of(&backend.moments(&rows, Precision::F64).unwrap()), Device::Cpu);
    job();
    assert_eq!(taken(&heard), ["ended crashed 0", "fell back crashed"]);
    for pause in [1, 2, 4] {
        job();
        assert_eq!(
            taken(&heard),
            ["restarted".to_string(), format!("ended crashed {pause}"), "fell back crashed".into()]
        );
        hand.forward(pause * 1000 - 1);
        job();
        assert_eq!(taken(&heard), ["fell back backing_off"]);
        hand.forward(1);
    }
}

/// One kind of job that always fails must not have a worker started for each because others succeed in between.
#[test]
fn an_answer_ends_a_row_of_failures_only_after_a_minute() {
    let hand = Hand::default();
    let workers = workers("abort at moments", None, PATIENCE);
    let backend = Supervised::start(workers, Cpu::new(1).unwrap(), &hand.clock()).unwrap();
    let heard = heard(&backend);
    let (cpu, rows) = (Cpu::new(1).unwrap(), some_rows(40, 4));
    let moments = cpu.moments(&rows, Precision::F64).unwrap();
    let good = || backend.cross(CenteredRows::new(&rows, &moments), CenteredRows::new(&rows, &moments)).unwrap();
    let bad = || backend.moments(&rows, Precision::F64).unwrap();
    bad();
    assert_eq!(taken(&heard), ["ended crashed 0", "fell back crashed"]);
    hand.forward(1000);
    for (wait, pause) in [(59_000, 1), (60_000, 0)] {
        good();
        assert_eq!(taken(&heard), ["restarted"]);
        hand.forward(wait - 1000);
        good();
        bad();
        assert_eq!(taken(&heard), [format!("ended crashed {pause}"), "fell back crashed".into()]);
        hand.forward(1000);
    }
}

#[test]
fn a_worker_that_left_between_jobs_costs_none() {
    let marks = tempfile::tempdir().unwrap();
    let workers = workers("leave", Some(marks.path()), PATIENCE);
    let backend = Supervised::start(workers, Cpu::new(1).unwrap(), &real()).unwrap();
    let heard = heard(&backend);
    let three = DMatrix::from_element(1, 1, 3.0);
    let solve = || backend.eigenvalues(&three).unwrap();
    assert_eq!((solve().provenance.device, taken(&heard)), (Device::Torch, vec![]));
    let pid: i32 = std::fs::read_to_string(marks.path().join("solves")).unwrap().parse().unwrap();
    let gone = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_raw(pid).unwrap()), gone).unwrap();
    assert_eq!(solve().provenance.device, Device::Torch);
    assert_eq!(taken(&heard), ["ended crashed 0", "restarted"]);
}

#[test]
fn a_worker_that_does_not_get_ready() {
    for (misdeed, says) in [
        ("die at the start", "ended with exit code 3"),
        ("say nothing", "no answer within 2.0 s"),
        ("other protocol", "is it the same binary?"),
    ] {
        let error = Supervised::start(workers(misdeed, None, IMPATIENCE), Cpu::new(1).unwrap(), &real()).err().unwrap();
        assert!(error.to_string().contains(says), "{misdeed}: {error}");
    }
    let marks = tempfile::tempdir().unwrap();
    let workers = workers("then die at the start", Some(marks.path()), PATIENCE);
    let backend = Supervised::start(workers, Cpu::new(1).unwrap(), &Hand::default().clock()).unwrap();
    let heard = heard(&backend);
    for _ in 0..3 {
        assert_eq!(device_of(&backend.moments(&some_rows(40, 4), Precision::F64).unwrap()), Device::Cpu);
    }
    let crashed = ["ended crashed 0", "fell back crashed"];
    let not_started = ["ended not_started 1", "fell back not_started"];
    assert_eq!(taken(&heard), [&crashed[..], &not_started, &["fell back backing_off"]].concat());
}

#[test]
fn what_the_device_finds_no_result_for_the_other_solver_decides() {
    let backend = Supervised::start(workers("no convergence", None, PATIENCE), Cpu::new(1).unwrap(), &real()).unwrap();
    let heard = heard(&backend);
    for _ in 0..2 {
        let solution = backend.eigenvalues(&DMatrix::identity(4, 4)).unwrap();
        assert_eq!(solution.provenance, Provenance { device: Device::Cpu, kernel: "faer" });
    }
    assert_eq!(taken(&heard), ["fell back no_result"; 2], "the worker goes on");
}

#[test]
fn a_job_over_the_budget_goes_to_the_cpu() {
    let mut workers = workers("none", None, PATIENCE);
    workers.budget = Some(1 << 20);
    let backend = Supervised::start(workers, Cpu::new(1).unwrap(), &real()).unwrap();
    let heard = heard(&backend);
    assert_eq!(device_of(&backend.moments(&some_rows(40, 16), Precision::F64).unwrap()), Device::Torch);
    assert_eq!(taken(&heard), [""; 0]);
    // 4 d^2 + 1536 d values of 8 bytes are over a MiB from d = 75 on.
    assert_eq!(device_of(&backend.moments(&some_rows(40, 110), Precision::F64).unwrap()), Device::Cpu);
    assert_eq!(taken(&heard), ["fell back over_budget"]);
}

#[test]
fn a_crash_shows_in_the_report_and_in_the_metrics() {
    let marks = tempfile::tempdir().unwrap();
    let backend = Supervised::start(workers("segfault", Some(marks.path()), PATIENCE), Cpu::new(1).unwrap(), &real());
    let server = Server::with_backend(&[], Arc::new(backend.unwrap()));
    let fell_back = |reason: &str| {
        server.metrics().get(&format!("fullrank_compute_fallbacks_total{{reason=\"{reason}\"}}")).unwrap()
    };
    assert!(FallbackReason::VARIANTS.iter().all(|reason| fell_back(reason.word()) == 0.0), "they start at zero");
    let report = server.report("?window=0&last=true", gaussian_body(64, 8, 1));
    assert_eq!(report["computed"]["device"], "cpu+torch-cpu", "one eigensolve crashed, the others did not");
    assert_eq!(report["computed"]["solver"], "faer");
    assert_eq!(report["verdict"]["dimension"], "ok");
    let report = server.report("?window=1&last=true", gaussian_body(64, 8, 2));
    assert_eq!(report["computed"]["device"], "torch-cpu");
    // One of those that sum, one of those that solve.
    assert_eq!(fell_back("crashed"), 2.0);
    assert_eq!(server.metrics().get("fullrank_compute_worker_restarts_total"), Some(2.0));
}

/// The program itself as a worker, spoken to by hand.
fn program(device: &str) -> (std::process::Child, UnixStream, SharedMemory) {
    let (stream, theirs) = UnixStream::pair().unwrap();
    let memory = SharedMemory::create().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fullrank"));
    command.args(["compute-worker", &format!("--device={device}")]).stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = command.stdout(Stdio::from(memory.file().try_clone_to_owned().unwrap())).spawn().unwrap();
    (child, stream, memory)
}

#[test]
fn a_worker_outlives_signals_but_not_its_service() {
    let (mut child, mut stream, memory) = program("cpu");
    let hello: Hello = frames::read(&mut stream).unwrap();
    assert_eq!((hello.device.as_str(), hello.complaint), ("cpu", None));
    for signal in [Signal::TERM, Signal::INT] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    memory.start().put_numbers(&[3.0]).unwrap();
    let operands = vec![Layout::Matrix { rows: 1, columns: 1 }];
    frames::write(&mut stream, &Request { job: 1, kernel: KernelName::Eigenvalues, operands }).unwrap();
    let reply: WorkerReply = frames::read(&mut stream).unwrap();
    assert!(matches!(reply.outcome, ReplyBody::Done { .. }), "{reply:?}");
    assert_eq!(memory.start().take_numbers(1).unwrap(), [3.0]);
    drop(stream);
    child.wait().unwrap();

    // In the middle of a job, too.
    let (stream, theirs) = UnixStream::pair().unwrap();
    let launch = workers("hang", None, PATIENCE).sums;
    let mut command = Command::new(launch.program);
    command.args(launch.arguments).env(MISDEED, "hang").stdin(Stdio::from(OwnedFd::from(theirs)));
    let memory = SharedMemory::create().unwrap();
    let mut child = command.stdout(Stdio::from(memory.file().try_clone_to_owned().unwrap())).spawn().unwrap();
    let mut stream = stream;
    let _: Hello = frames::read(&mut stream).unwrap();
    memory.start().put_numbers(&[3.0]).unwrap();
    let operands = vec![Layout::Matrix { rows: 1, columns: 1 }];
    frames::write(&mut stream, &Request { job: 1, kernel: KernelName::Eigenvalues, operands }).unwrap();
    drop(stream);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_worker_that_no_service_started_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_fullrank"))
        .args(["compute-worker", "--device=cpu"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(said.contains("do not come from the service"), "{said}");
}

#[test]
fn every_kernel_comes_back_as_it_was_computed() {
    let launch = Launch {
        program: env!("CARGO_BIN_EXE_fullrank").into(),
        arguments: ["compute-worker", "--device=cpu", "--threads=1"].map(Into::into).to_vec(),
        environment: Vec::new(),
        device: Device::Cpu,
        patience: PATIENCE,
    };
    let workers = WorkerLaunches { sums: launch.clone(), solves: launch, budget: None };
    let backend = Supervised::start(workers, Cpu::new(1).unwrap(), &real()).unwrap();
    let heard = heard(&backend);
    let cpu = Cpu::new(1).unwrap();
    for (float, order) in
        [(Float::F64, Order::RowMajor), (Float::F32, Order::ColumnMajor), (Float::Bf16, Order::RowMajor)]
    {
        let bytes: Vec<u8> = match float {
            Float::F64 => gaussian(700, 9, 1).iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect(),
            Float::F32 => gaussian(700, 9, 1).iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => gaussian(700, 9, 1).iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        };
        let rows = Rows::new(float, order, (700, 9), bytes.into()).unwrap();
        for precision in [Precision::Auto, Precision::F64, Precision::Fast] {
            assert_eq!(backend.moments(&rows, precision).unwrap(), cpu.moments(&rows, precision).unwrap());
        }
        let moments = cpu.moments(&rows, Precision::F64).unwrap();
        let both = (CenteredRows::new(&rows, &moments), CenteredRows::new(&rows, &moments));
        assert_eq!(backend.cross(both.0, both.1).unwrap(), cpu.cross(both.0, both.1).unwrap());
    }
    let x = DMatrix::from_fn(70, 130, |i, j| ((i * i + 3 * j * i + 7 * j) % 13) as f64 - 6.0);
    let symmetric = &x * x.transpose() + DMatrix::identity(70, 70);
    for outer in [true, false] {
        assert_eq!(backend.gram(&x, outer).unwrap(), cpu.gram(&x, outer).unwrap());
    }
    assert_eq!(backend.inner(&x, &x).unwrap(), cpu.inner(&x, &x).unwrap());
    assert_eq!(backend.eigenvalues(&symmetric).unwrap(), cpu.eigenvalues(&symmetric).unwrap());
    assert_eq!(backend.eigenvectors(&symmetric).unwrap(), cpu.eigenvectors(&symmetric).unwrap());
    assert_eq!(backend.whiten(&symmetric, &x).unwrap(), cpu.whiten(&symmetric, &x).unwrap());
    assert_eq!(taken(&heard), [""; 0]);
}

fn means() -> BackendResources {
    BackendResources { threads: 1, patience: PATIENCE, gpu_memory_bytes: None, clock: real() }
}

#[test]
fn choices_are_read_and_written() {
    for (text, choice) in [
        ("auto", BackendChoice::Auto),
        ("cpu", BackendChoice::Cpu),
        ("torch", BackendChoice::Torch),
        ("torch-cuda:0", BackendChoice::TorchCuda(0)),
        ("torch-cuda:3", BackendChoice::TorchCuda(3)),
    ] {
        assert_eq!((text.parse(), choice.to_string().as_str()), (Ok(choice), text));
    }
    assert_eq!("torch-cuda".parse(), Ok(BackendChoice::TorchCuda(0)));
    for text in ["", "gpu", "torch-cuda:", "torch-cuda:-1", "torch-cuda:256", "cuda:0"] {
        assert!(text.parse::<BackendChoice>().is_err(), "{text}");
    }
    assert_eq!(choose::open(BackendChoice::Cpu, &means()).unwrap().why, "--backend cpu");
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_build_without_libtorch_says_so() {
    let chosen = choose::open(BackendChoice::Auto, &means()).unwrap();
    assert_eq!((chosen.backend.device(), chosen.why.as_str()), (Device::Cpu, "auto: this build has no libtorch"));
    for backend in ["torch", "torch-cuda:1"] {
        let serve = ["serve", "--listen=127.0.0.1:0", "--backend", backend];
        let output = Command::new(env!("CARGO_BIN_EXE_fullrank")).args(serve).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(said.contains(&format!("--backend {backend}: this build has no libtorch; build with")), "{said}");
    }
}
