//! The worker's side: accepts jobs from the service that started it until the service is gone.
//!
//! Guarantees: the process ends when the service does, even in the middle of a job, and after a device error, which may
//! have left the device unusable. Must not: write to standard output, which is the shared memory; it is redirected to
//! standard error first, for libraries that print.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use nalgebra::DMatrix;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use super::frames::{
    self, Failure, FrameError, Hello, KernelName, Layout, PROTOCOL, PrecisionWord, ReplyBody, Request, WorkerReply,
};
use super::memory::{Cursor, SharedMemory};
use kernels::backend::{Backend, CenteredRows, ComputeError};
use kernels::moments::Moments;
use kernels::packed::Packed;
use kernels::provenance::{Device, Precision, Provenance};
use kernels::rounding::Rounding;
use kernels::rows::{Float, Order, Rows};

struct KernelResult {
    kernel: String,
    results: Vec<Vec<f64>>,
}

/// Serves the process at the other end of standard input, with the backend that `open` opens.
///
/// # Errors
/// If the service did not start it, or the stream fails.
pub fn serve<B: Backend>(device: Device, open: impl FnOnce() -> Result<B, ComputeError>) -> Result<(), String> {
    let (mut stream, memory) = handed_over().map_err(|error| {
        format!("standard input and output do not come from the service, which starts its own workers: {error}")
    })?;
    end_with(&stream).map_err(|error| format!("cannot watch the service: {error}"))?;
    let opened = open();
    let complaint = opened.as_ref().err().map(ToString::to_string);
    let hello = Hello { protocol: PROTOCOL, device: device.to_string(), complaint };
    frames::write(&mut stream, &hello).map_err(|error| error.to_string())?;
    let Ok(backend) = opened else { return Ok(()) };
    loop {
        let request: Request = match frames::read(&mut stream) {
            Ok(request) => request,
            Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let done = operands(&request, memory.start()).and_then(|given| compute(&backend, request.kernel, given));
        let broken = matches!(done, Err(ComputeError::Device(_) | ComputeError::OutOfMemory(_)));
        let outcome = done.and_then(|done| write(done, &memory)).unwrap_or_else(|error| failed(&error));
        frames::write(&mut stream, &WorkerReply { job: request.job, outcome }).map_err(|error| error.to_string())?;
        if broken {
            return Ok(());
        }
    }
}

fn handed_over() -> io::Result<(UnixStream, SharedMemory)> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails if it is not a socket.
    stream.peer_addr()?;
    let memory = SharedMemory::from_fd(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok((stream, memory))
}

/// Kills this process once the other end of the stream is gone, even if the main thread hangs in a driver.
fn end_with(stream: &UnixStream) -> io::Result<()> {
    let stream = stream.try_clone()?;
    let watch = move || {
        let mut watched = [PollFd::new(&stream, PollFlags::RDHUP)];
        while poll(&mut watched, None).is_err() {}
        let _ = kill_process(getpid(), Signal::KILL);
    };
    std::thread::Builder::new().name("parent".to_string()).spawn(watch).map(drop)
}

enum Given {
    Rows(Rows),
    Matrix(DMatrix<f64>),
}

fn operands(request: &Request, mut from: Cursor<'_>) -> Result<Vec<Given>, ComputeError> {
    let unreadable = |what: String| ComputeError::Device(format!("an operand could not be read: {what}"));
    let mut given = Vec::new();
    for layout in &request.operands {
        given.push(match layout {
            Layout::Rows { float, row_major, rows, dim } => {
                let float = float.parse::<Float>().map_err(|_| unreadable(format!("type {float}")))?;
                let order = if *row_major { Order::RowMajor } else { Order::ColumnMajor };
                let bytes = from.take(rows * dim * float.size()).map_err(|error| unreadable(error.to_string()))?;
                let rows = Rows::new(float, order, (*rows, *dim), Bytes::from(bytes));
                Given::Rows(rows.map_err(|error| unreadable(error.to_string()))?)
            }
            Layout::Matrix { rows, columns } => {
                let values = from.take_numbers(rows * columns).map_err(|error| unreadable(error.to_string()))?;
                Given::Matrix(DMatrix::from_vec(*rows, *columns, values))
            }
        });
    }
    Ok(given)
}

fn compute(backend: &impl Backend, kernel: KernelName, given: Vec<Given>) -> Result<KernelResult, ComputeError> {
    use Given::{Matrix, Rows};
    let plain = |matrix: DMatrix<f64>| KernelResult { kernel: "f64".to_string(), results: vec![values(matrix)] };
    match (kernel, &given[..]) {
        (KernelName::Moments { precision }, [Rows(rows)]) => {
            let moments = backend.moments(rows, precision.precision())?;
            let kernel = moments.provenances().iter().next().map_or("f64", |origin| origin.kernel).to_string();
            let mut errors = moments.sums().errors().to_vec();
            errors.resize(rows.dim() - 1, 0.0);
            let results = vec![moments.mean().to_vec(), moments.scatter().values().to_vec(), errors];
            Ok(KernelResult { kernel, results })
        }
        (KernelName::Cross, [Rows(a), Rows(b), Matrix(mean_a), Matrix(mean_b)]) => {
            // Only the mean is needed, and the arithmetic: f64, unless stated otherwise.
            let of = |rows: &kernels::rows::Rows, mean: &DMatrix<f64>| {
                let scatter = Packed::zeros(rows.dim());
                let origin = Provenance { device: backend.device(), kernel: "f64" };
                Moments::new(rows.len() as u64, mean.as_slice().to_vec(), scatter).computed(origin, Rounding::default())
            };
            backend.cross(CenteredRows::new(a, &of(a, mean_a)), CenteredRows::new(b, &of(b, mean_b))).map(plain)
        }
        (KernelName::Gram { outer }, [Matrix(x)]) => backend.gram(x, outer).map(plain),
        (KernelName::Inner, [Matrix(a), Matrix(b)]) => backend.inner(a, b).map(plain),
        (KernelName::Eigenvalues, [Matrix(symmetric)]) => {
            let solved = backend.eigenvalues(symmetric)?;
            Ok(KernelResult { kernel: solved.provenance.kernel.to_string(), results: vec![solved.values] })
        }
        (KernelName::Eigenvectors, [Matrix(symmetric)]) => {
            let (eigenvalues, vectors) = backend.eigenvectors(symmetric)?;
            Ok(KernelResult { kernel: "f64".to_string(), results: vec![eigenvalues, values(vectors)] })
        }
        (KernelName::Whiten, [Matrix(a), Matrix(b)]) => backend.whiten(a, b).map(plain),
        (kernel, given) => {
            Err(ComputeError::Device(format!("{kernel:?} does not accept these {} operands", given.len())))
        }
    }
}

fn write(done: KernelResult, memory: &SharedMemory) -> Result<ReplyBody, ComputeError> {
    let mut to = memory.start();
    for result in &done.results {
        to.put_numbers(result).map_err(|error| ComputeError::OutOfMemory(format!("the results: {error}")))?;
    }
    let results = done.results.iter().map(Vec::len).collect();
    Ok(ReplyBody::Done { kernel: done.kernel, results })
}

fn failed(error: &ComputeError) -> ReplyBody {
    let what = match error {
        ComputeError::NoConvergence { .. } | ComputeError::NotPositiveDefinite { .. } => Failure::NoResult,
        ComputeError::OutOfMemory(_) => Failure::OutOfMemory,
        ComputeError::Device(_) => Failure::Device,
    };
    // A frame holds eight times that, and JSON may need several bytes per character.
    let detail = error.to_string().chars().take(2048).collect();
    ReplyBody::Failed { what, detail }
}

fn values(matrix: DMatrix<f64>) -> Vec<f64> {
    matrix.data.into()
}

impl PrecisionWord {
    fn precision(self) -> Precision {
        match self {
            PrecisionWord::Auto => Precision::Auto,
            PrecisionWord::F64 => Precision::F64,
            PrecisionWord::Fast => Precision::Fast,
        }
    }
}
