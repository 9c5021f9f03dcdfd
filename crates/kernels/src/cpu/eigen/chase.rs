//! Symmetric band to tridiagonal: columns are cleared one after another, and the bulge that this creates is chased off
//! the end of the band.
//!
//! Guarantees: orthogonal similarity by Householder reflections, 6 n^2 b flops on blocks of b x b that stay in the
//! first cache; the same bits for any number of threads. Must not: allocate in the loops, or lock out of order.
//!
//! Based on Lang, A parallel algorithm for reducing symmetric banded matrices to tridiagonal form, SIAM J. Sci. Comput.
//! 14 (1993); the blocks are those of Haidar, Ltaief and Dongarra (SC 2011).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::vectors::{add_scaled, dot, multiply_add, wide};

/// A symmetric band matrix by columns of its lower half: entry (i, j) is at offset i - j < 2b of column j. The half
/// beyond b is room for the bulge. Each group of b columns has a lock: a block of the chase reaches into two groups.
pub(super) struct Band {
    n: usize,
    bandwidth: usize,
    groups: Vec<Mutex<Vec<f64>>>,
}

impl Band {
    /// The zero matrix of order `n`.
    pub(super) fn zeros(n: usize, bandwidth: usize) -> Self {
        let group = |_| Mutex::new(vec![0.0; 2 * bandwidth * bandwidth]);
        // One group more than the columns need, so that every block has two.
        Self { n, bandwidth, groups: (0..=n.div_ceil(bandwidth)).map(group).collect() }
    }

    /// Sets the entries (j, j), (j + 1, j) ... of column j, within the band.
    pub(super) fn set_column(&mut self, j: usize, below: &[f64]) {
        let length = below.len().min(self.bandwidth + 1);
        let group = self.groups[j / self.bandwidth].get_mut().unwrap_or_else(PoisonError::into_inner);
        group[j % self.bandwidth * 2 * self.bandwidth..][..length].copy_from_slice(&below[..length]);
    }

    /// Diagonal (n) and off-diagonal (n - 1) of the tridiagonal matrix with the same eigenvalues.
    pub(super) fn into_tridiagonal(self) -> (Vec<f64>, Vec<f64>) {
        let sweeps = self.n.saturating_sub(2);
        let threads = if self.n < TOGETHER_FROM { 1 } else { rayon::current_num_threads() };
        let order = ChaseOrder {
            next: AtomicUsize::new(0),
            done: (0..sweeps).map(|_| AtomicUsize::new(0)).collect(),
            threads: AtomicUsize::new(threads),
            stalls: AtomicUsize::new(0),
        };
        rayon::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| chase(&self, &order));
            }
            chase(&self, &order);
        });
        let stride = 2 * self.bandwidth;
        let columns = self.groups.into_iter().flat_map(|group| {
            let group = group.into_inner().unwrap_or_else(PoisonError::into_inner);
            group.chunks_exact(stride).map(|column| (column[0], column[1])).collect::<Vec<_>>()
        });
        let (diagonal, mut off): (Vec<f64>, Vec<f64>) = columns.take(self.n).unzip();
        off.truncate(self.n - 1);
        (diagonal, off)
    }

    /// Columns `start .. start + b`.
    fn block(&self, start: usize) -> Block<'_> {
        let lock = |group: usize| self.groups[group].lock().unwrap_or_else(PoisonError::into_inner);
        let group = start / self.bandwidth;
        let offset = start % self.bandwidth;
        Block {
            groups: [lock(group), lock(group + 1)],
            split: self.bandwidth - offset,
            offset,
            stride: 2 * self.bandwidth,
        }
    }
}

/// b neighbouring columns.
struct Block<'a> {
    groups: [MutexGuard<'a, Vec<f64>>; 2],
    /// Columns in the first group.
    split: usize,
    offset: usize,
    stride: usize,
}

impl Block<'_> {
    /// Column j of the block, from its diagonal entry on.
    #[inline(always)]
    fn column(&mut self, j: usize) -> &mut [f64] {
        let (group, at) = if j < self.split { (0, self.offset + j) } else { (1, j - self.split) };
        &mut self.groups[group][at * self.stride..(at + 1) * self.stride]
    }
}

/// Which thread clears which column, and how far each has come. A thread takes the next column only when it is free, so
/// the column before is finished or in the hands of a running thread: no thread waits for one that waits for a thread.
struct ChaseOrder {
    next: AtomicUsize,
    /// Finished blocks in each column's chase.
    done: Vec<AtomicUsize>,
    /// Threads that take columns, or are about to.
    threads: AtomicUsize,
    /// How often one was held up.
    stalls: AtomicUsize,
}

/// Marks a column's chase as done, even if its thread panics: the thread that waits for it goes on, and the panic is
/// passed on where all are joined.
struct Progress<'a>(&'a AtomicUsize);

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.0.store(usize::MAX, Ordering::Release);
    }
}

impl ChaseOrder {
    /// Waits until the chase of the column before has left the blocks up to `block` and the one after, which share
    /// entries.
    fn wait(&self, column: usize, block: usize) {
        let Some(before) = column.checked_sub(1) else { return };
        let mut spins = 0u32;
        while self.done[before].load(Ordering::Acquire) < block + 2 {
            spins = spins.saturating_add(1);
            if spins == SPINS * TURNS {
                self.stalls.fetch_add(1, Ordering::Relaxed);
            }
            if spins.is_multiple_of(SPINS) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    /// Whether this thread should leave the chase to the others: there are some, and the processor is needed elsewhere.
    fn leave(&self) -> bool {
        let others = |threads: usize| (threads > 1).then(|| threads - 1);
        self.stalls.load(Ordering::Relaxed) >= MOST_STALLS
            && self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, others).is_ok()
    }
}

/// Squares of lengths below this have lost digits to underflow, so a reflector made of them would not be orthogonal.
/// The matrix is scaled to entries around 1: what is dropped is below 1e-140.
const NEGLIGIBLE_SQUARE: f64 = 1e-280;

/// From this order on a second thread helps, if there is one.
const TOGETHER_FROM: usize = 1024;

/// Spins before a waiting thread yields, and yields before it counts as held up. A block takes about a microsecond, a
/// spin a few nanoseconds: sixteen yields are far more than any wait between running threads.
const SPINS: u32 = 64;
const TURNS: u32 = 16;
/// How often a chase is held up before all but one thread leave it: others need the processor, and threads that wait
/// for one another are then slower than one alone.
const MOST_STALLS: usize = 2;

/// Turns x into (beta, v_1, v_2 ...) and returns tau, so that I - tau v v^T, v_0 = 1, maps x to beta e_0 (Golub and Van
/// Loan, 5.1). Values that are too small are dropped instead.
#[inline(always)]
pub(super) fn reflector<const FUSED: bool>(x: &mut [f64]) -> f64 {
    let (first, rest) = x.split_at_mut(1);
    let below = dot::<FUSED>(rest, rest);
    if below < NEGLIGIBLE_SQUARE {
        rest.fill(0.0);
        return 0.0;
    }
    let alpha = first[0];
    let beta = -(alpha * alpha + below).sqrt().copysign(alpha);
    let scale = 1.0 / (alpha - beta);
    for x in rest {
        *x *= scale;
    }
    first[0] = beta;
    (beta - alpha) / beta
}

/// I - tau v v^T.
#[derive(Clone, Copy)]
struct Reflector<'a> {
    v: &'a [f64],
    tau: f64,
}

wide!(fn chase(band: &Band, order: &ChaseOrder) = chase_body);

#[inline(always)]
fn chase_body<const FUSED: bool>(band: &Band, order: &ChaseOrder) {
    let (n, b) = (band.n, band.bandwidth);
    let (mut v, mut next, mut w) = (vec![0.0; b], vec![0.0; b], vec![0.0; b]);
    while !order.leave() {
        let column = order.next.fetch_add(1, Ordering::Relaxed);
        let Some(done) = order.done.get(column).map(Progress) else { return };
        order.wait(column, 0);
        let (mut start, mut length) = (column + 1, b.min(n - column - 1));
        let mut tau = take_reflector::<FUSED>(&mut band.block(column).column(0)[1..=length], &mut v);
        for count in 0.. {
            order.wait(column, count);
            let mut block = band.block(start);
            let reflector = Reflector { v: &v[..length], tau };
            two_sided::<FUSED>(&mut block, reflector, &mut w[..length]);
            let below = start + length;
            if below >= n {
                break;
            }
            let height = b.min(n - below);
            let next_tau = push_on::<FUSED>(&mut block, reflector, &mut next[..height], &mut w[..height]);
            drop(block);
            done.0.store(count + 1, Ordering::Release);
            std::mem::swap(&mut v, &mut next);
            (tau, start, length) = (next_tau, below, height);
        }
    }
}

/// B <- (I - tau' u u^T) B (I - tau v v^T) on the block below the diagonal one, where u clears its first column; returns
/// tau'.
#[inline(always)]
fn push_on<const FUSED: bool>(block: &mut Block<'_>, by: Reflector<'_>, u: &mut [f64], w: &mut [f64]) -> f64 {
    let Reflector { v, tau } = by;
    let (length, height) = (v.len(), u.len());
    // Row `length` of the block is the first one below: that far from the diagonal entry of its column.
    let rows = |j: usize| length - j..length - j + height;
    w.fill(0.0);
    for (j, v) in v.iter().enumerate() {
        add_scaled::<FUSED>(w, *v, &block.column(j)[rows(j)]);
    }
    let first = &mut block.column(0)[rows(0)];
    add_scaled::<FUSED>(first, -tau, w);
    let next_tau = take_reflector::<FUSED>(first, u);
    for (j, v) in v.iter().enumerate().skip(1) {
        let column = &mut block.column(j)[rows(j)];
        add_scaled::<FUSED>(column, -tau * v, w);
        let along = dot::<FUSED>(column, u);
        add_scaled::<FUSED>(column, -next_tau * along, u);
    }
    next_tau
}

/// Clears all of x but its first entry; stores the reflector in `v`.
#[inline(always)]
fn take_reflector<const FUSED: bool>(x: &mut [f64], v: &mut [f64]) -> f64 {
    let tau = reflector::<FUSED>(x);
    v[0] = 1.0;
    v[1..x.len()].copy_from_slice(&x[1..]);
    x[1..].fill(0.0);
    tau
}

/// D <- (I - tau v v^T) D (I - tau v v^T) on the diagonal block: D - v w^T - w v^T with
/// w = tau D v - tau^2 / 2 (v^T D v) v.
#[inline(always)]
fn two_sided<const FUSED: bool>(block: &mut Block<'_>, by: Reflector<'_>, w: &mut [f64]) {
    let Reflector { v, tau } = by;
    let length = v.len();
    w.fill(0.0);
    for j in 0..length {
        let column = &block.column(j)[..length - j];
        let along = dot::<FUSED>(&column[1..], &v[j + 1..]);
        w[j] += multiply_add::<FUSED>(column[0], v[j], along);
        add_scaled::<FUSED>(&mut w[j + 1..], v[j], &column[1..]);
    }
    let half = -0.5 * tau * tau * dot::<FUSED>(w, v);
    for (w, v) in w.iter_mut().zip(v) {
        *w = multiply_add::<FUSED>(half, *v, tau * *w);
    }
    for j in 0..length {
        let (minus_v, minus_w) = (-v[j], -w[j]);
        for ((x, v), w) in block.column(j)[..length - j].iter_mut().zip(&v[j..]).zip(&w[j..]) {
            *x = multiply_add::<FUSED>(minus_v, *w, multiply_add::<FUSED>(minus_w, *v, *x));
        }
    }
}
