//! Checks of a worker's results: cheap compared with the kernels, and enough to find a wrong one.
//!
//! Guarantees: everything that passes is finite, of the right size, and agrees with the operands as far as reading them
//! once can show. Must not: repair anything.

use nalgebra::{DMatrix, DVector};

use crate::backend::CenteredRows;
use crate::packed::Packed;
use crate::rows::Rows;

/// The error allowed to a kernel in f32, relative to a sum of squares: 512 u is 3e-5. A wrong result is off by more.
const LOOSE: f64 = 1e-3;

/// The error allowed to a kernel in f64, with room for sums of a million terms.
const TIGHT: f64 = 1e-9;

/// Every value is finite.
pub fn finite(results: &[Vec<f64>]) -> Result<(), String> {
    match results.iter().flatten().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("it holds {value}")),
        None => Ok(()),
    }
}

/// Checks a mean and a scatter: three coordinates are summed again, and every entry must satisfy Cauchy and Schwarz.
pub fn moments(rows: &Rows, mean: &[f64], scatter: &Packed) -> Result<(), String> {
    let n = rows.len() as f64;
    for k in probes(rows.dim()) {
        let column = rows.column(k);
        let largest = column.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        let shift = column[0];
        let own_mean = shift + column.iter().map(|x| x - shift).sum::<f64>() / n;
        let squares: f64 = column.iter().map(|x| (x - own_mean).powi(2)).sum();
        // Either mean has a few rounding errors of the largest value, and their squares add up.
        let noise = 16.0 * f64::EPSILON * largest;
        let spread = (squares / n).sqrt();
        if (mean[k] - own_mean).abs() > LOOSE * spread + noise {
            return Err(format!("the mean of coordinate {k} is {}, should be {own_mean}", mean[k]));
        }
        if (scatter.diagonal(k) - squares).abs() > LOOSE * squares + n * noise * noise {
            return Err(format!("M2 holds {} at ({k}, {k}), should be {squares}", scatter.diagonal(k)));
        }
    }
    let deviations: Vec<f64> = (0..scatter.dim()).map(|k| scatter.diagonal(k).sqrt()).collect();
    // Rounding may leave more next to a constant coordinate.
    let room = LOOSE * scatter.trace() / scatter.dim() as f64;
    for (i, deviation) in deviations.iter().enumerate() {
        for (j, value) in scatter.row(i).iter().enumerate() {
            // A negative diagonal has no root, so NaN fails here too.
            let within = value.abs() <= (1.0 + LOOSE) * deviation * deviations[j] + room;
            if !within {
                return Err(format!("M2 holds {value} at ({i}, {j}), above what its diagonal allows"));
            }
        }
    }
    Ok(())
}

/// Checks sum_i (a_i - mean_a)(b_i - mean_b)^T at three places of its diagonal.
pub fn cross(a: CenteredRows<'_>, b: CenteredRows<'_>, product: &DMatrix<f64>) -> Result<(), String> {
    for k in probes(a.rows.dim()) {
        let centred =
            |of: CenteredRows<'_>| -> Vec<f64> { of.rows.column(k).iter().map(|x| x - of.moments.mean()[k]).collect() };
        let (left, right) = (centred(a), centred(b));
        let sum: f64 = left.iter().zip(&right).map(|(x, y)| x * y).sum();
        let size: f64 = left.iter().zip(&right).map(|(x, y)| (x * y).abs()).sum();
        same("the product", product[(k, k)], sum, LOOSE * size)?;
    }
    Ok(())
}

/// Checks C = A^T B with one vector: C v must be A^T (B v) (Freivalds 1977).
pub fn inner(a: &DMatrix<f64>, b: &DMatrix<f64>, c: &DMatrix<f64>) -> Result<(), String> {
    let v = signs(b.ncols());
    let off = (c * &v - a.tr_mul(&(b * &v))).norm();
    same("what a product leaves", off, 0.0, TIGHT * a.norm() * b.norm() * v.norm())
}

/// The same for X^T X or X X^T, of which only the lower triangle is valid.
pub fn gram(x: &DMatrix<f64>, outer: bool, c: &DMatrix<f64>) -> Result<(), String> {
    let v = signs(c.ncols());
    let expected = if outer { x * x.tr_mul(&v) } else { x.tr_mul(&(x * &v)) };
    let off = (lower_times(c, &v) - expected).norm();
    same("what a product leaves", off, 0.0, TIGHT * x.norm_squared() * v.norm())
}

/// Checks the sum and the sum of squares, as [`crate::spectrum::EigenProblem::check`] does later.
pub fn eigenvalues(symmetric: &DMatrix<f64>, values: &[f64]) -> Result<(), String> {
    let n = symmetric.nrows() as f64;
    let (mut trace, mut squares) = (0.0, 0.0);
    for j in 0..symmetric.ncols() {
        trace += symmetric[(j, j)];
        squares += symmetric[(j, j)].powi(2);
        squares += 2.0 * symmetric.view((j + 1, j), (symmetric.nrows() - j - 1, 1)).norm_squared();
    }
    let error = 32.0 * f64::EPSILON * n.sqrt() * squares.sqrt();
    same("the sum of the eigenvalues", values.iter().sum(), trace, error * n.sqrt())?;
    let got = values.iter().map(|x| x * x).sum();
    same("the sum of their squares", got, squares, 2.0 * error * squares.sqrt())
}

/// Also checks that they are descending, of norm one, and that three of the vectors solve the equation.
pub fn eigenvectors(symmetric: &DMatrix<f64>, values: &[f64], vectors: &DMatrix<f64>) -> Result<(), String> {
    eigenvalues(symmetric, values)?;
    if values.windows(2).any(|pair| pair[0] < pair[1]) {
        return Err("the eigenvalues are not in descending order".to_string());
    }
    for (k, vector) in vectors.column_iter().enumerate() {
        same(&format!("the norm of eigenvector {k}"), vector.norm(), 1.0, TIGHT)?;
    }
    for k in probes(values.len()) {
        let vector = DVector::from(vectors.column(k));
        let off = (lower_times(symmetric, &vector) - values[k] * &vector).norm();
        same(&format!("what eigenvector {k} leaves"), off, 0.0, TIGHT * symmetric.norm())?;
    }
    Ok(())
}

fn same(what: &str, got: f64, expected: f64, tolerance: f64) -> Result<(), String> {
    // Written so that NaN fails.
    if (got - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(format!("{what} is {got}, should be {expected} to within {tolerance}"))
}

/// S v of the symmetric matrix in the lower triangle.
fn lower_times(lower: &DMatrix<f64>, v: &DVector<f64>) -> DVector<f64> {
    let n = lower.nrows();
    let mut product = DVector::zeros(n);
    for j in 0..n {
        let column = lower.view((j, j), (n - j, 1));
        let mut sum = column[0] * v[j];
        for (i, value) in column.iter().enumerate().skip(1) {
            product[j + i] += value * v[j];
            sum += value * v[j + i];
        }
        product[j] += sum;
    }
    product
}

/// The first, the middle and the last of `n`.
fn probes(n: usize) -> impl Iterator<Item = usize> {
    let mut probes = vec![0, n / 2, n.saturating_sub(1)];
    probes.dedup();
    probes.into_iter().filter(move |k| *k < n)
}

/// +1 and -1 by the Thue-Morse sequence, which does not match any period of the columns.
fn signs(n: usize) -> DVector<f64> {
    DVector::from_iterator(n, (0..n).map(|i| if i.count_ones() % 2 == 0 { 1.0 } else { -1.0 }))
}
