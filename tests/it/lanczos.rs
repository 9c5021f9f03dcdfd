//! Estimates of spectra too large to be solved: against closed forms and exact spectra, their coverage, their bits.

use fullrank::analysis::lanczos::{Estimate, Kernels, Operator};
use fullrank::analysis::moments::{Moments, Packed};
use fullrank::compute::Backend;
use fullrank::compute::cpu::Cpu;
use nalgebra::DMatrix;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// In place, over sqrt(n): an orthogonal map.
fn hadamard(x: &mut [f64]) {
    let n = x.len();
    let mut half = 1;
    while half < n {
        for start in (0..n).step_by(2 * half) {
            for i in start..start + half {
                (x[i], x[i + half]) = (x[i] + x[i + half], x[i] - x[i + half]);
            }
        }
        half *= 2;
    }
    x.iter_mut().for_each(|x| *x /= (n as f64).sqrt());
}

/// Moments whose covariance has these eigenvalues (a power of two of them) along random directions: U diag U^T with
/// U = D_1 H D_2 H D_3, the D being random signs.
fn with_spectrum(eigenvalues: &[f64], seed: u64) -> Moments {
    let (d, rows) = (eigenvalues.len(), 4 * eigenvalues.len() as u64);
    let mut random = StdRng::seed_from_u64(seed);
    let signs: Vec<Vec<f64>> =
        (0..2).map(|_| (0..d).map(|_| if random.random() { 1.0 } else { -1.0 }).collect()).collect();
    let turn = |x: &mut [f64]| {
        for signs in &signs {
            hadamard(x);
            x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
        }
    };
    let mut matrix = DMatrix::from_fn(d, d, |i, j| if i == j { rows as f64 * eigenvalues[i] } else { 0.0 });
    for _ in 0..2 {
        matrix.as_mut_slice().chunks_exact_mut(d).for_each(turn);
        matrix.transpose_mut();
    }
    Moments::new(rows, vec![0.0; d], Packed::from_lower(&matrix))
}

fn estimate(operator: &Operator<'_>, backend: &dyn Backend) -> Estimate {
    let text = |error: fullrank::compute::ComputeError| error.to_string();
    let kernels = Kernels {
        times: &|a, x| backend.symmetric_times(a, x).map_err(text),
        eigenvectors: &|matrix| backend.eigenvectors(matrix).map_err(text),
    };
    Estimate::of(operator, &kernels).unwrap()
}

fn entropy_rank(eigenvalues: &[f64]) -> f64 {
    let total: f64 = eigenvalues.iter().sum();
    eigenvalues.iter().filter(|x| **x > 0.0).map(|x| -x / total * (x / total).ln()).sum::<f64>().exp()
}

fn rankme(eigenvalues: &[f64]) -> f64 {
    let total: f64 = eigenvalues.iter().map(|x| x.sqrt()).sum();
    eigenvalues.iter().map(|x| x.sqrt() / total + 1e-7).map(|q| -q * q.ln()).sum::<f64>().exp()
}

/// A name and d eigenvalues.
fn spectra(d: usize) -> Vec<(&'static str, Vec<f64>)> {
    let of = |f: &dyn Fn(usize) -> f64| (0..d).map(f).collect::<Vec<f64>>();
    // Marchenko and Pastur's law with as many rows as twice the dimension, by quantiles of a cosine: near enough.
    let edge = |i: usize| 1.0 + 0.5 + 2.0 * 0.5f64.sqrt() * (std::f64::consts::PI * (i as f64 + 0.5) / d as f64).cos();
    vec![
        ("isotropic", of(&edge)),
        ("1 / i", of(&|i| 1.0 / (i + 1) as f64)),
        ("i^-2", of(&|i| ((i + 1) as f64).powi(-2))),
        ("i^-0.5", of(&|i| ((i + 1) as f64).powf(-0.5))),
        ("line", of(&|i| if i == 0 { 1.0 } else { 1e-4 / d as f64 * (1.0 + (i % 7) as f64) })),
        ("clustered", of(&|i| if i < 50 { 1.0 } else { 0.01 + 1e-5 * i as f64 })),
        ("half dead", of(&|i| if 2 * i < d { 1.0 + 0.5 * (i as f64).sin() } else { 0.0 })),
        ("to zero", of(&|i| (1.0 - i as f64 / d as f64).powi(4))),
    ]
}

#[test]
fn experiment() {
    let backend = Cpu::new(2).unwrap();
    let d = std::env::var("D").map_or(512, |d| d.parse().unwrap());
    for (name, mut eigenvalues) in spectra(d) {
        eigenvalues.sort_by(|a, b| b.total_cmp(a));
        let moments = with_spectrum(&eigenvalues, 1);
        let now = std::time::Instant::now();
        let found = estimate(&Operator::covariance(&moments), &backend);
        let (truth, ranged) = (entropy_rank(&eigenvalues), found.entropy_rank());
        let (me, my) = (rankme(&eigenvalues), found.rankme(d, 1e-7));
        let width = |r: fullrank::analysis::lanczos::Ranged| (r.interval.1 - r.interval.0) / 2.0 / r.value;
        let inside = |t: f64, r: fullrank::analysis::lanczos::Ranged| r.interval.0 <= t && t <= r.interval.1;
        eprintln!(
            "{name:10} {:?} k {} D1 {truth:.3} {:.3} err {:+.1e} half {:.1e} {}  rankme {me:.3} {:.3} err {:+.1e} half {:.1e} {}",
            now.elapsed(),
            found.resolved().len(),
            ranged.value,
            ranged.value / truth - 1.0,
            width(ranged),
            inside(truth, ranged),
            my.value,
            my.value / me - 1.0,
            width(my),
            inside(me, my)
        );
    }
}

#[test]
fn coverage_experiment() {
    let backend = Cpu::new(2).unwrap();
    let d = 256;
    for (name, mut eigenvalues) in spectra(d) {
        eigenvalues.sort_by(|a, b| b.total_cmp(a));
        let (truth, me) = (entropy_rank(&eigenvalues), rankme(&eigenvalues));
        let mut out = [[0.0f64; 5]; 2];
        let n = 40;
        for seed in 0..n {
            let moments = with_spectrum(&eigenvalues, seed);
            let found = estimate(&Operator::covariance(&moments), &backend);
            for (out, (truth, r)) in out.iter_mut().zip([(truth, found.entropy_rank()), (me, found.rankme(d, 1e-7))]) {
                let half = (r.interval.1 - r.interval.0) / 2.0;
                out[0] += f64::from(u8::from(r.interval.0 <= truth && truth <= r.interval.1));
                out[1] += (r.value - truth) / half / n as f64;
                out[2] += ((r.value - truth) / half).powi(2) / n as f64;
                out[3] += half / truth / n as f64;
                out[4] += (r.value / truth - 1.0) / n as f64;
            }
        }
        eprintln!("{name:10} {out:.5?}");
    }
}
