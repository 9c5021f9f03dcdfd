//! A backend in a separate process: a segmentation fault, an abort, a broken CUDA context, a lack of memory or a hang
//! of libtorch costs one job, which this process's own kernels then redo.
//!
//! Guarantees: every call returns an answer that was checked, or one computed by [`Cpu`]; the result's provenance says
//! which. A merge never waits for an eigensolve: each has its own worker. Must not: link libtorch, or log.
//!
//! [`frames`] holds the messages, [`memory`] the shared memory, `call` the requests, [`process`] one worker, `slot`
//! a sequence of workers, `card` their limits; [`child`] is the other side.

pub(crate) mod call;
pub(crate) mod card;
pub mod child;
pub mod frames;
pub mod memory;
pub mod process;
pub(crate) mod slot;

use std::sync::OnceLock;

use nalgebra::DMatrix;

use self::call::KernelCall;
use self::process::{Answer, Broken, WorkerLaunches};
use self::slot::WorkerSlot;
use super::SLAB_BYTES;
use super::resources::Clock;
use kernels::backend::{Backend, CenteredRows, ComputeError, Solution};
use kernels::checks;
use kernels::cpu::Cpu;
use kernels::fast_sums::summed;
use kernels::fault::{DeviceEvent, FallbackReason, Listener};
use kernels::moments::Moments;
use kernels::packed::Packed;
use kernels::provenance::{Device, Precision, Provenance};
use kernels::rows::Rows;

/// Kernel names that a worker may report.
const KERNELS: [&str; 6] = ["f64", "f32", "bf16", "eigh", "faer", "two-stage"];

/// A device behind workers, with this process's kernels as the fallback.
pub struct Supervised {
    device: Device,
    cpu: Cpu,
    sums: WorkerSlot,
    solves: WorkerSlot,
    /// Bytes of device memory that one worker may use.
    budget: Option<usize>,
    listener: OnceLock<Listener>,
}

impl Supervised {
    /// Starts both workers.
    pub fn start(workers: WorkerLaunches, cpu: Cpu, clock: &Clock) -> Result<Self, ComputeError> {
        let failed = |broken: Broken| ComputeError::Device(broken.detail);
        let device = workers.sums.device;
        let sums = WorkerSlot::start(workers.sums, clock.clone()).map_err(failed)?;
        let solves = WorkerSlot::start(workers.solves, clock.clone()).map_err(failed)?;
        Ok(Self { device, cpu, sums, solves, budget: workers.budget, listener: OnceLock::new() })
    }

    /// A worker's answer that passes `check`. `None`: this process must compute, and the listener has been told the
    /// reason.
    fn ask<T>(
        &self,
        lane: &WorkerSlot,
        job: &KernelCall<'_>,
        check: impl FnOnce(Answer) -> Result<T, String>,
    ) -> Option<T> {
        if job.is_empty() {
            return None;
        }
        let tell = |event: &DeviceEvent| {
            if let Some(listener) = self.listener.get() {
                listener(event);
            }
        };
        if self.budget.is_some_and(|budget| job.device_bytes(SLAB_BYTES) > budget) {
            tell(&DeviceEvent::FellBack(FallbackReason::OverBudget));
            return None;
        }
        let answer = lane.ask(job, check, &tell);
        answer.map_err(|broken| tell(&DeviceEvent::FellBack(broken.reason))).ok()
    }

    fn by_kernel(&self, kernel: &str) -> Result<Provenance, String> {
        let kernel = KERNELS.into_iter().find(|known| *known == kernel);
        let kernel = kernel.ok_or_else(|| "it names an unknown kernel".to_string())?;
        Ok(Provenance { device: self.device, kernel })
    }
}

impl Backend for Supervised {
    fn device(&self) -> Device {
        self.device
    }

    fn on_event(&self, listener: Listener) {
        // Only the first listener is kept.
        let _ = self.listener.set(listener);
    }

    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError> {
        let check = |answer: Answer| {
            let origin = self.by_kernel(&answer.kernel)?;
            let [mean, scatter, errors] = results(answer.results)?;
            let scatter = Packed::from_rows(rows.dim(), scatter).ok_or("the scatter is not a triangle")?;
            checks::moments(rows, &mean, &scatter)?;
            Ok(summed(origin, rows.len(), mean, scatter, errors)?)
        };
        match self.ask(&self.sums, &KernelCall::moments(rows, precision), check) {
            Some(moments) => Ok(moments),
            None => self.cpu.moments(rows, precision),
        }
    }

    fn cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> Result<DMatrix<f64>, ComputeError> {
        let dim = a.rows.dim();
        let check = |answer: Answer| {
            let [product] = results(answer.results)?;
            let product = DMatrix::from_vec(dim, dim, product);
            checks::cross(a, b, &product)?;
            Ok(product)
        };
        match self.ask(&self.sums, &KernelCall::cross(a, b), check) {
            Some(product) => Ok(product),
            None => self.cpu.cross(a, b),
        }
    }

    fn gram(&self, x: &DMatrix<f64>, outer: bool) -> Result<DMatrix<f64>, ComputeError> {
        let n = if outer { x.nrows() } else { x.ncols() };
        let check = |answer: Answer| {
            let [product] = results(answer.results)?;
            let product = DMatrix::from_vec(n, n, product);
            checks::gram(x, outer, &product)?;
            Ok(product)
        };
        match self.ask(&self.sums, &KernelCall::gram(x, outer), check) {
            Some(product) => Ok(product),
            None => self.cpu.gram(x, outer),
        }
    }

    fn inner(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let check = |answer: Answer| {
            let [product] = results(answer.results)?;
            let product = DMatrix::from_vec(a.ncols(), b.ncols(), product);
            checks::inner(a, b, &product)?;
            Ok(product)
        };
        match self.ask(&self.sums, &KernelCall::inner(a, b), check) {
            Some(product) => Ok(product),
            None => self.cpu.inner(a, b),
        }
    }

    /// Computed by this process's own kernel: otherwise each call would send the triangle to the worker.
    fn symmetric_times(&self, a: &Packed, x: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.symmetric_times(a, x)
    }

    fn eigenvalues(&self, symmetric: &DMatrix<f64>) -> Result<Solution, ComputeError> {
        let check = |answer: Answer| {
            let origin = self.by_kernel(&answer.kernel)?;
            let [values] = results(answer.results)?;
            checks::eigenvalues(symmetric, &values)?;
            Ok(Solution { values, provenance: origin })
        };
        match self.ask(&self.solves, &KernelCall::eigenvalues(symmetric), check) {
            Some(solution) => Ok(solution),
            None => self.cpu.eigenvalues(symmetric),
        }
    }

    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError> {
        let dim = symmetric.nrows();
        let check = |answer: Answer| {
            let [values, vectors] = results(answer.results)?;
            let vectors = DMatrix::from_vec(dim, dim, vectors);
            checks::eigenvectors(symmetric, &values, &vectors)?;
            Ok((values, vectors))
        };
        match self.ask(&self.solves, &KernelCall::eigenvectors(symmetric), check) {
            Some(solved) => Ok(solved),
            None => self.cpu.eigenvectors(symmetric),
        }
    }

    fn whiten(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let check = |answer: Answer| {
            let [solved] = results(answer.results)?;
            Ok(DMatrix::from_vec(b.nrows(), b.ncols(), solved))
        };
        match self.ask(&self.solves, &KernelCall::whiten(a, b), check) {
            Some(solved) => Ok(solved),
            None => self.cpu.whiten(a, b),
        }
    }
}

fn results<const N: usize>(results: Vec<Vec<f64>>) -> Result<[Vec<f64>; N], String> {
    let count = results.len();
    results.try_into().map_err(|_| format!("{count} results came, {N} were requested"))
}
