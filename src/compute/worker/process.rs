//! One compute worker as the service sees it: a process, a stream of frames, shared memory.
//!
//! Guarantees: a call ends by its deadline, whatever the worker does; results have the requested shapes and are finite.
//! When a `Process` drops, the worker is killed. Must not: decide what happens after a failure.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::call::KernelCall;
use super::frames::{self, Failure, FrameError, Hello, PROTOCOL, ReplyBody, Request, WorkerReply};
use super::memory::SharedMemory;
use crate::compute::resources::Clock;
use kernels::checks;
use kernels::fault::FallbackReason;
use kernels::provenance::Device;

/// The shortest timeout of a socket; zero would mean forever.
const SHORTEST_WAIT: Duration = Duration::from_micros(1);

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program; it must call [`super::child::serve`].
    pub program: PathBuf,
    /// The program's arguments.
    pub arguments: Vec<OsString>,
    /// Environment variables to set, or with `None` to remove.
    pub environment: Vec<(&'static str, Option<String>)>,
    /// The device to open.
    pub device: Device,
    /// How long it may take to start, and how much longer a job may take than its size explains.
    pub patience: Duration,
}

/// The two workers of a device.
pub struct WorkerLaunches {
    /// The worker for moments and products.
    pub sums: Launch,
    /// The worker for eigenvalues, eigenvectors and whitening.
    pub solves: Launch,
    /// Bytes of device memory that each may use; `None`: the device uses this machine's own memory.
    pub budget: Option<usize>,
}

/// Why a job has no answer.
#[derive(Debug)]
pub struct Broken {
    /// The kind of failure.
    pub reason: FallbackReason,
    /// The failure in words.
    pub detail: String,
}

/// The answer to a job: of the right shapes, and finite.
pub struct Answer {
    /// The arithmetic or the solver.
    pub kernel: String,
    /// The results.
    pub results: Vec<Vec<f64>>,
}

/// A running worker.
pub struct Process {
    /// `None` once it has been waited for.
    child: Option<Child>,
    stream: UnixStream,
    memory: SharedMemory,
    clock: Clock,
    patience: Duration,
    jobs: u64,
}

/// A stream that is read until a deadline.
struct Until<'a> {
    stream: &'a UnixStream,
    clock: &'a Clock,
    deadline: Duration,
}

impl Broken {
    pub(crate) fn new(reason: FallbackReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl Process {
    /// Starts a worker and waits until it has opened its device.
    ///
    /// # Errors
    /// `NotStarted`, with the reason in words.
    pub fn start(launch: &Launch, clock: &Clock) -> Result<Self, Broken> {
        let mut process = Self::spawn(launch, clock).map_err(|error| {
            Broken::new(FallbackReason::NotStarted, format!("cannot start {}: {error}", launch.program.display()))
        })?;
        let ready = process.hello(launch);
        ready.map(|()| process).map_err(|broken| Broken { reason: FallbackReason::NotStarted, ..broken })
    }

    /// Its standard input is the stream, in both directions; its standard output is the shared memory, so no file
    /// descriptor has to be inherited by number. What it prints goes to standard error (see `child::serve`).
    fn spawn(launch: &Launch, clock: &Clock) -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let memory = SharedMemory::create()?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::from(memory.file().try_clone_to_owned()?));
        // A Ctrl-C in the terminal goes to the service, which drains with the worker's help.
        command.process_group(0);
        for (name, value) in &launch.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = Some(command.spawn()?);
        let clock = clock.clone();
        Ok(Self { child, stream, memory, clock, patience: launch.patience, jobs: 0 })
    }

    fn hello(&mut self, launch: &Launch) -> Result<(), Broken> {
        let hello: Hello = self.receive(launch.patience)?;
        if let Some(complaint) = hello.complaint {
            return Err(Broken::new(FallbackReason::NotStarted, complaint));
        }
        let device = launch.device.to_string();
        if (hello.protocol, &hello.device) != (PROTOCOL, &device) {
            let detail = format!(
                "the worker uses protocol {} for {}, this program {PROTOCOL} for {device}: is it the same binary?",
                hello.protocol, hello.device
            );
            return Err(Broken::new(FallbackReason::Malformed, detail));
        }
        Ok(())
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(in_words(status))
    }

    /// Runs a job.
    ///
    /// # Errors
    /// If there is no answer, or an impossible one.
    pub fn ask(&mut self, job: &KernelCall<'_>) -> Result<Answer, Broken> {
        self.jobs += 1;
        let memory =
            |error: io::Error| Broken::new(FallbackReason::OutOfMemory, format!("the shared memory failed: {error}"));
        job.write(self.memory.start()).map_err(memory)?;
        let request = Request { job: self.jobs, kernel: job.kernel, operands: job.layouts() };
        // A request is smaller than the socket's buffer, which is empty: this does not block.
        frames::write(&mut self.stream, &request).map_err(|error| self.broken(error))?;
        let reply: WorkerReply = self.receive(self.patience + Duration::from_secs_f64(job.seconds()))?;
        if reply.job != self.jobs {
            let detail = format!("the worker answered job {}, not {}", reply.job, self.jobs);
            return Err(Broken::new(FallbackReason::Malformed, detail));
        }
        let answer = self.answer(job, reply.outcome);
        self.memory.clear().map_err(memory)?;
        answer
    }

    fn answer(&self, job: &KernelCall<'_>, outcome: ReplyBody) -> Result<Answer, Broken> {
        let (kernel, shapes) = match outcome {
            ReplyBody::Done { kernel, results } => (kernel, results),
            ReplyBody::Failed { what, detail } => {
                let reason = match what {
                    Failure::NoResult => FallbackReason::NoResult,
                    Failure::OutOfMemory => FallbackReason::OutOfMemory,
                    Failure::Device => FallbackReason::DeviceError,
                };
                return Err(Broken::new(reason, detail));
            }
        };
        let malformed = |detail: String| Broken::new(FallbackReason::Malformed, format!("{:?}: {detail}", job.kernel));
        if shapes != job.results {
            return Err(malformed(format!("results of {shapes:?} values came, {:?} were requested", job.results)));
        }
        let mut from = self.memory.start();
        let results: Result<Vec<_>, io::Error> = shapes.iter().map(|count| from.take_numbers(*count)).collect();
        let results = results.map_err(|error| malformed(format!("the results are incomplete: {error}")))?;
        checks::finite(&results).map_err(malformed)?;
        Ok(Answer { kernel, results })
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self, within: Duration) -> Result<T, Broken> {
        let deadline = (self.clock)() + within;
        let mut until = Until { stream: &self.stream, clock: &self.clock, deadline };
        frames::read(&mut until).map_err(|error| match error {
            FrameError::Late => {
                Broken::new(FallbackReason::Timeout, format!("no answer within {:.1} s", within.as_secs_f64()))
            }
            other => self.broken(other),
        })
    }

    fn broken(&mut self, error: FrameError) -> Broken {
        match error {
            FrameError::Closed => {
                let status = self.end_of_closed();
                Broken::new(FallbackReason::Crashed, format!("the worker {status}"))
            }
            other => Broken::new(FallbackReason::Malformed, other.to_string()),
        }
    }

    /// The worker closed its stream: it is ending, or is not given another chance.
    fn end_of_closed(&mut self) -> String {
        let Some(mut child) = self.child.take() else { return "is gone".to_string() };
        // Its exit status is set before its stream closes, so this kills only one that keeps running without the
        // stream.
        let _ = child.kill();
        child.wait().map_or_else(|error| format!("cannot be waited for: {error}"), in_words)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        // A process that hangs in a driver does not die immediately: only this thread waits for it.
        let wait = move || drop(child.wait());
        let _ = std::thread::Builder::new().name("worker-end".to_string()).spawn(wait);
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_sub((self.clock)());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left.max(SHORTEST_WAIT)))?;
        self.stream.read(buffer)
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_string(),
    }
}
