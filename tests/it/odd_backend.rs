//! The CPU backend with something done to it: held up, or its solver's answers spoilt.

use std::sync::{Arc, Mutex, PoisonError};

use kernels::backend::{Backend, CenteredRows, ComputeError, Solution};
use kernels::cpu::Cpu;
use kernels::moments::Moments;
use kernels::packed::Packed;
use kernels::provenance::{Device, Precision};
use kernels::rows::Rows;
use nalgebra::DMatrix;

type Eigenvalues = Result<Vec<f64>, ComputeError>;

/// See the file's head.
pub struct Odd {
    cpu: Cpu,
    before_moments: Box<dyn Fn() + Send + Sync>,
    spoil: Box<dyn Fn(Vec<f64>) -> Eigenvalues + Send + Sync>,
}

impl Odd {
    /// A backend whose eigenvalues pass through `spoil`.
    pub fn spoilt(spoil: impl Fn(Vec<f64>) -> Eigenvalues + Send + Sync + 'static) -> Arc<dyn Backend> {
        Arc::new(Self { cpu: Cpu::new(1).unwrap(), before_moments: Box::new(|| ()), spoil: Box::new(spoil) })
    }

    /// A backend that merges nothing while the gate is locked.
    pub fn gated(gate: Arc<Mutex<()>>) -> Arc<dyn Backend> {
        let wait = move || drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
        Arc::new(Self { cpu: Cpu::new(1).unwrap(), before_moments: Box::new(wait), spoil: Box::new(Ok) })
    }

    /// A backend that panics in place of taking moments while `when` says so.
    pub fn panicking(when: impl Fn() -> bool + Send + Sync + 'static) -> Arc<dyn Backend> {
        let panic = move || assert!(!when(), "on purpose: a fault of the kernel");
        Arc::new(Self { cpu: Cpu::new(1).unwrap(), before_moments: Box::new(panic), spoil: Box::new(Ok) })
    }
}

impl Backend for Odd {
    fn device(&self) -> Device {
        self.cpu.device()
    }

    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError> {
        (self.before_moments)();
        self.cpu.moments(rows, precision)
    }

    fn cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.cross(a, b)
    }

    fn gram(&self, x: &DMatrix<f64>, outer: bool) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.gram(x, outer)
    }

    fn inner(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.inner(a, b)
    }

    fn symmetric_times(&self, a: &Packed, x: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.symmetric_times(a, x)
    }

    fn eigenvalues(&self, symmetric: &DMatrix<f64>) -> Result<Solution, ComputeError> {
        let solved = self.cpu.eigenvalues(symmetric)?;
        Ok(Solution { values: (self.spoil)(solved.values)?, provenance: solved.provenance })
    }

    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError> {
        self.cpu.eigenvectors(symmetric)
    }

    fn whiten(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        self.cpu.whiten(a, b)
    }
}
