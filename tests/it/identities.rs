//! What every implementation must satisfy, as properties of random embeddings and as closed forms.

use std::sync::Arc;

use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::{Element, Tensor};
use fullrank::analysis::measures::Measures;
use fullrank::analysis::parameters::Parameters;
use fullrank::analysis::part::Part;
use fullrank::analysis::report::FullReport;
use fullrank::analysis::verdict::{Cause, Level, VerdictState};
use fullrank::analyze;
use fullrank::pipeline::ThresholdOverrides;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::{Float, Rows};
use nalgebra::{DMatrix, DVector};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// A matrix of rows as an f32 or f64 batch.
fn batch(views: &[&DMatrix<f64>], float: Float) -> EmbeddingBatch {
    let tensors = views.iter().enumerate().map(|(index, z)| {
        let values = z.transpose();
        let bytes: Vec<u8> = match float {
            Float::F32 => values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let float = if float == Float::F32 { Float::F32 } else { Float::F64 };
        let name = if views.len() == 1 { "z".to_string() } else { format!("z{}", index + 1) };
        Tensor::new(&name, Element::Float(float), vec![z.nrows(), z.ncols()], bytes.into()).unwrap()
    });
    EmbeddingBatch::new(tensors.collect(), Parameters::default()).unwrap()
}

fn judged(views: &[&DMatrix<f64>], float: Float) -> FullReport {
    let backend = Cpu::new(2).unwrap();
    analyze::report(Arc::new(backend), batch(views, float), "test", &ThresholdOverrides::default()).unwrap()
}

fn measured(z: &DMatrix<f64>) -> Measures {
    judged(&[z], Float::F64).report.measures
}

fn gaussian(rows: usize, dim: usize, seed: u64) -> DMatrix<f64> {
    let mut random = StdRng::seed_from_u64(seed);
    DMatrix::from_fn(rows, dim, |_, _| random.sample(StandardNormal))
}

fn rotation(dim: usize, seed: u64) -> DMatrix<f64> {
    gaussian(dim, dim, seed).qr().q()
}

/// Gaussian rows whose covariance has these eigenvalues, in rotated coordinates.
fn with_spectrum(rows: usize, eigenvalues: &[f64], seed: u64) -> DMatrix<f64> {
    let scales = DVector::from_iterator(eigenvalues.len(), eigenvalues.iter().map(|x| x.sqrt()));
    gaussian(rows, eigenvalues.len(), seed) * DMatrix::from_diagonal(&scales) * rotation(eigenvalues.len(), seed + 1)
}

fn close(got: Option<f64>, want: Option<f64>, relative: f64) -> bool {
    match (got, want) {
        (Some(got), Some(want)) => (got - want).abs() <= relative * want.abs().max(1e-300),
        (got, want) => got == want,
    }
}

const RANKS: [fn(&Measures) -> Option<f64>; 5] =
    [|m| m.entropy_rank, |m| m.stable_rank, |m| m.intrinsic_dimension, |m| m.stable_rank_corrected, |m| m.rankme];

/// Random shapes and spectra, from flat to steep.
fn clouds() -> impl Strategy<Value = DMatrix<f64>> {
    (2usize..60, 1usize..24, 0.0f64..2.0, any::<u64>()).prop_map(|(rows, dim, decay, seed)| {
        let eigenvalues: Vec<f64> = (1..=dim).map(|i| (i as f64).powf(-decay)).collect();
        let offset = gaussian(1, dim, seed ^ 7);
        let mut z = with_spectrum(rows, &eigenvalues, seed % (1 << 40));
        z.row_iter_mut().for_each(|mut row| row += &offset);
        z
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn unit_rows_split_into_centre_and_residual(z in clouds()) {
        let m = measured(&z);
        // |s|^2 + tr Sigma_u = 1
        let sum = m.center_norm.unwrap().powi(2) + m.residual_norm.unwrap().powi(2);
        prop_assert!((sum - 1.0).abs() < 1e-12, "{}", sum);
    }

    #[test]
    fn ranks_are_ordered(z in clouds()) {
        let m = measured(&z);
        let ranks = [Some(1.0), m.intrinsic_dimension, m.stable_rank, m.entropy_rank, Some(z.ncols() as f64)];
        let ranks = ranks.map(Option::unwrap);
        prop_assert!(ranks.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-12)), "{:?}", ranks);
        // D2 <= D1 <= exp H(diag Sigma): the bracket that needs no eigenvalues.
        prop_assert!(m.entropy_rank.unwrap() <= m.diagonal_entropy_rank.unwrap() * (1.0 + 1e-12));
    }

    #[test]
    fn scaling_changes_no_rank(z in clouds(), exponent in -60i32..60) {
        let (a, b) = (measured(&z), measured(&(&z * 2f64.powi(exponent))));
        for rank in RANKS {
            prop_assert!(close(rank(&b), rank(&a), 1e-10), "{:?} {:?}", rank(&a), rank(&b));
        }
        prop_assert!(close(b.center_norm, a.center_norm, 1e-12));
        prop_assert!(close(b.relative_variance, a.relative_variance, 1e-12));
    }

    #[test]
    fn rotating_changes_no_eigenvalue(z in clouds(), seed in 0u64..1000) {
        let a = judged(&[&z], Float::F64);
        let b = judged(&[&(&z * rotation(z.ncols(), seed))], Float::F64);
        let (a, b) = (a.eigenvalues().unwrap(), b.eigenvalues().unwrap());
        for (x, y) in a.iter().zip(b) {
            // The rotation itself rounds, by eps sqrt(d) of the largest row.
            prop_assert!((x - y).abs() <= 1e-12 * (a[0] + z.norm_squared() / z.nrows() as f64), "{} {}", x, y);
        }
    }

    #[test]
    fn any_split_in_any_order_is_one_batch(z in clouds(), cuts in prop::collection::vec(0.0f64..1.0, 1..5), reverse: bool) {
        let backend = Cpu::new(1).unwrap();
        let moments = |z: &DMatrix<f64>| {
            let values: Vec<f64> = z.transpose().iter().copied().collect();
            backend.moments(&Rows::from_f64((z.nrows(), z.ncols()), &values).unwrap(), Precision::F64).unwrap()
        };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * z.nrows() as f64) as usize).collect();
        ends.extend([0, z.nrows()]);
        ends.sort_unstable();
        ends.dedup();
        let mut parts: Vec<_> = ends.windows(2).map(|p| moments(&z.rows(p[0], p[1] - p[0]).into_owned())).collect();
        if reverse {
            parts.reverse();
        }
        let mut merged = parts.remove(0);
        parts.iter().for_each(|part| merged.merge(part));
        let whole = moments(&z);
        let difference = (merged.scatter().to_full() - whole.scatter().to_full()).amax();
        prop_assert!(difference <= 1e-12 * whole.scatter().trace().max(z.norm_squared() * 1e-4), "{}", difference);
        prop_assert_eq!(merged.rows(), whole.rows());
    }
}

/// (axes, cause) of a cloud by itself.
fn axes(z: &DMatrix<f64>, float: Float) -> (Level, Level, Cause) {
    let verdict = judged(&[z], float).report.verdict;
    (verdict.scale, verdict.dimension, verdict.cause)
}

#[test]
fn closed_forms_are_judged_right() {
    let constant = DMatrix::from_fn(256, 64, |_, k| k as f64 - 3.5);
    let published = judged(&[&constant], Float::F64);
    assert_eq!(published.report.verdict.scale, Level::Critical);
    assert_eq!(published.report.verdict.cause, Cause::Constant);
    assert_ne!(published.report.verdict.state, VerdictState::Healthy);
    assert!(!serde_json::to_string(&published).unwrap().contains("NaN"));

    // All ranks are blind to a point with a little noise; the scale axis is not.
    let noisy = DMatrix::from_element(1024, 256, 1.0) + gaussian(1024, 256, 3) * 1e-6;
    assert!(measured(&noisy).entropy_rank.unwrap() > 200.0);
    assert_eq!(axes(&noisy, Float::F64).0, Level::Critical);

    assert_eq!(axes(&gaussian(256, 2048, 4), Float::F32), (Level::Ok, Level::Ok, Cause::None));

    // Rank 8 in rotated coordinates: scaled_std reads 1.
    let rank_8: Vec<f64> = (0..256).map(|i| f64::from(u8::from(i < 8))).collect();
    let low_rank = with_spectrum(1024, &rank_8, 5);
    assert!((measured(&low_rank).scaled_std.unwrap() - 1.0).abs() < 0.1);
    let (scale, dimension, cause) = axes(&low_rank, Float::F32);
    assert_eq!((scale, cause), (Level::Ok, Cause::LowRank));
    assert!(dimension >= Level::Warning);

    // Sigma = 11^T passes VICReg's variance term.
    let ones = gaussian(512, 1, 6) * DMatrix::from_element(1, 64, 1.0);
    assert_eq!(axes(&ones, Float::F64), (Level::Ok, Level::Critical, Cause::Line));

    let mut one_dead = gaussian(512, 64, 7);
    one_dead.column_mut(9).fill(0.25);
    assert_eq!(axes(&one_dead, Float::F32), (Level::Ok, Level::Ok, Cause::None));
    assert_eq!(measured(&one_dead).dead_dims, Some(1.0));

    let mut dead = gaussian(512, 256, 8);
    (5..256).for_each(|k| dead.column_mut(k).fill(0.25));
    assert_eq!(axes(&dead, Float::F64).2, Cause::DeadUnits);

    let few = gaussian(512, 5, 9);
    let copies = DMatrix::from_fn(512, 256, |i, k| few[(i, k % 5)]);
    assert_eq!(axes(&copies, Float::F64).2, Cause::DuplicateUnits);
}

/// lambda_i ~ i^-alpha. Rotating changes no eigenvalue, and takes long at 2048 dimensions: the cloud stays unrotated.
fn power_law(rows: usize, dim: usize, alpha: f64, seed: u64) -> DMatrix<f64> {
    let scales = DVector::from_fn(dim, |i, _| (i as f64 + 1.0).powf(-alpha / 2.0));
    gaussian(rows, dim, seed) * DMatrix::from_diagonal(&scales)
}

#[test]
fn healthy_power_laws_stay_quiet() {
    for (dim, most) in [(64usize, 16), (256, 16), (1024, 4), (2048, 1)] {
        for rows in [dim / 4, dim, 4 * dim, 16 * dim].into_iter().filter(|rows| *rows <= most * dim) {
            for alpha in [0.5, 1.0] {
                let z = power_law(rows, dim, alpha, dim as u64);
                let (scale, dimension, cause) = axes(&z, Float::F32);
                let at = format!("alpha = {alpha}, d = {dim}, N = {rows}");
                assert_eq!((scale, dimension, cause), (Level::Ok, Level::Ok, Cause::None), "{at}");
            }
        }
    }
}

#[test]
fn a_large_offset_in_f32_leaves_no_negative_eigenvalue() {
    let z = DMatrix::from_element(2048, 128, 100.0) + gaussian(2048, 128, 11) * 1e-2;
    let published = judged(&[&z], Float::F32);
    let m = &published.report.measures;
    let lowest = published.eigenvalues().unwrap().last().copied().unwrap();
    assert!(lowest > 0.0 && lowest > m.numeric_noise_floor.unwrap(), "{lowest}");
    // Rounding to f32 adds (2^-18)^2 / 3 / 4 or so to each variance of 1e-4: nothing.
    assert!((m.entropy_rank.unwrap() / m.entropy_rank_null.unwrap() - 1.0).abs() < 0.02);
}

#[test]
fn nulls_hold_for_isotropic_rows() {
    for (rows, dim) in [(256usize, 512usize), (512, 256), (2048, 64), (64, 256)] {
        let m = measured(&gaussian(rows, dim, rows as u64));
        assert!(close(m.stable_rank, m.stable_rank_null, 0.02), "{m:?}");
        assert!(close(m.entropy_rank, m.entropy_rank_null, 0.01), "{m:?}");
        assert!(close(m.stable_rank_corrected, Some(dim as f64), 0.1), "{m:?}");
        assert!((m.center_norm.unwrap() * (rows as f64).sqrt() - 1.0).abs() < 0.2);
        assert!((m.correlation_energy.unwrap() * rows as f64 - 1.0).abs() < 0.1);
    }
}

#[test]
fn dependent_views_are_corrected() {
    let (rows, dim) = (1024, 64);
    for correlation in [0.0f64, 0.5, 0.95] {
        let common = gaussian(rows, dim, 1) * correlation.sqrt();
        let view = |seed| &common + gaussian(rows, dim, seed) * (1.0 - correlation).sqrt();
        let m = judged(&[&view(2), &view(3)], Float::F64).report.measures;
        assert!((m.view_correlation.unwrap() - correlation).abs() < 0.02);
        assert!(close(m.stable_rank, m.stable_rank_null, 0.01), "{correlation}: {m:?}");
        assert!((m.positive_cosine.unwrap() - correlation).abs() < 0.02);
        assert!(m.mean_cosine.unwrap().abs() < 0.01, "the positives are taken out of the mean cosine");
        assert!((m.signal_gap.unwrap() - correlation).abs() < 0.02);
    }
}

#[test]
fn uniformity_from_a_sample_covers_the_exact_value() {
    let z = with_spectrum(12_000, &(1..=16).map(|i| 1.0 / f64::from(i)).collect::<Vec<_>>(), 21);
    let sampled = judged(&[&z], Float::F32);
    let (low, high) = sampled.report.computed.intervals["uniformity"];
    assert!(!sampled.report.computed.exact && low < high && high - low < 0.05, "{low} {high}");
    // The whole: the mean over all pairs, from the definition.
    let unit = DMatrix::from_fn(z.nrows(), 16, |i, k| z[(i, k)] / z.row(i).norm());
    let mut sum = 0.0;
    for i in 0..2000 {
        for j in 0..i {
            sum += (-2.0 * (unit.row(i) - unit.row(j)).norm_squared()).exp();
        }
    }
    let exact_of_a_part = (sum / (2000.0 * 1999.0 / 2.0)).ln();
    assert!((exact_of_a_part - (low + high) / 2.0).abs() < 3.0 * (high - low), "{exact_of_a_part} in {low} {high}");
}

#[test]
fn a_part_knows_its_rows() {
    let part: Part = batch(&[&gaussian(3, 2, 1), &gaussian(3, 2, 2)], Float::F64).parts.remove(0);
    assert_eq!((part.rows(), part.views(), part.dim()), (6, 2, 2));
}
