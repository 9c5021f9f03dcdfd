//! libtorch on the CPU against faer: the same numbers, to derived tolerances, on every kind of matrix, rank-deficient ones
//! included; in this process, and through the worker.

use bytes::Bytes;
use fullrank::compute::torch::Torch;
use half::{bf16, f16};
use kernels::backend::{Backend, CenteredRows, ComputeError};
use kernels::cpu::Cpu;
use kernels::moments::Moments;
use kernels::provenance::{Device, Precision, Provenance};
use kernels::rows::{Float, Order, Rows};
use kernels::spectrum::{self, EigenProblem};
use nalgebra::DMatrix;

use crate::harness::gaussian;

const FLOATS: [Float; 4] = [Float::F64, Float::F32, Float::F16, Float::Bf16];

/// `rows` x `dim` values of a kind, row after row.
fn values(kind: &str, rows: usize, dim: usize) -> Vec<f64> {
    let normal: Vec<f64> = gaussian(rows, dim, (rows * dim) as u64).into_iter().map(f64::from).collect();
    let each = |f: &dyn Fn(usize, usize, f64) -> f64| -> Vec<f64> {
        normal.iter().enumerate().map(|(at, x)| f(at / dim, at % dim, *x)).collect()
    };
    match kind {
        "full rank" => normal,
        // Small integers, exact in every type: rank 3.
        "rank deficient" => each(&|i, k, _| {
            let (i, k) = (i as i64, k as i64);
            ((i % 3 - 1) * (k % 5 - 2) + (i % 5 - 2) * (k % 3 - 1) + (i % 7 - 3) * (k % 2)) as f64
        }),
        "constant" => each(&|_, k, _| k as f64 + 0.5),
        "outlier first" => each(&|i, _, x| if i == 0 { 0.0 } else { 100.0 + 0.125 * x }),
        "large mean" => each(&|_, k, x| 1000.0 + k as f64 + x),
        "relu" => each(&|_, _, x| x.max(0.0)),
        "graded" => each(&|_, k, x| x * 2f64.powi(-(k as i32) / 2)),
        other => panic!("no kind {other}"),
    }
}

const KINDS: [&str; 7] = ["full rank", "rank deficient", "constant", "outlier first", "large mean", "relu", "graded"];

/// N >= d, N < d, a single coordinate, a single row, several blocks with a rest.
const SHAPES: [(usize, usize); 6] = [(300, 24), (10, 40), (600, 1), (1, 5), (1300, 17), (512, 8)];

fn rows_of(values: &[f64], shape: (usize, usize), float: Float, order: Order) -> Rows {
    let at = |index: usize| match order {
        Order::RowMajor => values[index],
        Order::ColumnMajor => values[index % shape.0 * shape.1 + index / shape.0],
    };
    let numbers = (0..values.len()).map(at);
    let bytes: Vec<u8> = match float {
        Float::F64 => numbers.flat_map(f64::to_le_bytes).collect(),
        Float::F32 => numbers.flat_map(|x| (x as f32).to_le_bytes()).collect(),
        Float::F16 => numbers.flat_map(|x| f16::from_f64(x).to_le_bytes()).collect(),
        Float::Bf16 => numbers.flat_map(|x| bf16::from_f64(x).to_le_bytes()).collect(),
    };
    Rows::new(float, order, shape, Bytes::from(bytes)).unwrap()
}

fn every_matrix(mut with: impl FnMut(&str, &Rows)) {
    for kind in KINDS {
        for shape in SHAPES {
            let values = values(kind, shape.0, shape.1);
            for float in FLOATS {
                for order in [Order::RowMajor, Order::ColumnMajor] {
                    let name = format!("{kind} {shape:?} {float:?} {order:?}");
                    with(&name, &rows_of(&values, shape, float, order));
                }
            }
        }
    }
}

fn torch() -> Torch {
    Torch::open(Device::Torch, 2).unwrap()
}

/// The largest singular value of the difference of two scatters.
fn distance(a: &Moments, b: &Moments) -> f64 {
    (a.scatter().to_full() - b.scatter().to_full()).symmetric_eigenvalues().amax()
}

/// What f64 leaves: each of the centred rows carries a few roundings of its coordinate, sums of N products eps sqrt(N)
/// of theirs; 8 for both sides and their constants.
fn tolerance(rows: &Rows, moments: &Moments) -> f64 {
    let n = rows.len() as f64;
    let largest = moments.largest_mean_square().sqrt();
    let roundings = 4.0 * f64::EPSILON * largest;
    8.0 * f64::EPSILON * n.sqrt() * moments.scatter().trace()
        + rows.dim() as f64 * n * roundings * (roundings + (moments.total_variance() / n).sqrt())
}

#[test]
fn moments_in_f64_are_the_cpus() {
    let (torch, cpu) = (torch(), Cpu::new(2).unwrap());
    every_matrix(|name, rows| {
        let (a, b) = (torch.moments(rows, Precision::F64).unwrap(), cpu.moments(rows, Precision::F64).unwrap());
        assert!(
            distance(&a, &b) <= tolerance(rows, &b),
            "{name}: {:e} over {:e}",
            distance(&a, &b),
            tolerance(rows, &b)
        );
        let largest = b.largest_mean_square().sqrt();
        for (x, y) in a.mean().iter().zip(b.mean()) {
            assert!((x - y).abs() <= 8.0 * f64::EPSILON * largest, "{name}: {x} {y}");
        }
        assert_eq!((a.rows(), a.rounding()), (b.rows(), 0.0), "{name}");
        let origin = Provenance { device: Device::Torch, kernel: "f64" };
        assert_eq!(a.provenances().iter().collect::<Vec<_>>(), [&origin]);
    });
}

#[test]
fn moments_in_f32_are_within_the_rounding_that_they_state() {
    let (torch, cpu) = (torch(), Cpu::new(2).unwrap());
    let mut in_f32 = 0;
    every_matrix(|name, rows| {
        let exact = cpu.moments(rows, Precision::F64).unwrap();
        let fast = torch.moments(rows, Precision::Fast).unwrap();
        let stated = stated(&fast);
        assert!(distance(&fast, &exact) <= stated + tolerance(rows, &exact), "{name}: {:e}", distance(&fast, &exact));
        assert!(stated <= 1e-4 * exact.scatter().trace(), "{name}: {stated:e}");
        // Near a line, and where nothing varies: in f64 all the same.
        let kernel = fast.provenances().first().unwrap().kernel;
        assert!(kernel == "f32" || rows.dim() < 4 || !name.starts_with("full rank"), "{name}");
        in_f32 += usize::from(kernel == "f32");
        let auto = torch.moments(rows, Precision::Auto).unwrap();
        let lost = auto.rounding();
        assert!(lost <= spectrum::input_floor(rows.float(), &auto), "{name}: {lost:e}");
        let coarse = matches!(rows.float(), Float::F16 | Float::Bf16) || rows.holds_bf16();
        assert!(coarse || auto.provenances().first().unwrap().kernel == "f64", "{name}");
    });
    assert!(in_f32 > 50, "only {in_f32} by f32");
}

/// What the scatter states that it may be off by.
fn stated(moments: &Moments) -> f64 {
    moments.rounding() * moments.rows() as f64
}

#[test]
fn f32_products_neither_overflow_nor_vanish() {
    let (torch, cpu) = (torch(), Cpu::new(2).unwrap());
    let normal = values("full rank", 300, 12);
    for exponent in [-440, -130, -60, 60, 120, 440] {
        let scaled: Vec<f64> = normal.iter().map(|x| x * 2f64.powi(exponent)).collect();
        let rows = Rows::from_f64((300, 12), &scaled).unwrap();
        let (fast, exact) =
            (torch.moments(&rows, Precision::Fast).unwrap(), cpu.moments(&rows, Precision::F64).unwrap());
        let off = distance(&fast, &exact) / exact.scatter().trace();
        assert!(off <= 1e-6, "2^{exponent}: {off:e}");
    }
}

#[test]
fn many_slabs_are_one() {
    // 70 MiB of f64: two slabs.
    let shape = ((70 << 20) / (8 * 16), 16);
    let normal: Vec<f64> = gaussian(shape.0, shape.1, 3).into_iter().map(|x| 5.0 + f64::from(x)).collect();
    let rows = Rows::from_f64(shape, &normal).unwrap();
    let (a, b) =
        (torch().moments(&rows, Precision::F64).unwrap(), Cpu::new(2).unwrap().moments(&rows, Precision::F64).unwrap());
    assert!(distance(&a, &b) <= tolerance(&rows, &b), "{:e}", distance(&a, &b));
}

#[test]
fn eigenvalues_pass_the_checks_and_agree_with_the_cpus() {
    let (torch, cpu) = (torch(), Cpu::new(2).unwrap());
    every_matrix(|name, rows| {
        let moments = cpu.moments(rows, Precision::F64).unwrap();
        let problem = EigenProblem::covariance(&moments);
        if problem.is_zero() {
            return;
        }
        let solved = |backend: &dyn Backend| {
            let solution = backend.eigenvalues(problem.matrix()).unwrap();
            problem.check(solution.values).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let (a, b) = (solved(&torch), solved(&cpu));
        // The published floor of either side, and n eps of relative error.
        let relative = 2.0 * rows.dim() as f64 * f64::EPSILON;
        for (x, y) in a.values.iter().zip(&b.values) {
            assert!((x - y).abs() <= a.floor + b.floor + relative * y, "{name}: {x:e} {y:e}, floor {:e}", a.floor);
        }
        let rank = |values: &spectrum::Eigenvalues| values.values.iter().filter(|x| **x > 4.0 * values.floor).count();
        assert_eq!(rank(&a), rank(&b), "{name}");
    });
}

#[test]
fn products_and_factors_are_the_cpus() {
    let (torch, cpu) = (torch(), Cpu::new(2).unwrap());
    let matrix = |rows: usize, columns: usize| {
        DMatrix::from_fn(rows, columns, |i, j| ((i * i + 3 * j * i + 7 * j + 1) % 13) as f64 / 4.0 - 1.5)
    };
    // Rows of length k: k eps |a| |b| at most.
    let close = |a: &DMatrix<f64>, b: &DMatrix<f64>, size: f64, what: &str| {
        assert_eq!(a.shape(), b.shape(), "{what}");
        assert!((a - b).amax() <= 1e3 * f64::EPSILON * size, "{what}: {:e}", (a - b).amax());
    };
    for (d, n, m) in [(1, 1, 1), (5, 3, 4), (33, 70, 20), (64, 64, 1)] {
        let (x, y) = (matrix(d, n), matrix(d, m));
        let size = x.norm() * y.norm();
        close(&torch.inner(&x, &y).unwrap(), &cpu.inner(&x, &y).unwrap(), size, "inner");
        for outer in [true, false] {
            let of = |backend: &dyn Backend| backend.gram(&x, outer).unwrap().lower_triangle();
            close(&of(&torch), &of(&cpu), x.norm_squared(), "gram");
        }
        let positive = &x * x.transpose() + DMatrix::identity(d, d);
        // Only the lower triangle may be read.
        let lower = positive.lower_triangle();
        close(
            &torch.whiten(&lower, &y).unwrap(),
            &cpu.whiten(&lower, &y).unwrap(),
            positive.norm() * y.norm(),
            "whiten",
        );
        let (values, vectors) = torch.eigenvectors(&lower).unwrap();
        let (expected, _) = cpu.eigenvectors(&lower).unwrap();
        for (value, expected) in values.iter().zip(&expected) {
            assert!(
                (value - expected).abs() <= 1e2 * d as f64 * f64::EPSILON * expected.abs().max(1.0) * positive.norm()
            );
        }
        close(&(vectors.transpose() * &vectors), &DMatrix::identity(d, d), d as f64, "orthonormal");
        let back = &vectors * DMatrix::from_diagonal(&values.clone().into()) * vectors.transpose();
        close(&back, &positive, d as f64 * positive.norm(), "V D V^T");
        let solved = torch.eigenvalues(&lower).unwrap();
        assert_eq!(solved.provenance, Provenance { device: Device::Torch, kernel: "eigh" });
        let mut alone = solved.values;
        alone.sort_by(|a, b| b.total_cmp(a));
        for (value, with_vectors) in alone.iter().zip(&values) {
            assert!((value - with_vectors).abs() <= 1e2 * d as f64 * f64::EPSILON * positive.norm());
        }
    }
    let a = rows_of(&values("large mean", 700, 9), (700, 9), Float::F32, Order::RowMajor);
    let b = rows_of(&values("relu", 700, 9), (700, 9), Float::F16, Order::ColumnMajor);
    let exact = [&a, &b].map(|rows| cpu.moments(rows, Precision::F64).unwrap());
    let of = |backend: &dyn Backend| {
        backend.cross(CenteredRows::new(&a, &exact[0]), CenteredRows::new(&b, &exact[1])).unwrap()
    };
    close(&of(&torch), &of(&cpu), 700.0, "cross");
    let singular = DMatrix::from_element(3, 3, 1.0) - 2.0 * DMatrix::identity(3, 3);
    let refused = torch.whiten(&singular, &DMatrix::identity(3, 3)).unwrap_err();
    assert!(matches!(refused, ComputeError::NotPositiveDefinite { dim: 3 }), "{refused}");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let refused = Torch::open(Device::Cuda(63), 1).err().unwrap().to_string();
    assert!(refused.starts_with("cuda:63 is not available: "), "{refused}");
}

#[cfg(target_os = "linux")]
mod through_the_worker {
    use std::process::Command;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use fullrank::compute::worker::Supervised;
    use fullrank::compute::worker::process::{Launch, WorkerLaunches};

    use super::*;
    use crate::harness::{Server, gaussian_body};

    fn supervised() -> Supervised {
        let launch = Launch {
            program: env!("CARGO_BIN_EXE_fullrank").into(),
            arguments: ["compute-worker", "--device=torch-cpu", "--threads=2"].map(Into::into).to_vec(),
            environment: Vec::new(),
            device: Device::Torch,
            patience: Duration::from_secs(120),
        };
        let start = Instant::now();
        let workers = WorkerLaunches { sums: launch.clone(), solves: launch, budget: None };
        Supervised::start(workers, Cpu::new(1).unwrap(), &(Arc::new(move || start.elapsed()) as _)).unwrap()
    }

    #[test]
    fn the_worker_returns_what_libtorch_computed() {
        let (supervised, torch) = (supervised(), torch());
        supervised.on_event(Box::new(|event| panic!("{event:?}")));
        every_matrix(|name, rows| {
            let (a, b) =
                (supervised.moments(rows, Precision::F64).unwrap(), torch.moments(rows, Precision::F64).unwrap());
            // Another process may add in another order: its memory is aligned differently.
            assert!(distance(&a, &b) <= tolerance(rows, &b), "{name}: {:e}", distance(&a, &b));
            assert_eq!(a.provenances(), b.provenances(), "{name}");
            let (a, b) =
                (supervised.moments(rows, Precision::Fast).unwrap(), torch.moments(rows, Precision::Fast).unwrap());
            let both = stated(&a) + stated(&b);
            assert!(distance(&a, &b) <= both + tolerance(rows, &b), "{name}");
            let problem = EigenProblem::covariance(&b);
            if !problem.is_zero() {
                problem.check(supervised.eigenvalues(problem.matrix()).unwrap().values).unwrap();
            }
        });
    }

    #[test]
    fn a_report_names_libtorch() {
        let server = Server::with_backend(&[], Arc::new(supervised()));
        let report = server.report("?window=0&last=true", gaussian_body(64, 16, 1));
        assert_eq!(report["computed"]["device"], "torch-cpu");
        assert_eq!((&report["computed"]["kernel"], &report["computed"]["solver"]), (&"f64".into(), &"eigh".into()));
        assert_eq!(report["verdict"]["dimension"], "ok");
    }

    #[test]
    fn a_card_that_is_not_there_stops_the_start() {
        let serve = ["serve", "--listen=127.0.0.1:0", "--backend=torch-cuda:63"];
        let output = Command::new(env!("CARGO_BIN_EXE_fullrank")).args(serve).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(said.contains("--backend torch-cuda:63: cuda:63 is not available"), "{said}");
        assert!(said.contains("use cpu or auto"), "{said}");
    }
}
