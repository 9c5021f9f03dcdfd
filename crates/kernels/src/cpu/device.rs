//! The processor: its threads, its tiles, and how a product is split between them.

use std::ops::Range;
use std::sync::Arc;

use faer::MatMut;
use nalgebra::DMatrix;
use rayon::ThreadPool;

use super::tiles::Tiles;
use crate::backend::ComputeError;
use crate::priority::{ACCUMULATE_NICENESS, SPECTRUM_NICENESS, give_way};

/// A product with fewer multiply-adds is not worth a second thread.
const PARALLEL_FROM: usize = 1 << 22;

/// faer on this machine's cores.
pub struct Cpu {
    pub(super) pool: Arc<ThreadPool>,
    /// For eigenvalues, which may take seconds.
    pub(super) solvers: Arc<ThreadPool>,
    pub(super) tiles: Tiles,
}

impl Cpu {
    /// A backend whose large products run on `threads` threads of its own.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, ComputeError> {
        let pool = |name: &'static str, niceness| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads.max(1))
                .thread_name(move |i| format!("{name}-{i}"))
                .start_handler(move |_| give_way(niceness))
                .build();
            pool.map(Arc::new).map_err(|e| ComputeError::Device(format!("cannot start {threads} threads: {e}")))
        };
        Ok(Self {
            pool: pool("kernel", ACCUMULATE_NICENESS)?,
            solvers: pool("solver", SPECTRUM_NICENESS)?,
            tiles: Tiles::detect(),
        })
    }

    pub(super) fn threads_for(&self, multiply_adds: usize) -> usize {
        if multiply_adds < PARALLEL_FROM { 1 } else { self.pool.current_num_threads() }
    }
}

impl Cpu {
    /// Runs `work` on each strip of whole columns, one thread per strip.
    pub(super) fn by_strips<F>(&self, product: &mut DMatrix<f64>, strips: &[Range<usize>], work: F)
    where
        F: Fn(Range<usize>, MatMut<'_, f64>) + Sync,
    {
        let n = product.nrows();
        let mut rest = product.as_mut_slice();
        let mut parts = Vec::new();
        for strip in strips {
            let (mine, others) = rest.split_at_mut(n * strip.len());
            rest = others;
            parts.push((strip.clone(), mine));
        }
        let run = |(columns, slice): (Range<usize>, &mut [f64])| {
            let width = columns.len();
            work(columns, MatMut::from_column_major_slice_mut(slice, n, width));
        };
        if parts.len() == 1 {
            parts.into_iter().for_each(run);
            return;
        }
        self.pool.scope(|scope| {
            for part in parts {
                let run = &run;
                scope.spawn(move |_| run(part));
            }
        });
    }
}

/// Column ranges of a lower triangle with equal areas: the first t of p strips end at n (1 - sqrt(1 - t / p)).
pub(super) fn triangle_strips(n: usize, parts: usize) -> Vec<Range<usize>> {
    strips(n, parts, |share| 1.0 - (1.0 - share).sqrt())
}

pub(super) fn even_strips(n: usize, parts: usize) -> Vec<Range<usize>> {
    strips(n, parts, |share| share)
}

fn strips(n: usize, parts: usize, end: impl Fn(f64) -> f64) -> Vec<Range<usize>> {
    let ends: Vec<usize> = (0..=parts).map(|t| (end(t as f64 / parts as f64) * n as f64).round() as usize).collect();
    ends.windows(2).map(|pair| pair[0]..pair[1]).collect()
}
