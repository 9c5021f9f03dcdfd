//! Lanczos runs from random signs, and the two Gauss rules that each yields.
//!
//! Guarantees: for f = -x ln x and f = sqrt x the two rules enclose (P g)^T f(A) (P g). Must not: know what f is for.
//!
//! All even derivatives of these f are negative and all odd ones from the third on positive, so Gauss's rule is never
//! below the integral, and Radau's with its node at 0, where the spectrum ends, never above it (Golub and Meurant,
//! Matrices, Moments and Quadrature, 1994, section 4).

use nalgebra::{DMatrix, DVector};

use super::deflate::Deflated;
use super::operator::{LanczosKernels, Operator, PROBES, Signs, project_out};

/// Steps per run.
pub(super) const STEPS: usize = 40;

/// Runs at a time: their bases take the memory.
pub(super) const BATCH: usize = 16;

/// Residuals up to this share of theta are small: the projection then takes at most r / sqrt theta off a sum of roots,
/// and less than r off one of -x ln x (eigenvalues move by r^2 over their distance, and r^2 is at most theta times the
/// other one).
const CONVERGED: f64 = 1e-6;

/// Nodes and weights.
pub(super) type Rule = Vec<(f64, f64)>;

/// The result of one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) gauss: Rule,
    pub(super) radau: Rule,
}

/// A run in progress.
struct LanczosRun {
    weight: f64,
    basis: DMatrix<f64>,
    diagonal: Vec<f64>,
    off: Vec<f64>,
    ended: bool,
}

/// Runs from random signs without the part in the Ritz vectors; a run ends when the remainder is below `floor`.
///
/// Converged vectors are projected out at every step: rounding would bring them back, and each would take a step away
/// from the rest. The others are not: what couples them to the rest belongs to the rest, and the rules enclose it.
pub(super) fn probe(
    operator: &Operator<'_>,
    deflated: &Deflated,
    floor: f64,
    random: &mut Signs,
    kernels: &LanczosKernels<'_>,
) -> Result<Vec<Probe>, String> {
    let dim = operator.dim();
    let q = &deflated.vectors;
    let converged = deflated.values.iter().take_while(|(value, residual)| *residual <= CONVERGED * value).count();
    let mut probes = Vec::new();
    while probes.len() < PROBES {
        let mut start = random.block(dim, BATCH);
        for _ in 0..2 {
            project_out(&q.columns(0, q.ncols()), &mut start);
        }
        let mut runs: Vec<LanczosRun> = start.column_iter().map(|g| LanczosRun::from(g.into_owned())).collect();
        for step in 0..STEPS.min(dim) {
            let going: Vec<usize> = (0..BATCH).filter(|k| !runs[*k].ended).collect();
            if going.is_empty() {
                break;
            }
            let columns: Vec<_> = going.iter().map(|k| runs[*k].basis.column(step)).collect();
            let mut product = operator.apply(&DMatrix::from_columns(&columns), kernels)?;
            project_out(&q.columns(0, converged), &mut product);
            for (k, column) in going.into_iter().zip(product.column_iter()) {
                runs[k].advance(step, column.into_owned(), floor);
            }
        }
        probes.extend(runs.iter().map(|run| run.rules(floor)));
    }
    Ok(probes)
}

impl LanczosRun {
    fn from(start: DVector<f64>) -> Self {
        let norm = start.norm();
        let mut basis = DMatrix::zeros(start.len(), STEPS + 1);
        if norm > 0.0 {
            basis.set_column(0, &(start / norm));
        }
        Self { weight: norm * norm, basis, diagonal: Vec::new(), off: Vec::new(), ended: norm == 0.0 }
    }

    /// One step, with the whole basis projected out twice: Lanczos's own three terms lose their orthogonality.
    fn advance(&mut self, step: usize, mut image: DVector<f64>, floor: f64) {
        let basis = self.basis.columns(0, step + 1);
        self.diagonal.push(self.basis.column(step).dot(&image));
        for _ in 0..2 {
            let along = basis.tr_mul(&image);
            image.gemv(-1.0, &basis, &along, 1.0);
        }
        let norm = image.norm();
        self.ended = norm <= floor;
        if !self.ended {
            self.off.push(norm);
            self.basis.set_column(step + 1, &(image / norm));
        }
    }

    fn rules(&self, floor: f64) -> Probe {
        let steps = self.diagonal.len();
        let gauss = rule(&self.diagonal, &self.off[..steps.saturating_sub(1)], self.weight);
        // A run that ended has the whole measure; so has one whose matrix is indefinite through rounding.
        let last = if self.off.len() == steps { self.radau_entry(floor) } else { None };
        let radau = match last {
            Some(last) => {
                let diagonal: Vec<f64> = self.diagonal.iter().copied().chain([last]).collect();
                rule(&diagonal, &self.off, self.weight)
            }
            None => gauss.clone(),
        };
        Probe { gauss, radau }
    }

    /// The entry that gives the tridiagonal matrix an eigenvalue at 0 (Golub 1973), or slightly below if rounding has
    /// moved the smallest Ritz value there.
    fn radau_entry(&self, floor: f64) -> Option<f64> {
        [0.0, 2.0 * floor, 32.0 * floor].into_iter().find_map(|under| {
            let mut pivot = self.diagonal.first()? + under;
            for (alpha, beta) in self.diagonal[1..].iter().zip(&self.off) {
                if pivot <= 0.0 {
                    return None;
                }
                pivot = alpha + under - beta * beta / pivot;
            }
            let last = self.off.last()?;
            (pivot > 0.0).then(|| last * last / pivot - under)
        })
    }
}

/// Eigenvalues of the tridiagonal matrix, and `weight` times the squares of their vectors' first entries.
fn rule(diagonal: &[f64], off: &[f64], weight: f64) -> Rule {
    let n = diagonal.len();
    let matrix = DMatrix::from_fn(n, n, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => off[i.min(j)],
        _ => 0.0,
    });
    let solved = matrix.symmetric_eigen();
    let first = solved.eigenvectors.row(0).into_owned();
    solved.eigenvalues.iter().zip(first.iter()).map(|(node, entry)| (node.max(0.0), weight * entry * entry)).collect()
}
