//! Eigenvalues by a second solver (Jacobi), and by nalgebra; the noise floor; what a solver's answer must satisfy.

use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::Rows;
use kernels::spectrum::{EigenProblem, SpectrumError};
use nalgebra::DMatrix;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Cyclic Jacobi (Golub and Van Loan, 8.5): rotations that zero one off-diagonal entry at a time until none is left.
fn jacobi(mut a: DMatrix<f64>) -> Vec<f64> {
    let n = a.nrows();
    for _sweep in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[(i, j)] * a[(i, j)]).sum();
        if off <= f64::MIN_POSITIVE {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, p, q);
            }
        }
    }
    let mut values: Vec<f64> = (0..n).map(|k| a[(k, k)]).collect();
    values.sort_by(|x, y| y.total_cmp(x));
    values
}

fn rotate(a: &mut DMatrix<f64>, p: usize, q: usize) {
    if a[(p, q)] == 0.0 {
        return;
    }
    let theta = (a[(q, q)] - a[(p, p)]) / (2.0 * a[(p, q)]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..a.nrows() {
        let (x, y) = (a[(k, p)], a[(k, q)]);
        a[(k, p)] = c * x - s * y;
        a[(k, q)] = s * x + c * y;
    }
    for k in 0..a.nrows() {
        let (x, y) = (a[(p, k)], a[(q, k)]);
        a[(p, k)] = c * x - s * y;
        a[(q, k)] = s * x + c * y;
    }
}

fn solve(matrix: &DMatrix<f64>) -> (Vec<f64>, f64) {
    let problem = EigenProblem::from_gram(matrix.clone(), matrix.nrows());
    let solved = problem.check(Cpu::new(1).unwrap().eigenvalues(problem.matrix()).unwrap().values).unwrap();
    (solved.values, solved.floor)
}

/// Small integers, so that the covariance of rows of rank r is known to have d - r zero eigenvalues.
fn integers(rows: usize, dim: usize, rank: usize, seed: u64) -> DMatrix<f64> {
    let mut random = StdRng::seed_from_u64(seed);
    let left = DMatrix::from_fn(rows, rank, |_, _| f64::from(random.random_range(-9i32..=9)));
    let right = DMatrix::from_fn(rank, dim, |_, _| f64::from(random.random_range(-9i32..=9)));
    left * right
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn three_solvers_agree(n in 1usize..24, rank in 1usize..24, seed in any::<u64>()) {
        let x = integers(n + 5, n, rank, seed);
        let matrix = x.transpose() * &x;
        let (values, floor) = solve(&matrix);
        let mut by_nalgebra: Vec<f64> = matrix.symmetric_eigenvalues().iter().copied().collect();
        by_nalgebra.sort_by(|a, b| b.total_cmp(a));
        for ((value, a), b) in values.iter().zip(jacobi(matrix.clone())).zip(by_nalgebra) {
            // The floor, and n eps of relative error on both sides; Jacobi's sweeps add up to more.
            let relative = n as f64 * f64::EPSILON * values[0];
            prop_assert!((value - a).abs() <= floor + 8.0 * relative, "jacobi {} {} floor {}", value, a, floor);
            prop_assert!((value - b).abs() <= floor + 2.0 * relative, "nalgebra {} {} floor {}", value, b, floor);
        }
    }
}

#[test]
fn the_noise_floor_is_never_under_the_error() {
    let backend = Cpu::new(2).unwrap();
    for (rows, dim, rank) in
        [(40, 16, 3), (300, 64, 8), (20_000, 64, 3), (2000, 128, 5), (600, 256, 64), (1500, 512, 100), (2500, 1024, 8)]
    {
        let z = integers(rows, dim, rank, dim as u64);
        let values: Vec<f64> = z.transpose().iter().copied().collect();
        let moments = backend.moments(&Rows::from_f64((rows, dim), &values).unwrap(), Precision::F64).unwrap();
        let problem = EigenProblem::covariance(&moments);
        let raw = backend.eigenvalues(problem.matrix()).unwrap().values;
        let solved = problem.check(raw.clone()).unwrap();
        // Rank r rows have r nonzero eigenvalues once centred; the others are pure error.
        let error = solved.values[rank..].iter().copied().fold(0.0, f64::max);
        let lowest = raw.iter().copied().fold(0.0, f64::min);
        assert!(error <= solved.floor, "{rows} x {dim}, rank {rank}: {error:e} over the floor {:e}", solved.floor);
        assert!(
            solved.floor <= 10.0 * error.max(-lowest),
            "{rows} x {dim}: a floor of {:e} for {error:e}",
            solved.floor
        );
        assert!(solved.values[rank - 1] > solved.floor, "the floor must not hide what is there");
        assert_eq!(solved.values.iter().filter(|value| **value > solved.floor).count(), rank);
    }
}

#[test]
fn extreme_scales_neither_overflow_nor_vanish() {
    let base = DMatrix::from_row_slice(2, 2, &[2.0, 1.0, 1.0, 2.0]);
    for exponent in [-1000, -500, 0, 500, 900] {
        let (values, _) = solve(&(&base * 2f64.powi(exponent)));
        for (value, want) in values.iter().zip([3.0, 1.0]) {
            assert!((value / 2f64.powi(exponent) - want).abs() < 1e-14, "2^{exponent}: {value:e}");
        }
    }
    assert_eq!(solve(&DMatrix::zeros(3, 3)).0, [0.0; 3]);
}

#[test]
fn a_wrong_answer_is_no_spectrum() {
    let problem = EigenProblem::from_gram(DMatrix::from_diagonal_element(3, 3, 1.0), 3);
    // Scaled for the solver: the diagonal is 1/2.
    let check = |values: &[f64]| problem.check(values.to_vec());
    assert_eq!(check(&[0.5, 0.5, 0.5]).unwrap().values, [1.0; 3]);
    assert!(matches!(check(&[0.5, 0.5]), Err(SpectrumError::WrongCount { .. })));
    assert!(matches!(check(&[0.5, f64::NAN, 0.5]), Err(SpectrumError::NotFinite)));
    assert!(matches!(check(&[0.5, 0.5, 0.6]), Err(SpectrumError::Mismatch { what: "the sum", .. })));
    assert!(matches!(check(&[0.75, 0.5, 0.25]), Err(SpectrumError::Mismatch { what: "the sum of squares", .. })));
    let indefinite = EigenProblem::from_gram(DMatrix::from_row_slice(2, 2, &[0.5, 1.0, 1.0, 0.5]), 2);
    assert!(matches!(indefinite.check(vec![0.75, -0.25]), Err(SpectrumError::Negative { .. })));
}
