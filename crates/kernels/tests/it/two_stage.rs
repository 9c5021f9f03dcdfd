//! The two-stage eigensolver against faer's one-stage one, against closed forms, and on what breaks eigensolvers.

use faer::{MatRef, Side};
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::Rows;
use kernels::spectrum::EigenProblem;
use nalgebra::DMatrix;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// From where `Cpu` takes two stages; the sizes below are around it and no multiples of any block.
const SMALLEST: usize = 384;

fn solve(matrix: &DMatrix<f64>) -> Vec<f64> {
    let solution = Cpu::new(2).unwrap().eigenvalues(matrix).unwrap();
    let expected = if matrix.nrows() >= SMALLEST { "two-stage" } else { "faer" };
    assert_eq!(solution.provenance.kernel, expected);
    descending(solution.values)
}

fn by_faer(matrix: &DMatrix<f64>) -> Vec<f64> {
    let n = matrix.nrows();
    let view = MatRef::from_column_major_slice(matrix.as_slice(), n, n);
    descending(view.self_adjoint_eigenvalues(Side::Lower).unwrap())
}

fn descending(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

fn normal(rows: usize, columns: usize, seed: u64) -> DMatrix<f64> {
    let mut random = StdRng::seed_from_u64(seed);
    DMatrix::from_fn(rows, columns, |_, _| random.sample(StandardNormal))
}

/// Q D Q^T for a random product of reflections Q.
fn with_eigenvalues(values: &[f64], seed: u64) -> DMatrix<f64> {
    let n = values.len();
    let mut matrix = DMatrix::from_diagonal(&values.to_vec().into());
    for k in 0..3 {
        let v = normal(n, 1, seed + k).normalize();
        let w = &matrix * &v;
        let inner = v.dot(&w);
        let x = (w - &v * inner) * 2.0;
        matrix -= &v * x.transpose() + &x * v.transpose();
    }
    (&matrix + matrix.transpose()) / 2.0
}

/// LAPACK's test ratio: errors in units of eps |A|, by the square root of the order (independent roundings).
fn ratio(found: &[f64], expected: &[f64]) -> f64 {
    let norm = expected.iter().fold(0.0f64, |norm, x| norm.max(x.abs()));
    let error = found.iter().zip(expected).fold(0.0f64, |error, (a, b)| error.max((a - b).abs()));
    error / (f64::EPSILON * norm.max(f64::MIN_POSITIVE) * (found.len() as f64).sqrt())
}

/// faer's QR iteration errs by about n eps on large eigenvalues, which is more than what is tested here.
fn of_faer(n: usize) -> f64 {
    2.0 * (n as f64).sqrt()
}

/// Eigenvalues of the tridiagonal matrix with this diagonal and ones beside it, by bisection on Sturm's count
/// (Golub and Van Loan, 8.4.1): each to the last digit of the largest.
fn by_bisection(diagonal: &[f64]) -> Vec<f64> {
    let below = |x: f64| {
        let mut q = f64::INFINITY;
        diagonal
            .iter()
            .filter(|d| {
                q = *d - x - 1.0 / if q == 0.0 { f64::EPSILON } else { q };
                q < 0.0
            })
            .count()
    };
    let bound = diagonal.iter().fold(0.0f64, |bound, d| bound.max(d.abs())) + 2.0;
    let value = |k: usize| {
        let (mut low, mut high) = (-bound, bound);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if below(middle) > k { high = middle } else { low = middle }
        }
        high
    };
    descending((0..diagonal.len()).map(value).collect())
}

/// The largest ratio seen below is 1.5; LAPACK's own tests accept 30, without the square root.
const LARGEST_RATIO: f64 = 4.0;

#[test]
fn as_by_one_stage() {
    for (n, rank) in [(384, 384), (385, 5), (433, 433), (481, 100), (600, 600), (577, 1)] {
        let x = normal(n, rank, n as u64);
        let matrix = &x * x.transpose() / n as f64;
        let (found, expected) = (solve(&matrix), by_faer(&matrix));
        let ratio = ratio(&found, &expected);
        assert!(ratio <= of_faer(n), "order {n}, rank {rank}: {ratio}");
    }
}

#[test]
fn eigenvalues_that_are_known() {
    let n = 450;
    let known: Vec<(&str, Vec<f64>)> = vec![
        ("clustered", (0..n).map(|k| 1.0 + 1e-13 * (k % 7) as f64).collect()),
        ("two clusters", (0..n).map(|k| if k < 200 { 1.0 } else { 1e-9 }).collect()),
        ("graded", (0..n).map(|k| 10f64.powf(-16.0 * k as f64 / n as f64)).collect()),
        ("both signs", (0..n).map(|k| (k as f64 - 225.0) / 225.0).collect()),
        ("one large", (0..n).map(|k| if k == 0 { 1e6 } else { 1.0 }).collect()),
    ];
    for (name, values) in known {
        let ratio = ratio(&solve(&with_eigenvalues(&values, 5)), &descending(values));
        assert!(ratio <= LARGEST_RATIO, "{name}: {ratio}");
    }
}

#[test]
fn closed_forms() {
    let n = 500;
    // The second difference: 2 - 2 cos(pi k / (n + 1)).
    let laplacian = DMatrix::from_fn(n, n, |i, j: usize| match i.abs_diff(j) {
        0 => 2.0,
        1 => -1.0,
        _ => 0.0,
    });
    let expected = (1..=n).map(|k| 2.0 - 2.0 * (std::f64::consts::PI * k as f64 / (n + 1) as f64).cos()).collect();
    assert!(ratio(&solve(&laplacian), &descending(expected)) <= LARGEST_RATIO);
    // Wilkinson's matrix: pairs that agree to many digits.
    let wilkinson = DMatrix::from_fn(501, 501, |i, j: usize| match i.abs_diff(j) {
        0 => (i as f64 - 250.0).abs(),
        1 => 1.0,
        _ => 0.0,
    });
    let expected = by_bisection(wilkinson.diagonal().as_slice());
    assert!(ratio(&solve(&wilkinson), &expected) <= LARGEST_RATIO);
    // A diagonal, the identity, zero, one line, and a block of zeros.
    let diagonal = DMatrix::from_diagonal(&(0..n).map(|k| k as f64).collect::<Vec<_>>().into());
    assert_eq!(solve(&diagonal), (0..n).rev().map(|k| k as f64).collect::<Vec<_>>());
    assert_eq!(solve(&DMatrix::identity(n, n)), vec![1.0; n]);
    assert_eq!(solve(&DMatrix::zeros(n, n)), vec![0.0; n]);
    let ones = solve(&DMatrix::from_element(n, n, 1.0));
    assert!((ones[0] - n as f64).abs() <= LARGEST_RATIO * f64::EPSILON * n as f64 * (n as f64).sqrt());
    let mut block = DMatrix::zeros(n, n);
    let x = normal(300, 300, 9);
    block.view_mut((100, 100), (300, 300)).copy_from(&(&x * x.transpose()));
    assert!(ratio(&solve(&block), &by_faer(&block)) <= of_faer(n));
}

#[test]
fn only_the_lower_triangle_counts_and_threads_change_no_bit() {
    let x = normal(700, 500, 11);
    let mut matrix = x.transpose() * x;
    let one = Cpu::new(1).unwrap().eigenvalues(&matrix).unwrap();
    assert_eq!(one, Cpu::new(3).unwrap().eigenvalues(&matrix).unwrap());
    for j in 0..500 {
        for i in 0..j {
            matrix[(i, j)] = f64::NAN;
        }
    }
    assert_eq!(one, Cpu::new(2).unwrap().eigenvalues(&matrix).unwrap());
}

/// Layers with dead coordinates behind a bias, and one-hot rows: their reduction meets lengths whose squares underflow.
#[test]
fn constant_coordinates() {
    let backend = Cpu::new(2).unwrap();
    for (n, d) in [(600, 384), (600, 400), (431, 432), (2000, 400), (500, 481)] {
        let z = normal(n, d, (n + d) as u64);
        let populations = [
            ("half constant", DMatrix::from_fn(n, d, |i, k| if k % 2 == 0 { 0.5 } else { z[(i, k)] })),
            ("a third dead", DMatrix::from_fn(n, d, |i, k| if k % 3 == 0 { 0.1 } else { z[(i, k)] })),
            ("the first half dead", DMatrix::from_fn(n, d, |i, k| if k < d / 2 { 0.3 } else { z[(i, k)] })),
            ("one-hot", DMatrix::from_fn(n, d, |i, k| f64::from(i * 7 % d == k))),
            ("tiny columns", DMatrix::from_fn(n, d, |i, k| z[(i, k)] * if k < 100 { 1e-158 } else { 1.0 })),
        ];
        for (name, rows) in populations {
            let values: Vec<f64> = rows.transpose().iter().copied().collect();
            let rows = Rows::from_f64((n, d), &values).unwrap();
            let moments = backend.moments(&rows, Precision::F64).unwrap();
            for problem in [EigenProblem::covariance(&moments), EigenProblem::second_moment(&moments)] {
                let checked = problem.check(backend.eigenvalues(problem.matrix()).unwrap().values);
                assert!(checked.is_ok(), "{name}, {n} x {d}: {}", checked.unwrap_err());
            }
        }
    }
}
