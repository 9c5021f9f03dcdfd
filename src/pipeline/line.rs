//! The line itself: accumulate a batch, and turn a window into a report. Whoever has read it has read the product.
//!
//! Guarantees: pure but for the backend and the stage timers. Must not: know about runs, queues or clocks.

use crate::analysis::batch::{Part, Payload};
use crate::analysis::floats::Rows;
use crate::analysis::measures::{self, Measured, Solved, uniformity};
use crate::analysis::moments::{Moments, Packed};
use crate::analysis::pairs::ViewMoments;
use crate::analysis::report::Computed;
use crate::analysis::reservoir;
use crate::analysis::spectrum::{self, Eigenvalues, Problem, Spectrum, SpectrumError};
use crate::analysis::verdict::{Stream, Thresholds, Verdict, Window};
use crate::analysis::window::Accumulator;
use crate::compute::{Backend, ComputeError};
use crate::telemetry::{Stage, Stages};

/// What turns rows into a report.
pub struct Line<'a> {
    /// What computes.
    pub backend: &'a dyn Backend,
    /// What times the stages.
    pub stages: &'a Stages,
}

/// A window measured and judged.
pub struct Outcome {
    /// The measures.
    pub measured: Measured,
    /// The eigenvalues, where they could be had.
    pub spectrum: Option<Spectrum>,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether every measure comes from all rows.
    pub exact: bool,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Solver results that were not taken.
    pub failures: usize,
}

/// How the verdict is to be reached.
pub struct Judging<'a> {
    /// Thresholds in force.
    pub thresholds: &'a Thresholds,
    /// The layer's memory; `None`: the rows stand alone, as in a file.
    pub stream: Option<&'a mut Stream>,
    /// The trainer's step.
    pub step: Option<u64>,
    /// The run named a method whose views should align.
    pub alignment_expected: bool,
    /// Leave the eigenvalues out: the solvers are behind.
    pub skip_spectrum: bool,
}

impl Line<'_> {
    /// One batch's rows, reduced; with `unit_moments` the second moment of the unit rows as well.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn accumulate(&self, part: Part, unit_moments: bool) -> Result<Accumulator, ComputeError> {
        let _timer = self.stages.enter(Stage::Accumulate);
        let views = match part.payload {
            Payload::Moments(pushed) => return Ok(Accumulator::of_moments(*pushed)),
            Payload::Views(views) => views,
        };
        let mut moments = self.backend.moments(&views[0])?;
        for view in &views[1..] {
            moments.merge(&self.backend.moments(view)?);
        }
        let pairs = match views.len() {
            1 => None,
            _ => Some(ViewMoments::of(&views, |a, b, mean_a, mean_b| self.backend.cross(a, b, mean_a, mean_b))?),
        };
        let mut rows = Accumulator::of_views(&views, moments, pairs, reservoir::CAPACITY);
        if unit_moments {
            rows.unit_scatter = self.unit_scatter(&views)?;
        }
        Ok(rows)
    }

    /// The second moment of the unit rows of all views: as much work again as the moments.
    fn unit_scatter(&self, views: &[Rows]) -> Result<Option<Packed>, ComputeError> {
        let mut sum: Option<Moments> = None;
        for unit in views.iter().filter_map(Rows::unit) {
            let moments = self.backend.moments(&unit)?;
            match &mut sum {
                Some(sum) => sum.merge(&moments),
                None => sum = Some(moments),
            }
        }
        Ok(sum.map(|moments| moments.scatter().clone()))
    }

    /// spectrum -> diagnose: the window's eigenvalues, its measures and its verdict.
    pub fn process(&self, rows: &Accumulator, judging: Judging<'_>) -> Outcome {
        let mut notes = Vec::new();
        let mut failures = 0;
        let solved = if judging.skip_spectrum {
            notes.push("the eigenvalues of this window were skipped: the spectrum threads are behind".to_string());
            Solved::default()
        } else {
            let _timer = self.stages.enter(Stage::Spectrum);
            self.solve(rows, &mut notes, &mut failures)
        };
        let _timer = self.stages.enter(Stage::Diagnose);
        let measured = measures::measure(rows, &solved);
        let window = Window {
            measures: &measured.measures,
            samples: rows.samples,
            dim: rows.moments.dim(),
            non_negative: rows.statistics.as_ref().is_some_and(|s| !s.has_negative),
            without_unit_rows: rows.unit.is_none(),
            alignment_expected: judging.alignment_expected,
        };
        let verdict = match judging.stream {
            Some(stream) => stream.observe(&window, judging.step, judging.thresholds),
            None => Stream::alone(&window, judging.thresholds),
        };
        notes.extend(remarks(&window));
        let exact = solved.spectrum.is_some() && !measured.intervals.contains_key("uniformity");
        Outcome { measured, spectrum: solved.spectrum, verdict, exact, notes, failures }
    }

    /// By what an outcome was computed.
    pub fn computed(&self, outcome: &Outcome, thresholds: &Thresholds) -> Computed {
        Computed {
            device: self.backend.device().to_string(),
            kernel: self.backend.kernel().to_string(),
            exact: outcome.exact,
            intervals: outcome.measured.intervals.clone(),
            alpha_fit: outcome.measured.alpha_fit,
            thresholds: thresholds.list(),
        }
    }

    /// The three spectra of a window. Each that cannot be had is left out, and the notes say why.
    fn solve(&self, rows: &Accumulator, notes: &mut Vec<String>, failures: &mut usize) -> Solved {
        let mut keep = |what: &str, result: Result<Eigenvalues, SolveError>| {
            result.map(Some).unwrap_or_else(|error| {
                *failures += 1;
                notes.push(format!("{what} could not be computed: {error}"));
                None
            })
        };
        let moments = &rows.moments;
        let at_hand = spectrum::rows_at_hand(rows.reservoir.as_ref(), moments.dim());
        let (covariance, second_moment) = match &at_hand {
            Some(kept) => (self.by_gram(kept, moments.mean()), self.by_gram(kept, &vec![0.0; moments.dim()])),
            None => {
                (self.eigenvalues(&Problem::covariance(moments)), self.eigenvalues(&Problem::second_moment(moments)))
            }
        };
        let covariance = keep("the spectrum", covariance);
        let second_moment = keep("rankme", second_moment);
        let input_floor = spectrum::input_floor(rows.float, moments);
        let unit_rows = rows.reservoir.as_ref().map(|r| uniformity::UnitRows::of(r, moments.dim()));
        let (unit, unit_exact) = match (&rows.unit_scatter, &unit_rows) {
            (Some(scatter), _) => (keep("w2_uniformity", self.of_unit_scatter(rows, scatter)), true),
            (None, Some(unit)) if !unit.times.is_empty() => {
                let (weighted, mean) = unit.weighted();
                (keep("w2_uniformity", self.by_gram(&weighted, &mean)), unit.complete())
            }
            _ => (None, false),
        };
        let uniformity = unit_rows.and_then(|unit| {
            uniformity::uniformity(&unit, |a, b| self.backend.inner(a, b)).unwrap_or_else(|error| {
                notes.push(format!("uniformity could not be computed: {error}"));
                None
            })
        });
        if rows.reservoir.as_ref().is_some_and(|reservoir| !reservoir.complete()) {
            let sampled = if unit_exact {
                "uniformity and duplicate_rows"
            } else {
                "uniformity, w2_uniformity and duplicate_rows"
            };
            let (kept, total) = (reservoir::CAPACITY, moments.rows());
            notes.push(format!("{sampled} come from a sample of {kept} of {total} rows"));
        }
        let spectrum =
            covariance.map(|solved| Spectrum { values: solved.values, numeric_floor: solved.floor, input_floor });
        Solved { spectrum, second_moment, unit, uniformity }
    }

    fn eigenvalues(&self, problem: &Problem) -> Result<Eigenvalues, SolveError> {
        if problem.is_zero() {
            return Ok(problem.check(vec![0.0; problem.matrix().nrows()])?);
        }
        Ok(problem.check(self.backend.eigenvalues(problem.matrix())?)?)
    }

    /// Through the smaller of X^T X and X X^T: they share their nonzero eigenvalues.
    fn by_gram(&self, rows: &[(Vec<f64>, f64)], centre: &[f64]) -> Result<Eigenvalues, SolveError> {
        let x = spectrum::weighted_columns(rows, centre);
        let gram = self.backend.gram(&x, x.ncols() > x.nrows())?;
        self.eigenvalues(&Problem::of_gram(gram, centre.len()))
    }

    fn of_unit_scatter(&self, rows: &Accumulator, scatter: &Packed) -> Result<Eigenvalues, SolveError> {
        let count = rows.unit.as_ref().map_or(rows.moments.rows(), |unit| unit.rows);
        self.eigenvalues(&Problem::of_gram(scatter.to_full() / count as f64, rows.moments.dim()))
    }
}

/// What no alarm says, but a reader should know.
fn remarks(window: &Window<'_>) -> Vec<String> {
    let (m, dim) = (window.measures, window.dim as f64);
    let mut notes = Vec::new();
    for (what, count) in [("are dead", m.dead_dims), ("copy others", m.duplicate_dims)] {
        if let Some(count) = count.filter(|count| dim > 1.0 && *count >= dim / 2.0 && m.entropy_rank.is_some()) {
            notes.push(format!("{count} of {dim} coordinates {what}: what is left may still be spread out"));
        }
    }
    if window.non_negative {
        notes.push(
            "no entry is below zero, as behind a ReLU: the scale axis compares with the run's own best windows, of which it needs five"
                .to_string(),
        );
    }
    notes
}

#[derive(Debug, thiserror::Error)]
enum SolveError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error(transparent)]
    Spectrum(#[from] SpectrumError),
}
