//! Eigenvalues of a symmetric tridiagonal matrix, by the root-free QL iteration.
//!
//! Guarantees: errors of a few units of rounding of the largest eigenvalue. Must not: run forever.
//!
//! The rational form of the QL algorithm with implicit shifts by Pal, Walker and Kahan: it works with the squares of
//! the off-diagonal entries and takes one root per iteration, for the shift (Parlett, The Symmetric Eigenvalue Problem,
//! 1980, section 8.15). O(n^2): about two iterations per eigenvalue.

/// The most iterations per eigenvalue: two are usual.
const MOST_ITERATIONS: usize = 30;

/// Overwrites `diagonal` (n) with the eigenvalues, in no order, and destroys `off` (n - 1). `None` without convergence.
pub(super) fn eigenvalues(diagonal: &mut [f64], off: &mut [f64]) -> Option<()> {
    let unit = f64::EPSILON / 2.0;
    let n = diagonal.len();
    let mut first = 0;
    while first < n {
        let mut last = first;
        while last + 1 < n && off[last].abs() > unit * diagonal[last].abs().sqrt() * diagonal[last + 1].abs().sqrt() {
            last += 1;
        }
        let (block, off) = (&mut diagonal[first..=last], &mut off[first..last]);
        // QL finds the eigenvalues at the top first and keeps small ones accurate if they are there.
        if block[block.len() - 1].abs() < block[0].abs() {
            block.reverse();
            off.reverse();
        }
        for x in &mut *off {
            *x *= *x;
        }
        unreduced(block, off)?;
        first = last + 1;
    }
    Some(())
}

/// The eigenvalues of one block; `off` holds squares.
fn unreduced(diagonal: &mut [f64], off: &mut [f64]) -> Option<()> {
    let n = diagonal.len();
    let negligible = (f64::EPSILON / 2.0).powi(2);
    let mut iterations = MOST_ITERATIONS * n;
    for first in 0..n {
        loop {
            let mut last = first;
            while last + 1 < n {
                if off[last] <= negligible * (diagonal[last] * diagonal[last + 1]).abs() {
                    off[last] = 0.0;
                    break;
                }
                last += 1;
            }
            if last == first {
                break;
            }
            if last == first + 1 {
                (diagonal[first], diagonal[last]) = two_by_two(diagonal[first], off[first], diagonal[last]);
                off[first] = 0.0;
                break;
            }
            iterations = iterations.checked_sub(1)?;
            sweep(&mut diagonal[first..=last], &mut off[first..last]);
        }
    }
    Some(())
}

/// Eigenvalues of [[a, b], [b, c]] from a, b^2 and c, the smaller in magnitude first and without cancellation.
fn two_by_two(a: f64, b_squared: f64, c: f64) -> (f64, f64) {
    let half = (a + c) / 2.0;
    let radius = ((a - c) / 2.0).hypot(b_squared.sqrt());
    let large = half + radius.copysign(half);
    let small = if large == 0.0 { half - radius } else { (a / large) * c - b_squared / large };
    (small, large)
}

/// One QL step on an unreduced block, with the shift from its upper left corner.
fn sweep(diagonal: &mut [f64], off: &mut [f64]) {
    let last = diagonal.len() - 1;
    let root = off[0].sqrt();
    let slope = (diagonal[1] - diagonal[0]) / (2.0 * root);
    let shift = diagonal[0] - root / (slope + slope.hypot(1.0).copysign(slope));
    let (mut cosine, mut sine) = (1.0, 0.0);
    let mut gamma = diagonal[last] - shift;
    let mut p = gamma * gamma;
    for i in (0..last).rev() {
        let b = off[i];
        let r = p + b;
        if i + 1 < last {
            off[i + 1] = sine * r;
        }
        let (old_cosine, old_gamma) = (cosine, gamma);
        let inverse = r / p;
        cosine = p / r;
        sine = b / r;
        gamma = cosine * (diagonal[i] - shift) - sine * old_gamma;
        diagonal[i + 1] = old_gamma + (diagonal[i] - gamma);
        // gamma^2 / cosine, so that one division need not wait for another.
        p = if cosine < f64::MIN_POSITIVE { old_cosine * b } else { gamma * gamma * inverse };
    }
    off[0] = sine * p;
    diagonal[0] = shift + gamma;
}
