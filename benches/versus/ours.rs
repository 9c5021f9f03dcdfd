//! Our side, and the arrays that both sides read.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use fullrank::analysis::measures::{RankMe, Solved, measure};
use fullrank::analysis::window::Accumulator;
use half::bf16;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::{Precision, kernels};
use kernels::rows::{Float, Order, Rows};
use kernels::spectrum::{EigenProblem, Spectrum, input_floor};
use kernels::uniformity;
use nalgebra::DMatrix;

use crate::THREADS;

pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// A row-major array in a file and in memory.
pub struct Array {
    pub path: PathBuf,
    pub dtype: &'static str,
    pub shape: (usize, usize),
    pub rows: Rows,
}

impl Array {
    fn new(path: PathBuf, float: Float, shape: (usize, usize), bytes: Vec<u8>) -> Self {
        std::fs::write(&path, &bytes).expect("room for the arrays");
        let dtype = match float {
            Float::F64 => "float64",
            Float::F32 => "float32",
            Float::F16 => "float16",
            Float::Bf16 => "bfloat16",
        };
        let rows = Rows::new(float, Order::RowMajor, shape, Bytes::from(bytes)).expect("the sizes agree");
        Self { path, dtype, shape, rows }
    }

    /// What a healthy layer looks like: a power law of variances, and a mean.
    pub fn embeddings(folder: &Path, name: &str, shape: (usize, usize), float: Float) -> Self {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let scale: Vec<f32> = (1..=shape.1).map(|k| (k as f32).powf(-0.4)).collect();
        let mut bytes = Vec::with_capacity(shape.0 * shape.1 * float.size());
        for _ in 0..shape.0 {
            for scale in &scale {
                let x = scale * (random.normal() + 0.1);
                match float {
                    Float::Bf16 => bytes.extend(bf16::from_f32(x).to_le_bytes()),
                    _ => bytes.extend(x.to_le_bytes()),
                }
            }
        }
        Self::new(folder.join(name), float, shape, bytes)
    }

    /// The covariance of twice as many normal rows as coordinates.
    pub fn covariance(folder: &Path, dim: usize) -> Self {
        let rows = Self::embeddings(folder, "rows", (2 * dim, dim), Float::F32).rows;
        let moments = Cpu::new(THREADS).expect("threads").moments(&rows, Precision::F64).expect("no device to fail");
        let matrix = EigenProblem::covariance(&moments).matrix().clone();
        let full = DMatrix::from_fn(dim, dim, |i, j| matrix[(i.max(j), i.min(j))]);
        let bytes = full.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self::new(folder.join(format!("s{dim}")), Float::F64, (dim, dim), bytes)
    }

    pub fn matrix(&self) -> DMatrix<f64> {
        let mut values = vec![0.0; self.shape.0 * self.shape.1];
        self.rows.read(0, self.shape.0, &mut values);
        crate::square(values)
    }
}

/// Numbers that look normal enough: the sum of four uniform ones.
struct Random(u64);

impl Random {
    fn normal(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let parts = self.0.to_le_bytes();
        let sum: f32 = parts.as_chunks::<2>().0.iter().map(|part| f32::from(u16::from_le_bytes(*part))).sum();
        (sum / 65_536.0 - 2.0) * 3f32.sqrt()
    }
}

pub struct Ours {
    pub backend: Cpu,
    window: Option<Accumulator>,
    batches: Vec<Rows>,
    next: usize,
}

impl Ours {
    pub fn new() -> Self {
        Self { backend: Cpu::new(THREADS).expect("threads"), window: None, batches: vec![], next: 0 }
    }

    pub fn seconds(&self, work: impl FnOnce(&Self)) -> f64 {
        seconds(|| work(self))
    }

    pub fn eigenvalues(&self, matrix: &DMatrix<f64>) -> Vec<f64> {
        let mut values = self.backend.eigenvalues(matrix).expect("it converges").values;
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }

    /// RankMe of rows, from nothing: sums, eigenvalues, checks, the measure. With the kernel that summed.
    pub fn rankme(&self, rows: &Rows, precision: Precision) -> (f64, String) {
        let moments = self.backend.moments(rows, precision).expect("no device to fail");
        let kernel = kernels(moments.provenances());
        let problem = EigenProblem::second_moment(&moments);
        let solved = problem.check(self.backend.eigenvalues(problem.matrix()).expect("it converges").values);
        let solved = Solved { second_moment: Some(solved.expect("its spectrum")), ..Solved::default() };
        let window = Accumulator::from_views(&[first_row(rows)], moments, None, 1);
        (measure(&window, &solved, RankMe::default()).measures.rankme.expect("eigenvalues are there"), kernel)
    }

    /// A window of all rows, in batches.
    pub fn fill_window(&mut self, rows: &Rows, batch: usize) {
        let mut scratch = Vec::new();
        for first in (0..rows.len()).step_by(batch) {
            let bytes = Bytes::copy_from_slice(rows.block(first, batch, &mut scratch));
            self.batches.push(Rows::new(rows.float(), Order::RowMajor, (batch, rows.dim()), bytes).expect("sizes"));
        }
        for _ in 0..self.batches.len() {
            self.add_batch();
        }
    }

    fn add_batch(&mut self) {
        let rows = &self.batches[self.next % self.batches.len()];
        self.next += 1;
        let moments = self.backend.moments(rows, Precision::Auto).expect("no device to fail");
        let batch = Accumulator::from_views(std::slice::from_ref(rows), moments, None, 4096);
        match &mut self.window {
            Some(window) => window.merge(&batch),
            None => self.window = Some(batch),
        }
    }

    /// Where the time of a batch goes: its moments, its other sums and row sample, the merge, the measures.
    pub fn parts(&mut self) -> [f64; 4] {
        let rows = self.batches[self.next % self.batches.len()].clone();
        self.next += 1;
        let (mut moments, mut batch) = (None, None);
        let sums = seconds(|| moments = Some(self.backend.moments(&rows, Precision::Auto).expect("no device to fail")));
        let pass = seconds(|| {
            let moments = moments.take().expect("just made");
            batch = Some(Accumulator::from_views(std::slice::from_ref(&rows), moments, None, 4096));
        });
        let window = self.window.as_mut().expect("batches were added");
        let merge = seconds(|| window.merge(&batch.expect("just made")));
        let measures =
            seconds(|| assert!(measure(window, &Solved::default(), RankMe::default()).measures.stable_rank.is_some()));
        [sums, pass, merge, measures]
    }

    /// Seconds of one batch and the measures of the window so far; with `spectrum` its eigenvalues and RankMe's too.
    pub fn step(&mut self, spectrum: bool) -> f64 {
        seconds(|| {
            self.add_batch();
            let window = self.window.as_ref().expect("a batch was added");
            let mut solved = Solved::default();
            if spectrum {
                let moments = &window.moments;
                let eigenvalues = |problem: EigenProblem<'_>| {
                    let raw = self.backend.eigenvalues(problem.matrix()).expect("it converges").values;
                    problem.check(raw).expect("its spectrum")
                };
                let values = eigenvalues(EigenProblem::covariance(moments));
                let floor = input_floor(window.float, moments);
                solved.spectrum =
                    Some(Spectrum { values: values.values, numeric_floor: values.floor, input_floor: floor });
                solved.second_moment = Some(eigenvalues(EigenProblem::second_moment(moments)));
            }
            let measured = measure(window, &solved, RankMe::default()).measures;
            assert!(measured.stable_rank.is_some() && measured.rankme.is_some() == spectrum);
        })
    }

    /// Uniformity from nothing, and half its interval.
    pub fn uniformity(&self, rows: &Rows) -> (f64, f64) {
        let reservoir = kernels::reservoir::Reservoir::from_rows(rows, kernels::reservoir::CAPACITY);
        let unit = uniformity::UnitRows::from_sample(&reservoir, rows.dim());
        let found = uniformity::uniformity(&unit, |a, b| self.backend.inner(a, b)).expect("no device to fail");
        let found = found.expect("many rows");
        (found.value, found.interval.map_or(0.0, |(low, high)| (high - low) / 2.0))
    }
}

fn first_row(rows: &Rows) -> Rows {
    let mut scratch = Vec::new();
    let bytes = Bytes::copy_from_slice(rows.block(0, 1, &mut scratch));
    Rows::new(rows.float(), Order::RowMajor, (1, rows.dim()), bytes).expect("sizes")
}
