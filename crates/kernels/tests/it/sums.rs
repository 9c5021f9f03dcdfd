//! The kernels that are faster than f64: right, as repeatable, chosen only where they lose nothing, and with a noise floor
//! that is neither under what they lose nor far above it.

use half::{bf16, f16};
use kernels::backend::{Backend, CenteredRows};
use kernels::cpu::Cpu;
use kernels::moments::Moments;
use kernels::provenance::{Precision, kernels};
use kernels::rows::{Float, Order, Rows};
use kernels::spectrum::input_floor;
use nalgebra::DMatrix;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// Rows of the given type; values are rounded to it.
fn rows(z: &DMatrix<f64>, float: Float) -> Rows {
    let values = z.transpose();
    let bytes: Vec<u8> = match float {
        Float::F64 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Float::F32 => values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
        Float::F16 => values.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect(),
        Float::Bf16 => values.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()).collect(),
    };
    Rows::new(float, Order::RowMajor, z.shape(), bytes.into()).unwrap()
}

fn normal(rows: usize, dim: usize, seed: u64) -> DMatrix<f64> {
    let mut random = StdRng::seed_from_u64(seed);
    DMatrix::from_fn(rows, dim, |_, _| random.sample(StandardNormal))
}

/// What real layers look like, and the extremes: a name and N x d rows.
fn populations(n: usize, d: usize) -> Vec<(&'static str, DMatrix<f64>)> {
    let z = normal(n, d, 1);
    let scaled = |scale: &dyn Fn(usize) -> f64| DMatrix::from_fn(n, d, |i, k| z[(i, k)] * scale(k));
    let mixed = normal(d, d, 2) / (d as f64).sqrt();
    let law = scaled(&|k| 1.0 / ((k + 1) as f64).sqrt());
    let line = DMatrix::from_fn(n, d, |i, k| z[(i, 0)] * (1.0 + 0.1 * (k % 7) as f64) + 1e-3 * z[(i, k)]);
    vec![
        ("isotropic", z.clone()),
        ("law along the axes", law.clone()),
        ("law, rotated", &law * &mixed),
        ("low rank", normal(n, 8, 3) * normal(8, d, 4)),
        ("line", line),
        ("one large coordinate", scaled(&|k| if k == 0 { 30.0 } else { 1.0 })),
        ("offset", z.map(|x| x + 1.0)),
        ("far offset", z.map(|x| x + 300.0)),
        ("relu", z.map(|x| x.max(0.0))),
    ]
}

fn covariance(moments: &Moments) -> DMatrix<f64> {
    moments.scatter().to_full() / moments.rows() as f64
}

fn descending(symmetric: &DMatrix<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = symmetric.symmetric_eigenvalues().iter().copied().collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

const SHAPES: [(usize, usize); 5] = [(512, 64), (700, 96), (4096, 128), (16_384, 64), (300, 200)];

#[test]
fn the_floor_is_what_a_fast_kernel_loses() {
    let backend = Cpu::new(2).unwrap();
    for (n, d) in SHAPES {
        for (name, z) in populations(n, d) {
            for float in [Float::F32, Float::Bf16, Float::F16] {
                let rows = rows(&z, float);
                let exact = covariance(&backend.moments(&rows, Precision::F64).unwrap());
                let moments = backend.moments(&rows, Precision::Fast).unwrap();
                let fast = covariance(&moments);
                let (truth, found) = (descending(&exact), descending(&fast));
                let floor = moments.rounding();
                let what = format!("{name}, {n} x {d} {float:?} by {}", kernels(moments.provenances()));
                for (truth, found) in truth.iter().zip(&found) {
                    let error = (truth - found).abs();
                    assert!(
                        error <= 0.2 * truth || truth.max(error) <= floor + 1e-14 * fast.trace(),
                        "{what}: {found:e} for {truth:e}, floor {floor:e}"
                    );
                }
                let error = (fast - exact).symmetric_eigenvalues().amax();
                // Values of few digits may happen to be summed exactly.
                if float == Float::F32 {
                    assert!(floor <= 10.0 * error, "{what}: a floor of {floor:e} for {error:e}");
                }
            }
        }
    }
}

/// The loud one's errors are those of its own size, whatever is merged with it.
#[test]
fn a_loud_batch_among_quiet_ones_keeps_its_floor() {
    let backend = Cpu::new(2).unwrap();
    let (n, d) = (1024, 96);
    for (name, loud) in populations(n, d) {
        let batches: Vec<Rows> = std::iter::once(loud * 1e3)
            .chain((0..30).map(|k| normal(n, d, 100 + k)))
            .map(|z| rows(&z, Float::F32))
            .collect();
        let merged = |precision| {
            let mut merged = Moments::empty(d);
            batches.iter().for_each(|batch| merged.merge(&backend.moments(batch, precision).unwrap()));
            merged
        };
        let (fast, exact) = (merged(Precision::Fast), merged(Precision::F64));
        let error = (covariance(&fast) - covariance(&exact)).symmetric_eigenvalues().amax();
        let floor = fast.rounding();
        assert!(error <= floor && floor <= 10.0 * error, "{name}: a floor of {floor:e} for {error:e}");
    }
}

#[test]
fn auto_loses_less_than_the_type_has() {
    let backend = Cpu::new(2).unwrap();
    let mut fast = 0;
    for (n, d) in SHAPES {
        for (name, z) in populations(n, d) {
            for float in [Float::F64, Float::F32, Float::Bf16, Float::F16] {
                let moments = backend.moments(&rows(&z, float), Precision::Auto).unwrap();
                let (rounding, input) = (moments.rounding(), input_floor(float, &moments));
                assert!(rounding <= input, "{name}, {n} x {d} {float:?}: {rounding:e} over {input:e}");
                fast += usize::from(kernels(moments.provenances()) != "f64");
            }
        }
    }
    assert!(fast >= SHAPES.len() * 5, "only {fast} batches of bf16 by a fast kernel");
}

#[test]
fn a_line_is_summed_in_f64() {
    let backend = Cpu::new(1).unwrap();
    let (_, line) = populations(600, 64).remove(4);
    for precision in [Precision::Auto, Precision::Fast] {
        let moments = backend.moments(&rows(&line, Float::Bf16), precision).unwrap();
        assert_eq!(kernels(moments.provenances()), "f64");
    }
}

#[test]
fn f32_that_holds_bf16_is_taken_as_bf16() {
    let backend = Cpu::new(1).unwrap();
    let z = normal(600, 64, 5).map(|x| bf16::from_f64(x).to_f64());
    let of = |float| backend.moments(&rows(&z, float), Precision::Auto).unwrap();
    assert_eq!(of(Float::F32), of(Float::Bf16));
    assert_ne!(kernels(of(Float::F32).provenances()), "f64");
    // The size of an evaluation, in batches.
    let rows = rows(&normal(2048, 512, 6), Float::Bf16);
    assert_ne!(kernels(backend.moments(&rows, Precision::Auto).unwrap().provenances()), "f64");
}

#[test]
fn threads_and_order_in_memory_change_no_bit() {
    let z = normal(1100, 200, 6);
    let one = Cpu::new(1).unwrap();
    let three = Cpu::new(3).unwrap();
    for float in [Float::F64, Float::F32, Float::Bf16] {
        let by_rows = rows(&z, float);
        let by_columns = {
            let turned = rows(&z.transpose(), float);
            let mut scratch = Vec::new();
            let bytes = turned.block(0, 200, &mut scratch).to_vec();
            Rows::new(float, Order::ColumnMajor, (1100, 200), bytes.into()).unwrap()
        };
        for precision in [Precision::F64, Precision::Fast] {
            let reference = one.moments(&by_rows, precision).unwrap();
            assert_eq!(reference, three.moments(&by_rows, precision).unwrap(), "{float:?}");
            assert_eq!(reference, three.moments(&by_columns, precision).unwrap(), "{float:?} by columns");
        }
    }
}

#[test]
fn what_f32_cannot_hold_is_summed_in_f64() {
    let backend = Cpu::new(1).unwrap();
    for scale in [1e-30, 1e30] {
        let z = normal(600, 16, 7) * scale;
        let moments = backend.moments(&rows(&z, Float::F32), Precision::Fast).unwrap();
        assert_eq!(kernels(moments.provenances()), "f64", "{scale:e}");
        let variance = moments.total_variance() / (16.0 * scale * scale);
        assert!((variance - 1.0).abs() < 0.1, "{scale:e}: {variance}");
    }
}

/// The cross moments, against plain sums.
#[test]
fn cross_moments() {
    let backend = Cpu::new(2).unwrap();
    let (a, b) = (normal(700, 60, 8).map(|x| x + 3.0), normal(700, 60, 9).map(|x| x - 2.0));
    for (float, tolerance) in [(Float::F64, 1e-12), (Float::F32, 1e-12), (Float::Bf16, 1e-6)] {
        let (rows_a, rows_b) = (rows(&a, float), rows(&b, float));
        let of = |rows: &Rows| backend.moments(rows, Precision::Auto).unwrap();
        let (of_a, of_b) = (of(&rows_a), of(&rows_b));
        let product = backend.cross(CenteredRows::new(&rows_a, &of_a), CenteredRows::new(&rows_b, &of_b)).unwrap();
        let read = |rows: &Rows| {
            let mut values = vec![0.0; 700 * 60];
            rows.read(0, 700, &mut values);
            let z = DMatrix::from_row_slice(700, 60, &values);
            let mean = z.row_mean();
            DMatrix::from_fn(700, 60, |i, k| z[(i, k)] - mean[k])
        };
        let expected = read(&rows_a).transpose() * read(&rows_b);
        let error = (product - expected).amax();
        assert!(error <= tolerance * 700.0, "{float:?}: {error:e}");
    }
}
