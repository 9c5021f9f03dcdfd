//! Symmetric band to tridiagonal: one column after another is cleared, and the bulge that this makes is chased off the
//! end of the band.
//!
//! Guarantees: orthogonal similarity by Householder reflections, 6 n^2 b flops on blocks of b x b that stay in the first
//! cache. Must not: allocate in the loops.
//!
//! Source: Lang, A parallel algorithm for reducing symmetric banded matrices to tridiagonal form, SIAM J. Sci. Comput. 14
//! (1993); the blocks are those of Haidar, Ltaief and Dongarra (SC 2011).

use super::super::vectors::{add_scaled, dot, multiply_add, wide};

/// A symmetric band matrix by columns of its lower half: entry (i, j) stands at j 2b + (i - j), 0 <= i - j < 2b. The half
/// beyond b is room for the bulge.
pub(super) struct Band {
    n: usize,
    bandwidth: usize,
    values: Vec<f64>,
}

impl Band {
    /// The zero matrix of order `n`.
    pub(super) fn zeros(n: usize, bandwidth: usize) -> Self {
        Self { n, bandwidth, values: vec![0.0; n * 2 * bandwidth] }
    }

    /// Entries (j, j), (j + 1, j) ... of column j, down to the bandwidth.
    pub(super) fn column_mut(&mut self, j: usize) -> &mut [f64] {
        let start = j * 2 * self.bandwidth;
        let length = (self.bandwidth + 1).min(self.n - j);
        &mut self.values[start..start + length]
    }

    /// Diagonal (n) and off-diagonal (n - 1) of the tridiagonal matrix with the same eigenvalues.
    pub(super) fn into_tridiagonal(mut self) -> (Vec<f64>, Vec<f64>) {
        let stride = 2 * self.bandwidth;
        chase(&mut self.values, self.n, self.bandwidth);
        let entries = |offset: usize, count: usize| (0..count).map(|j| self.values[j * stride + offset]).collect();
        (entries(0, self.n), entries(1, self.n - 1))
    }
}

/// Turns x into (beta, v_1, v_2 ...) and returns tau, so that I - tau v v^T, v_0 = 1, maps x to beta e_0 (Golub and Van
/// Loan, 5.1). Below the entry whose square underflows beside the others nothing is done.
#[inline(always)]
pub(super) fn reflector<const FUSED: bool>(x: &mut [f64]) -> f64 {
    let (first, rest) = x.split_at_mut(1);
    let below = dot::<FUSED>(rest, rest);
    if below == 0.0 {
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

wide!(fn chase(band: &mut [f64], n: usize, b: usize) = chase_body);

#[inline(always)]
fn chase_body<const FUSED: bool>(band: &mut [f64], n: usize, b: usize) {
    let stride = 2 * b;
    let (mut v, mut next, mut w) = (vec![0.0; b], vec![0.0; b], vec![0.0; b]);
    for column in 0..n.saturating_sub(2) {
        let (mut start, mut length) = (column + 1, b.min(n - column - 1));
        let mut tau = take_reflector::<FUSED>(&mut band[column * stride + 1..][..length], &mut v);
        loop {
            two_sided::<FUSED>(&mut band[start * stride..], stride, (&v[..length], tau), &mut w[..length]);
            let below = start + length;
            if below >= n {
                break;
            }
            // The block below: rows `below ..`, columns `start ..`. Its column j starts here:
            let at = |j: usize| (start + j) * stride + below - start - j;
            let height = b.min(n - below);
            let w = &mut w[..height];
            w.fill(0.0);
            for (j, v) in v[..length].iter().enumerate() {
                add_scaled::<FUSED>(w, *v, &band[at(j)..][..height]);
            }
            let first = &mut band[at(0)..][..height];
            add_scaled::<FUSED>(first, -tau, w);
            let next_tau = take_reflector::<FUSED>(first, &mut next);
            for (j, v) in v[..length].iter().enumerate().skip(1) {
                let column = &mut band[at(j)..][..height];
                add_scaled::<FUSED>(column, -tau * v, w);
                let along = dot::<FUSED>(column, &next[..height]);
                add_scaled::<FUSED>(column, -next_tau * along, &next[..height]);
            }
            std::mem::swap(&mut v, &mut next);
            (tau, start, length) = (next_tau, below, height);
        }
    }
}

/// Clears x but for its first entry; the reflector that does it goes to `v`.
#[inline(always)]
fn take_reflector<const FUSED: bool>(x: &mut [f64], v: &mut [f64]) -> f64 {
    let tau = reflector::<FUSED>(x);
    v[0] = 1.0;
    v[1..x.len()].copy_from_slice(&x[1..]);
    x[1..].fill(0.0);
    tau
}

/// D <- (I - tau v v^T) D (I - tau v v^T) on the diagonal block that `band` starts with: D - v w^T - w v^T with
/// w = tau D v - tau^2 / 2 (v^T D v) v.
#[inline(always)]
fn two_sided<const FUSED: bool>(band: &mut [f64], stride: usize, (v, tau): (&[f64], f64), w: &mut [f64]) {
    let length = v.len();
    w.fill(0.0);
    for j in 0..length {
        let column = &band[j * stride..][..length - j];
        let along = dot::<FUSED>(&column[1..], &v[j + 1..]);
        w[j] += multiply_add::<FUSED>(column[0], v[j], along);
        add_scaled::<FUSED>(&mut w[j + 1..], v[j], &column[1..]);
    }
    let half = -0.5 * tau * tau * dot::<FUSED>(w, v);
    for (w, v) in w.iter_mut().zip(v) {
        *w = multiply_add::<FUSED>(half, *v, tau * *w);
    }
    for j in 0..length {
        let column = &mut band[j * stride..][..length - j];
        let (minus_v, minus_w) = (-v[j], -w[j]);
        for ((x, v), w) in column.iter_mut().zip(&v[j..]).zip(&w[j..]) {
            *x = multiply_add::<FUSED>(minus_v, *w, multiply_add::<FUSED>(minus_w, *v, *x));
        }
    }
}
