//! Sums over a spectrum from its first eigenvalues and the probes' rules, and the ranks that follow.
//!
//! Guarantees: an interval covers 95 % over the probes, widened by what the residuals and the rules leave open. Must
//! not: return a sum without one.
//!
//! **The deflated part.** For a unit vector q with q^T A q = theta and r = |A q - theta q|, the spectral measure of q has mean
//! theta and variance r^2. f concave: q^T f(A) q <= f(theta) (Jensen); and f(x) >= f(theta) + f'(theta) (x - theta) -
//! C (x - theta)^2 bounds what it lacks by C r^2. -x ln x: C = 1 / theta, by ln(x / theta) <= x / theta - 1.
//! sqrt x: C = 1 / (2 theta^(3/2)), by sqrt y >= 1 + (y - 1) / 2 - (y - 1)^2 / 2. The middle is taken.
//!
//! **The rest.** tr P, tr P A P and tr P A^2 P are known exactly (from the trace, the Frobenius norm, theta and r), so
//! only the part of f that a parabola does not explain is left to chance: f = a + b x + c x^2 + e, fitted over all
//! probes' nodes, and (P g)^T e(A) (P g) is averaged. This is regression on control variates, and the interval comes
//! from it.

use nalgebra::{Matrix3, Vector3};

use super::deflate;
use super::operator::{DIRECTIONS, LanczosKernels, Operator, PROBES, Signs};
use super::quadrature::{self, Probe};
use crate::spectrum::Eigenvalues;

/// The parabola takes three of the probes' degrees of freedom: the 97.5 % point of Student's t with the other 29.
const FITTED: f64 = 3.0;
const STUDENT: f64 = 2.0452;

/// If the probes count this many eigenvalues above a Ritz value outside the deflated space, one was missed: their mean
/// errs by sqrt(2 / 32) = 1/4.
const MISSED: f64 = 0.5;

/// Below this share of the whole, a moment of the rest is a difference lost to rounding (relative error 1e-14 / 1e-7).
const LEAST_SHARE: f64 = 1e-7;

/// The narrowest spectrum of the rest, as a share of its mean, that a parabola is fitted to: its square is still far
/// above the traces' relative error of 1e-14.
const LEAST_WIDTH: f64 = 1e-4;

/// What is known about one matrix's spectrum, in units of `unit`.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    dim: usize,
    unit: f64,
    trace: f64,
    floor: f64,
    /// Converged Ritz values, from the largest on, with their residuals.
    values: Vec<(f64, f64)>,
    /// How many of them are the first eigenvalues without a gap: of an eigenvalue repeated more often than a block is
    /// wide, copies may be missing.
    known: usize,
    top: (f64, f64),
    /// Every other eigenvalue is under the floor.
    complete: bool,
    /// tr P, tr P A P, tr P A^2 P, as far as they are known.
    traces: Vec<f64>,
    probes: Vec<Probe>,
}

/// A number and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranged {
    /// The number.
    pub value: f64,
    /// From, to.
    pub interval: (f64, f64),
}

struct Sum {
    value: f64,
    /// Each probe's value for the part that no parabola explains, minus their mean.
    spread: Vec<f64>,
    /// What residuals and rules leave open, to either side.
    bound: f64,
}

impl Estimate {
    /// Estimates the operator's spectrum.
    ///
    /// # Errors
    /// A kernel's error; or the result cannot belong to the matrix.
    pub fn new(operator: &Operator<'_>, kernels: &LanczosKernels<'_>) -> Result<Self, String> {
        let dim = operator.dim();
        if operator.is_zero() {
            let (values, traces, probes) = (Vec::new(), Vec::new(), Vec::new());
            let (top, floor) = ((0.0, 0.0), 0.0);
            return Ok(Self {
                dim,
                unit: 1.0,
                trace: 0.0,
                floor,
                values,
                known: 0,
                top,
                complete: true,
                traces,
                probes,
            });
        }
        // The deflated part: converged Ritz values, and the trace that they leave.
        let (squares, diagonal) = operator.norms();
        let random = &mut Signs(dim as u64);
        let most = operator.floor(diagonal, operator.trace);
        let deflated = deflate::deflate(operator, most, random, kernels)?;
        let (values, top, next) = (&deflated.values, deflated.top, deflated.next);
        let floor = operator.floor(diagonal, top.0.max(0.0));
        let known: f64 = values.iter().map(|(value, _)| value).sum();
        let rest = operator.trace - known;
        if rest < -(dim as f64) * most {
            return Err(format!("the Ritz values sum to {known} of a trace of {}", operator.trace));
        }
        let complete = next <= floor && rest <= dim as f64 * floor;
        // The traces of the rest, as far as they are above rounding.
        let mut traces = vec![(dim - values.len()) as f64];
        let known_squares: f64 = values.iter().map(|(value, residual)| value * value + residual * residual).sum();
        if rest > LEAST_SHARE * operator.trace {
            traces.push(rest);
            if squares - known_squares > LEAST_SHARE * squares {
                traces.push(squares - known_squares);
            }
        }
        let probes =
            if complete { Vec::new() } else { quadrature::probe(operator, &deflated, floor, random, kernels)? };
        let above = |limit: f64| {
            let nodes = probes.iter().flat_map(|probe| &probe.gauss);
            nodes.filter(|(x, _)| *x > limit).map(|(_, weight)| weight).sum::<f64>() / PROBES as f64
        };
        // Ritz values count as the first eigenvalues until the probes show that one was missed.
        let known = values.iter().take_while(|(value, residual)| above(value + residual) < MISSED).count();
        let (unit, trace, values) = (operator.unit, operator.trace, deflated.values);
        Ok(Self { dim, unit, trace, floor, values, known, top, complete, traces, probes })
    }

    /// All eigenvalues, if the unknown ones are under the floor: those are rounding, and set to zero.
    pub fn all(&self) -> Option<Eigenvalues> {
        let mut values = self.resolved();
        values.resize(self.dim, 0.0);
        self.complete.then(|| Eigenvalues { values, floor: self.numeric_floor() })
    }

    /// The first eigenvalues, as far as they are known.
    pub fn resolved(&self) -> Vec<f64> {
        self.values[..self.known].iter().map(|(value, _)| value * self.unit).collect()
    }

    /// How far off each of them may be.
    pub fn residuals(&self) -> impl Iterator<Item = f64> {
        self.values[..self.known].iter().map(|(_, residual)| residual * self.unit)
    }

    /// d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The trace.
    pub fn total(&self) -> f64 {
        self.trace * self.unit
    }

    /// The largest eigenvalue, known or not: at least this.
    pub fn largest(&self) -> f64 {
        self.top.0 * self.unit
    }

    /// The numeric noise floor, in the units of the eigenvalues.
    pub fn numeric_floor(&self) -> f64 {
        self.floor * self.unit
    }

    /// exp(-sum p ln p).
    pub fn entropy_rank(&self) -> Ranged {
        let trace = self.trace;
        let entropy = self.sum(&|x| minus_x_ln_x(x / trace), &|theta, squared| squared / (theta * trace));
        ranged(entropy.value, entropy.error())
    }

    /// tr A / lambda_1, where lambda_1 is at least the largest Ritz value and at most its residual above it.
    pub fn intrinsic_dimension(&self) -> Ranged {
        let value = self.trace / self.top.0;
        Ranged { value, interval: (self.trace / (self.top.0 + self.top.1), value) }
    }

    /// RankMe over `count` singular values; eigenvalues under the floor may be anything between zero and it.
    pub fn rankme(&self, count: usize, epsilon: f64) -> Ranged {
        let absent = (self.dim - count) as f64 * minus_x_ln_x(epsilon);
        let as_they_are = self.root_entropy(&|x| x, epsilon);
        let mut out = ranged(as_they_are.0 - absent, as_they_are.1);
        let under = |to: f64| self.root_entropy(&|x| if x <= self.floor { to } else { x }, epsilon);
        for (entropy, error) in [under(0.0), under(self.floor)] {
            let other = ranged(entropy - absent, error).interval;
            out.interval = (out.interval.0.min(other.0), out.interval.1.max(other.1));
        }
        out
    }

    /// -sum (q + epsilon) ln(q + epsilon), q = sqrt x / sum sqrt x, and its error. The sum in q is an estimate itself:
    /// it enters by the slope of the entropy in it.
    fn root_entropy(&self, of: &dyn Fn(f64) -> f64, epsilon: f64) -> (f64, f64) {
        let roots = self.sum(&|x| of(x).sqrt(), &|theta, squared| squared / (2.0 * theta.powf(1.5)));
        let entropy = |total: f64| {
            // As for -x ln x, with y = sqrt x / total + epsilon in between.
            let lack = |theta: f64, squared: f64| {
                let y = theta.sqrt() / total + epsilon;
                let bend = (y.ln() + 1.0).abs() / (2.0 * theta.powf(1.5) * total);
                squared * (bend + 1.0 / (theta * total * total * y))
            };
            self.sum(&|x| minus_x_ln_x(of(x).sqrt() / total + epsilon), &lack)
        };
        let sum = entropy(roots.value);
        let step = 1e-4;
        let slope = (entropy(roots.value * (1.0 + step)).value - entropy(roots.value * (1.0 - step)).value)
            / (2.0 * step * roots.value);
        // Above 1 / e the entropy falls in y: its rules enclose it together with as much of the root's.
        let largest = self.top.0.max(0.0).sqrt() / roots.value + epsilon;
        let falling = (1.0 + largest.ln()).max(0.0) / roots.value;
        let bound = sum.bound + (slope.abs() + falling) * roots.bound;
        let spread = sum.spread.iter().zip(&roots.spread).map(|(a, b)| a + slope * b).collect();
        (sum.value, Sum { value: sum.value, spread, bound }.error())
    }

    /// tr f(A); `lack` is the most that the deflated part can be below f(theta), given theta and r^2.
    fn sum(&self, f: &dyn Fn(f64) -> f64, lack: &dyn Fn(f64, f64) -> f64) -> Sum {
        let mut out = Sum { value: 0.0, spread: Vec::new(), bound: 0.0 };
        for (value, residual) in &self.values {
            let half = lack(*value, residual * residual) / 2.0;
            out.value += f(*value) - half;
            out.bound += half;
        }
        if self.probes.is_empty() {
            return out;
        }
        let parabola = Parabola::fit(self, f);
        out.value += parabola.trace(&self.traces);
        let over = |rule: &[(f64, f64)]| rule.iter().map(|(x, weight)| weight * (f(*x) - parabola.at(*x))).sum::<f64>();
        let mut middles = Vec::new();
        for probe in &self.probes {
            let (above, below) = (over(&probe.gauss), over(&probe.radau));
            middles.push((above + below) / 2.0);
            out.bound += (above - below).abs() / 2.0 / PROBES as f64;
        }
        let mean = middles.iter().sum::<f64>() / PROBES as f64;
        out.value += mean;
        out.spread = middles.iter().map(|middle| middle - mean).collect();
        out
    }
}

impl Sum {
    /// To either side: the 95 % interval of the probes' mean, and the errors that are not random.
    fn error(&self) -> f64 {
        let n = self.spread.len() as f64;
        let squares: f64 = self.spread.iter().map(|x| x * x).sum();
        let chance = if n > FITTED { STUDENT * (squares / (n - FITTED) / n).sqrt() } else { 0.0 };
        self.bound + chance
    }
}

/// a + b u + c u^2, u = (x - centre) / width.
struct Parabola {
    centre: f64,
    width: f64,
    coefficients: Vector3<f64>,
}

impl Parabola {
    /// Least squares over the probes' nodes: their weights are the density of the spectrum, so the remainder has the
    /// least Frobenius norm, and its quadratic forms the least variance. The degree is that of the known traces.
    fn fit(estimate: &Estimate, f: &dyn Fn(f64) -> f64) -> Self {
        let degrees = estimate.traces.len();
        let nodes = || estimate.probes.iter().flat_map(|probe| &probe.gauss);
        let total: f64 = nodes().map(|(_, weight)| weight).sum();
        let centre = nodes().map(|(x, weight)| weight * x).sum::<f64>() / total;
        let width = (nodes().map(|(x, weight)| weight * (x - centre).powi(2)).sum::<f64>() / total).sqrt();
        // Nodes all in one place have only rounding as their width; nothing may be divided by its powers.
        let mut out = Self { centre, width: width.max(LEAST_WIDTH * centre), coefficients: Vector3::zeros() };
        let (mut normal, mut right) = (Matrix3::zeros(), Vector3::zeros());
        for (x, weight) in nodes() {
            let mut powers = out.powers(*x);
            powers.iter_mut().skip(degrees).for_each(|power| *power = 0.0);
            normal += powers * powers.transpose() * (weight / total);
            right += powers * (weight / total * f(*x));
        }
        // Coefficients that the nodes cannot tell apart (all in one place, or in two) stay zero.
        if let Ok(solved) = normal.svd(true, true).solve(&right, 1e-10) {
            out.coefficients = solved;
        }
        out
    }

    fn powers(&self, x: f64) -> Vector3<f64> {
        let u = (x - self.centre) / self.width;
        Vector3::new(1.0, u, u * u)
    }

    fn at(&self, x: f64) -> f64 {
        self.coefficients.dot(&self.powers(x))
    }

    /// tr P (a + b u(A) + c u(A)^2) P.
    fn trace(&self, traces: &[f64]) -> f64 {
        let known = |k: usize| traces.get(k).copied().unwrap_or(0.0);
        let (count, first, second) = (known(0), known(1), known(2));
        let linear = (first - self.centre * count) / self.width;
        let square = (second - 2.0 * self.centre * first + self.centre * self.centre * count) / self.width.powi(2);
        let sums = [count, linear, square];
        self.coefficients.iter().zip(sums).take(traces.len()).map(|(coefficient, sum)| coefficient * sum).sum()
    }
}

fn ranged(entropy: f64, error: f64) -> Ranged {
    Ranged { value: entropy.exp(), interval: ((entropy - error).exp(), (entropy + error).exp()) }
}

/// 0 ln 0 = 0.
fn minus_x_ln_x(x: f64) -> f64 {
    if x > 0.0 { -x * x.ln() } else { 0.0 }
}

/// The most bytes that one estimate holds: the Krylov space, its image and the Ritz vectors, or a batch of probes'
/// bases.
pub fn scratch_bytes(dim: usize) -> usize {
    let deflating = 2 * deflate::KRYLOV + 2 * DIRECTIONS + 8 * deflate::BLOCK;
    let probing = quadrature::BATCH * (quadrature::STEPS + 8) + DIRECTIONS;
    8 * dim * deflating.max(probing)
}
