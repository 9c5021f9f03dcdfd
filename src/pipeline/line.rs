//! The line itself: accumulate a batch, and turn a window into reports. Whoever has read it has read the product.
//!
//! Guarantees: pure but for the backend and the stage timers. Must not: know about runs, queues or clocks.

use std::collections::BTreeMap;

use super::solve::exact_bytes;
use super::solver_room::SolverRoom;
use crate::analysis::batch::{EmbeddingBatch, Part, Payload, Role};
use crate::analysis::floats::Rows;
use crate::analysis::lanczos::Estimate;
use crate::analysis::measures::{self, Measured, RankMe, Solved};
use crate::analysis::methods::{self, Diagnosed, Gathered, MeasuredLayer, Subject};
use crate::analysis::moments::{Moments, Packed};
use crate::analysis::origin::{self, Origins, Precision};
use crate::analysis::pairs::ViewMoments;
use crate::analysis::parameters::{Method, Parameters};
use crate::analysis::report::Computed;
use crate::analysis::reservoir;
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
    /// In what arithmetic rows are summed whose push does not say.
    pub precision: Precision,
    /// The memory that solves may take.
    pub room: &'a SolverRoom,
}

/// What a window has gathered: the layer that was pushed and those derived from it.
#[derive(Default)]
pub struct Content {
    /// By role.
    pub roles: BTreeMap<Role, Accumulator>,
    /// For the methods' diagnostics.
    pub gathered: Gathered,
    /// The newest value of each scalar parameter.
    pub scalars: BTreeMap<&'static str, f64>,
}

/// One layer's window measured and judged.
pub struct Outcome {
    /// What the layer is to the one that was pushed.
    pub role: Role,
    /// Pooled rows, samples N, views V, dimension d; d is 0 where scores over prototypes were all there was.
    pub shape: (u64, u64, usize, usize),
    /// The measures.
    pub measured: Measured,
    /// The methods' diagnostics; empty but for the first layer of a window.
    pub diagnosed: Diagnosed,
    /// The eigenvalues, descending, where they could be had: all of them, or the first that are known.
    pub eigenvalues: Option<Vec<f64>>,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether every measure comes from all rows.
    pub exact: bool,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Solver results that were not taken.
    pub failures: usize,
    /// The kernels that summed the rows; none where a trainer did.
    pub summed_by: Origins,
    /// The eigensolvers.
    pub solved_by: Origins,
}

/// How the verdict is to be reached.
pub struct Judging<'a> {
    /// Thresholds in force.
    pub thresholds: &'a Thresholds,
    /// The layers' memory; `None`: the rows stand alone, as in a file.
    pub streams: Option<&'a mut BTreeMap<Role, Stream>>,
    /// The trainer's step.
    pub step: Option<u64>,
    /// The method that the run named.
    pub method: Option<Method>,
    /// Why the eigenvalues are left out, if they are.
    pub skip_spectrum: Option<Skip>,
}

/// Why a window is measured without eigenvalues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The solvers are behind.
    Behind,
    /// No batch asked for them.
    NotAsked,
}

impl Skip {
    fn note(self) -> &'static str {
        match self {
            Skip::Behind => "the eigenvalues of this window were skipped: the spectrum threads are behind",
            Skip::NotAsked => {
                "every batch of this window came with spectrum=false: what needs eigenvalues is left out, and the window counts neither towards a collapse nor out of one"
            }
        }
    }
}

/// One role on its way through `process`.
struct Solving {
    role: Role,
    solved: Solved,
    measured: Measured,
    notes: Vec<String>,
    failures: usize,
}

impl Line<'_> {
    /// One batch's rows, reduced as its parameters ask; with `unit_moments` the second moment of the unit rows as well.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn accumulate(&self, part: &Part, asked: &Parameters) -> Result<Accumulator, ComputeError> {
        let _timer = self.stages.enter(Stage::Accumulate);
        let views = match &part.payload {
            Payload::Moments(pushed) => return Ok(Accumulator::of_moments((**pushed).clone())),
            Payload::Views(views) => views,
        };
        let precision = asked.precision.unwrap_or(self.precision);
        let mut moments = self.backend.moments(&views[0], precision)?;
        let mut pairs = None;
        if let [_, second, others @ ..] = &views[..] {
            let first_two = [moments.clone(), self.backend.moments(second, precision)?];
            moments.merge(&first_two[1]);
            for view in others {
                moments.merge(&self.backend.moments(view, precision)?);
            }
            let cross = self.backend.cross((&views[0], &first_two[0]), (second, &first_two[1]))?;
            pairs = Some(ViewMoments::of(views, first_two, cross));
        }
        let mut rows = Accumulator::of_views(views, moments, pairs, reservoir::CAPACITY);
        if asked.unit_moments == Some(true) {
            rows.unit_scatter = self.unit_scatter(views)?;
        }
        Ok(rows)
    }

    /// The second moment of the unit rows of all views: as much work again as the moments.
    fn unit_scatter(&self, views: &[Rows]) -> Result<Option<Packed>, ComputeError> {
        let mut sum: Option<Moments> = None;
        for unit in views.iter().filter_map(Rows::unit) {
            let moments = self.backend.moments(&unit, Precision::F64)?;
            match &mut sum {
                Some(sum) => sum.merge(&moments),
                None => sum = Some(moments),
            }
        }
        Ok(sum.map(|moments| moments.scatter().clone()))
    }

    /// One batch's part in the methods' diagnostics.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn gather(&self, batch: &EmbeddingBatch, gathered: &mut Gathered) -> Result<(), String> {
        let _timer = self.stages.enter(Stage::Accumulate);
        self.with_kernels(|kernels| gathered.add(batch, kernels))
    }

    /// spectrum -> diagnose: a window's eigenvalues, measures, diagnostics and verdicts, the pushed layer first.
    pub fn process(&self, content: &Content, mut judging: Judging<'_>) -> Vec<Outcome> {
        let how = RankMe::of(&content.scalars);
        let mut solving: Vec<Solving> =
            content.roles.iter().map(|(role, rows)| self.measure(*role, rows, how, judging.skip_spectrum)).collect();
        let _timer = self.stages.enter(Stage::Diagnose);
        let diagnosed = self.diagnose(content, &solving, &judging);
        if !content.roles.contains_key(&Role::Embedding) && content.gathered.scores().is_some() {
            solving.insert(0, Solving::scores());
        }
        let judged = |step: Solving| {
            let verdict = judge(content, &step, &diagnosed, &mut judging);
            self.outcome(content, step, verdict)
        };
        let mut outcomes: Vec<Outcome> = solving.into_iter().map(judged).collect();
        if let Some(first) = outcomes.first_mut() {
            first.notes.extend(diagnosed.notes.iter().cloned());
            first.failures += diagnosed.failures;
            first.diagnosed = diagnosed;
        }
        outcomes
    }

    fn measure(&self, role: Role, rows: &Accumulator, how: RankMe, skip_spectrum: Option<Skip>) -> Solving {
        let mut notes = Vec::new();
        let mut failures = 0;
        let solved = if let Some(why) = skip_spectrum {
            notes.push(why.note().to_string());
            Solved::default()
        } else {
            let _timer = self.stages.enter(Stage::Spectrum);
            self.solve(rows, &mut notes, &mut failures)
        };
        let measured = measures::measure(rows, &solved, how);
        Solving { role, solved, measured, notes, failures }
    }

    fn diagnose(&self, content: &Content, solving: &[Solving], judging: &Judging<'_>) -> Diagnosed {
        let mut layers = BTreeMap::new();
        for step in solving {
            let eigenvalues = step.solved.spectrum.as_ref().map(|spectrum| spectrum.values.as_slice());
            if let Some(rows) = content.roles.get(&step.role) {
                layers.insert(step.role, MeasuredLayer { rows, measures: &step.measured.measures, eigenvalues });
            }
        }
        let dim = content.roles.values().map(|rows| rows.moments.dim()).max().unwrap_or(0);
        let subject = Subject {
            gathered: &content.gathered,
            layers: &layers,
            scalars: &content.scalars,
            method: judging.method,
            skip_factorisations: judging.skip_spectrum.is_some() || !self.room.holds(exact_bytes(dim)),
        };
        // Their products of d x d matrices: eight of them at a time in those between views.
        let _permit = (!subject.skip_factorisations).then(|| self.room.enter(64 * dim * dim));
        self.with_kernels(|kernels| methods::diagnose(&subject, kernels))
    }

    fn outcome(&self, content: &Content, step: Solving, verdict: Verdict) -> Outcome {
        let shape = shape(content, step.role);
        let sampled = step.measured.intervals.contains_key("uniformity");
        let exact = step.solved.spectrum.is_some() && step.measured.estimated.is_empty() && !sampled;
        let mut notes = step.notes;
        notes.extend(remarks(content, step.role, &step.measured));
        let rows = content.roles.get(&step.role);
        let known = step.solved.estimate.as_ref().map(Estimate::resolved);
        Outcome {
            role: step.role,
            shape,
            measured: step.measured,
            diagnosed: Diagnosed::default(),
            eigenvalues: step.solved.spectrum.map(|spectrum| spectrum.values).or(known),
            verdict,
            exact,
            notes,
            failures: step.failures,
            summed_by: rows.map(|rows| rows.moments.origins().clone()).unwrap_or_default(),
            solved_by: step.solved.origins,
        }
    }

    /// By what an outcome was computed.
    pub fn computed(&self, content: &Content, outcome: &Outcome, thresholds: &Thresholds) -> Computed {
        Computed {
            device: origin::devices(&outcome.summed_by.union(&outcome.solved_by).copied().collect()),
            kernel: origin::kernels(&outcome.summed_by),
            solver: origin::kernels(&outcome.solved_by),
            exact: outcome.exact,
            estimated: outcome.measured.estimated.clone(),
            intervals: outcome.measured.intervals.clone(),
            alpha_fit: outcome.measured.alpha_fit,
            rankme: Some(RankMe::of(&content.scalars)),
            thresholds: thresholds.list(),
        }
    }
}

impl Solving {
    /// A layer of which only scores over prototypes came: there are no rows to measure.
    fn scores() -> Self {
        Self {
            role: Role::Embedding,
            solved: Solved::default(),
            measured: Measured::default(),
            notes: vec!["send z for the measures of the embeddings: scores over prototypes came without".to_string()],
            failures: 0,
        }
    }
}

fn judge(content: &Content, step: &Solving, diagnosed: &Diagnosed, judging: &mut Judging<'_>) -> Verdict {
    let rows = content.roles.get(&step.role);
    let (_, samples, _, dim) = shape(content, step.role);
    let window = Window {
        measures: &step.measured.measures,
        samples,
        dim,
        non_negative: non_negative(rows),
        without_unit_rows: rows.is_some_and(|rows| rows.unit.is_none()),
        role: step.role,
        method: judging.method,
        diagnosed: Some(diagnosed),
        loss_windows: 0,
        rank_at_best: step.measured.intervals.get("entropy_rank").map(|(_, high)| *high),
    };
    match &mut judging.streams {
        Some(streams) => streams.entry(step.role).or_default().observe(&window, judging.step, judging.thresholds),
        None => Stream::alone(&window, judging.thresholds),
    }
}

/// (rows, samples, views, dim)
fn shape(content: &Content, role: Role) -> (u64, u64, usize, usize) {
    match content.roles.get(&role) {
        Some(rows) => (rows.moments.rows(), rows.samples, rows.views, rows.moments.dim()),
        None => {
            let (samples, views, _) = content.gathered.scores().unwrap_or_default();
            (samples * views, samples, views as usize, 0)
        }
    }
}

fn non_negative(rows: Option<&Accumulator>) -> bool {
    rows.and_then(|rows| rows.statistics.as_ref()).is_some_and(|statistics| !statistics.has_negative)
}

/// What no alarm says, but a reader should know.
fn remarks(content: &Content, role: Role, measured: &Measured) -> Vec<String> {
    let rows = content.roles.get(&role);
    let (m, dim) = (&measured.measures, rows.map_or(0.0, |rows| rows.moments.dim() as f64));
    let mut notes = Vec::new();
    for (what, count) in [("are dead", m.dead_dims), ("copy others", m.duplicate_dims)] {
        if let Some(count) = count.filter(|count| dim > 1.0 && *count >= dim / 2.0 && m.entropy_rank.is_some()) {
            notes.push(format!("{count} of {dim} coordinates {what}: what is left may still be spread out"));
        }
    }
    if non_negative(rows) {
        notes.push(
            "no entry is below zero, as behind a ReLU: the scale axis compares with the run's own best windows, of which it needs five"
                .to_string(),
        );
    }
    notes
}
