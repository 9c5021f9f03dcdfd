//! The factorisation of one panel: b columns below the band become an upper triangle by b reflections.
//!
//! Guarantees: Q = I - V T V^T, V lower trapezoidal with ones on its diagonal, T upper triangular (Schreiber and Van Loan,
//! 1989). Must not: touch the rest of the matrix.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use super::super::vectors::{add_scaled, dot, wide};
use super::chase::reflector;

pub(super) struct Panel {
    pub(super) height: usize,
    /// V, column after column.
    pub(super) v: Vec<f64>,
    /// T.
    pub(super) t: Mat<f64>,
}

impl Panel {
    /// Factorises the m x b panel whose columns are stored one after another in `columns`; leaves R in it, with zeros
    /// below.
    pub(super) fn factor(columns: &mut [f64], height: usize) -> Self {
        let width = columns.len() / height;
        let count = width.min(height);
        let mut tau = vec![0.0; count];
        reflect(columns, height, &mut tau);
        let mut v = vec![0.0; count * height];
        for (k, (column, v)) in columns.chunks_exact_mut(height).zip(v.chunks_exact_mut(height)).enumerate() {
            v[k] = 1.0;
            v[k + 1..].copy_from_slice(&column[k + 1..]);
            column[k + 1..].fill(0.0);
        }
        let t = block_factor(&v, height, &tau);
        Self { height, v, t }
    }

    pub(super) fn count(&self) -> usize {
        self.t.nrows()
    }

    /// V, m x count.
    pub(super) fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice(&self.v, self.height, self.count())
    }
}

wide!(
    /// Householder QR of the columns: v below the diagonal, R on and above it.
    fn reflect(columns: &mut [f64], height: usize, tau: &mut [f64]) = reflect_body
);

#[inline(always)]
fn reflect_body<const FUSED: bool>(columns: &mut [f64], height: usize, tau: &mut [f64]) {
    for (k, tau) in tau.iter_mut().enumerate() {
        let (done, rest) = columns.split_at_mut((k + 1) * height);
        let v = &mut done[k * height + k..];
        *tau = reflector::<FUSED>(v);
        let beta = std::mem::replace(&mut v[0], 1.0);
        for column in rest.chunks_exact_mut(height) {
            let along = dot::<FUSED>(v, &column[k..]);
            add_scaled::<FUSED>(&mut column[k..], -*tau * along, v);
        }
        v[0] = beta;
    }
}

/// T of the reflections: t_kk = tau_k, T[..k, k] = -tau_k T[..k, ..k] V[.., ..k]^T v_k.
fn block_factor(v: &[f64], height: usize, tau: &[f64]) -> Mat<f64> {
    let count = tau.len();
    let view = MatRef::from_column_major_slice(v, height, count);
    let mut inner = Mat::<f64>::zeros(count, count);
    matmul(inner.as_mut(), Accum::Replace, view.transpose(), view, 1.0, Par::Seq);
    let mut t = Mat::<f64>::zeros(count, count);
    for k in 0..count {
        t[(k, k)] = tau[k];
        for i in 0..k {
            let sum: f64 = (i..k).map(|l| t[(i, l)] * inner[(l, k)]).sum();
            t[(i, k)] = -tau[k] * sum;
        }
    }
    t
}
