//! A window's reports: their shape, shared by the answers, the history and the OpenAPI document, and the one pure
//! function that makes them.
//!
//! Guarantees: an undefined value is `None`, null in JSON. Must not: solve (the spectra are arguments), lock, or read a
//! clock.

use std::collections::BTreeMap;

use kernels::lanczos::Estimate;
use kernels::provenance::{self, Provenances};
use kernels::spectrum::Spectrum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::measures::{AlphaFit, Measured, Measures, RankMe, Solved, measure};
use super::methods::{Diagnosed, DiagnosticKernels, Diagnostics, Gathered, MeasuredLayer, Subject, diagnose};
use super::parameters::Method;
use super::role::Role;
use super::verdict::{JudgedWindow, Thresholds, Verdict, VerdictMemory, VerdictState};
use super::window::Accumulator;

/// One window of one layer, measured and judged. An undefined value is null.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// The run's name; empty for a file.
    pub run: String,
    /// The layer's name, with the role's suffix.
    pub layer: String,
    /// The window's number.
    pub window: u64,
    /// From 1. A restarted trainer's rows for a closed window make the next revision.
    pub revision: u32,
    /// The largest step pushed.
    pub step: Option<u64>,
    /// Pooled rows: samples x views.
    pub rows: u64,
    /// N, the number of samples.
    pub samples: u64,
    /// V, the number of views per sample.
    pub views: usize,
    /// The dimension d; 0 if only scores over prototypes were sent.
    pub dim: usize,
    /// False while the window still accepts rows.
    pub closed: bool,
    /// Whether the rows of every worker are in.
    pub complete: bool,
    /// RFC 3339; null while the window is open.
    pub closed_at: Option<String>,
    /// The newest loss pushed.
    pub loss: Option<f64>,
    /// The measures.
    #[schema(inline)]
    pub measures: Measures,
    /// The methods' diagnostics by group; null if their inputs were not sent, and in derived layers.
    pub methods: Diagnostics,
    /// What computed the report, and how exactly.
    pub computed: Computed,
    /// Notes for the reader.
    pub notes: Vec<String>,
    /// The verdict of this window, not latched.
    pub verdict: Verdict,
}

/// What computed a report, and how exactly.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Computed {
    /// The devices, such as `cpu` or `cpu+cuda:0`.
    pub device: String,
    /// The arithmetic behind the moments: `f64`, `f32`, `bf16`.
    pub kernel: String,
    /// The eigensolver; empty if none ran.
    pub solver: String,
    /// Whether every measure uses all rows: false if one is sampled, estimated or skipped.
    pub exact: bool,
    /// Measures that are estimates, because the spectrum was too large to solve.
    pub estimated: Vec<String>,
    /// By measure: 95 % confidence intervals, or bounds set by the noise floor.
    #[schema(value_type = BTreeMap<String, Vec<f64>>)]
    pub intervals: BTreeMap<String, (f64, f64)>,
    /// The ranks that alpha was fitted over.
    pub alpha_fit: Option<AlphaFit>,
    /// The variant of RankMe.
    pub rankme: Option<RankMe>,
    /// The thresholds the verdict used.
    pub thresholds: BTreeMap<String, f64>,
}

/// What a window has gathered, for the layer pushed to and those derived from it.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// By role.
    pub roles: BTreeMap<Role, Accumulator>,
    pub(crate) gathered: Gathered,
    /// The newest value of each scalar parameter.
    pub scalars: BTreeMap<&'static str, f64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Heading {
    pub run: String,
    pub layer: String,
    pub window: u64,
    pub revision: u32,
    pub step: Option<u64>,
    /// How the window closed; `None` if it still accepts rows.
    pub closed: Option<Closed>,
    pub notes: Vec<String>,
}

/// How a window closed.
#[derive(Clone, Debug, Default)]
pub struct Closed {
    /// Whether the rows of every worker are in.
    pub complete: bool,
    /// RFC 3339; `None` for a file.
    pub at: Option<String>,
}

pub(crate) struct Judging<'a> {
    pub thresholds: &'a Thresholds,
    pub method: Option<Method>,
    /// The verdict's memory by role; `None` if the rows stand alone, as in a file.
    pub memory: Option<&'a mut BTreeMap<Role, VerdictMemory>>,
    /// Whether diagnostics may factorise d x d matrices: not if the solvers are behind or the memory limit does not
    /// allow it.
    pub factorise: bool,
}

/// A report and its eigenvalues.
#[derive(Debug)]
pub struct FullReport {
    /// The report.
    pub report: Report,
    /// `None` if the solver failed or was skipped. Fewer than d values if the spectrum was estimated.
    pub spectrum: Option<Spectrum>,
}

/// The report alone: the spectrum has its own endpoint.
impl Serialize for FullReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.report.serialize(serializer)
    }
}

impl FullReport {
    /// The eigenvalues, descending: all of them, or for an estimated spectrum the first ones.
    pub fn eigenvalues(&self) -> Option<&[f64]> {
        self.spectrum.as_ref().map(|spectrum| spectrum.values.as_slice())
    }

    /// Whether every eigenvalue is known; `None` without a spectrum.
    pub(crate) fn complete_spectrum(&self) -> Option<bool> {
        self.eigenvalues().map(|values| values.len() == self.report.dim)
    }
}

#[derive(Debug)]
pub(crate) struct MadeReports {
    /// The report of the layer pushed to, then those of the layers derived from it.
    pub reports: Vec<FullReport>,
    pub failures: usize,
}

/// Measures, diagnoses and judges a window whose spectra are known.
pub(crate) fn make(
    content: &Content,
    mut solved: BTreeMap<Role, Solved>,
    heading: &Heading,
    mut judging: Judging<'_>,
    kernels: &DiagnosticKernels<'_>,
) -> MadeReports {
    let rankme = RankMe::from_scalars(&content.scalars);
    let mut layers: Vec<MeasuredRole<'_>> = Vec::new();
    for (role, rows) in &content.roles {
        let solved = solved.remove(role).unwrap_or_default();
        layers.push(MeasuredRole { role: *role, rows: Some(rows), measured: measure(rows, &solved, rankme), solved });
    }
    let diagnosed = diagnose_layers(content, &layers, &judging, kernels);
    if !content.roles.contains_key(&Role::Embedding) && content.gathered.scores().is_some() {
        layers.insert(0, MeasuredRole::of_scores());
    }
    let failures = diagnosed.failures + layers.iter().map(|layer| layer.solved.failures).sum::<usize>();
    let mut reports = Vec::new();
    for layer in layers {
        let verdict = layer.judge(content, heading.step, &diagnosed, &mut judging);
        let computed = layer.computed(rankme, judging.thresholds);
        let mut full = layer.report(content, heading, computed, verdict);
        if reports.is_empty() {
            full.report.notes.extend(diagnosed.notes.iter().cloned());
            full.report.methods = diagnosed.diagnostics.clone();
        }
        if full.report.verdict.state == VerdictState::WarmingUp {
            full.report.notes.push(WARMING_UP.to_string());
        }
        reports.push(full);
    }
    MadeReports { reports, failures }
}

const WARMING_UP: &str = "warming up: an untrained network looks collapsed, so no collapse is reported until the embeddings have spread out in two windows or the warm-up is over";

const SEND_Z: &str = "only scores over prototypes were sent: send z as well to measure the embeddings";

/// One role of a window, on its way to its report.
struct MeasuredRole<'a> {
    role: Role,
    /// `None` if only scores over prototypes were sent: there are no rows to measure.
    rows: Option<&'a Accumulator>,
    measured: Measured,
    solved: Solved,
}

fn diagnose_layers(
    content: &Content,
    layers: &[MeasuredRole<'_>],
    judging: &Judging<'_>,
    kernels: &DiagnosticKernels<'_>,
) -> Diagnosed {
    let mut by_role = BTreeMap::new();
    for layer in layers {
        if let Some(rows) = layer.rows {
            let eigenvalues = layer.solved.spectrum.as_ref().map(|spectrum| spectrum.values.as_slice());
            by_role.insert(layer.role, MeasuredLayer { rows, measures: &layer.measured.measures, eigenvalues });
        }
    }
    let subject = Subject {
        gathered: &content.gathered,
        layers: &by_role,
        scalars: &content.scalars,
        method: judging.method,
        skip_factorisations: !judging.factorise,
    };
    diagnose(&subject, kernels)
}

impl MeasuredRole<'_> {
    fn of_scores() -> Self {
        let solved = Solved { notes: vec![SEND_Z.to_string()], ..Solved::default() };
        Self { role: Role::Embedding, rows: None, measured: Measured::default(), solved }
    }

    fn judge(&self, content: &Content, step: Option<u64>, diagnosed: &Diagnosed, judging: &mut Judging<'_>) -> Verdict {
        let shape = self.shape(content);
        let window = JudgedWindow {
            measures: &self.measured.measures,
            samples: shape.samples,
            dim: shape.dim,
            non_negative: self.non_negative(),
            without_unit_rows: self.rows.is_some_and(|rows| rows.unit.is_none()),
            role: self.role,
            method: judging.method,
            diagnosed: Some(diagnosed),
            loss_windows: 0,
            rank_at_best: self.measured.intervals.get("entropy_rank").map(|(_, high)| *high),
        };
        match &mut judging.memory {
            Some(memory) => memory.entry(self.role).or_default().observe(&window, step, judging.thresholds),
            None => VerdictMemory::alone(&window, judging.thresholds),
        }
    }

    fn report(self, content: &Content, heading: &Heading, computed: Computed, verdict: Verdict) -> FullReport {
        let shape = self.shape(content);
        let notes = [heading.notes.clone(), self.solved.notes.clone(), self.remarks()].concat();
        let report = Report {
            run: heading.run.clone(),
            layer: format!("{}{}", heading.layer, self.role.suffix()),
            window: heading.window,
            revision: heading.revision,
            step: heading.step,
            rows: shape.rows,
            samples: shape.samples,
            views: shape.views,
            dim: shape.dim,
            closed: heading.closed.is_some(),
            complete: heading.closed.as_ref().is_some_and(|closed| closed.complete),
            closed_at: heading.closed.as_ref().and_then(|closed| closed.at.clone()),
            loss: content.scalars.get("loss").copied(),
            methods: Diagnostics::default(),
            computed,
            notes,
            verdict,
            measures: self.measured.measures,
        };
        FullReport { spectrum: known_spectrum(self.solved, &report.measures), report }
    }

    fn computed(&self, rankme: RankMe, thresholds: &Thresholds) -> Computed {
        let (measured, solved_by) = (&self.measured, &self.solved.provenances);
        let summed_by = self.rows.map(|rows| rows.moments.provenances().clone()).unwrap_or_default();
        let all: Provenances = summed_by.union(solved_by).copied().collect();
        Computed {
            device: provenance::devices(&all),
            kernel: provenance::kernels(&summed_by),
            solver: provenance::kernels(solved_by),
            exact: self.solved.spectrum.is_some() && measured.estimated.is_empty() && !measured.sampled,
            estimated: measured.estimated.clone(),
            intervals: measured.intervals.clone(),
            alpha_fit: measured.alpha_fit,
            rankme: Some(rankme),
            thresholds: thresholds.by_name(),
        }
    }

    fn shape(&self, content: &Content) -> ReportSizes {
        match self.rows {
            Some(rows) => ReportSizes {
                rows: rows.moments.rows(),
                samples: rows.samples,
                views: rows.views,
                dim: rows.moments.dim(),
            },
            None => {
                let (samples, views, _) = content.gathered.scores().unwrap_or_default();
                ReportSizes { rows: samples * views, samples, views: views as usize, dim: 0 }
            }
        }
    }

    fn non_negative(&self) -> bool {
        let statistics = self.rows.and_then(|rows| rows.statistics.as_ref());
        statistics.is_some_and(|statistics| !statistics.has_negative)
    }

    fn remarks(&self) -> Vec<String> {
        let m = &self.measured.measures;
        let dim = self.rows.map_or(0.0, |rows| rows.moments.dim() as f64);
        let mut notes = Vec::new();
        for (what, count) in [("are dead", m.dead_dims), ("copy others", m.duplicate_dims)] {
            if let Some(count) = count.filter(|count| dim > 1.0 && *count >= dim / 2.0 && m.entropy_rank.is_some()) {
                notes.push(format!("{count} of {dim} coordinates {what}: the others may still be spread out"));
            }
        }
        if self.non_negative() {
            notes.push(
                "no entry is negative, as after a ReLU: the scale axis compares with the run's own best windows and needs five of them"
                    .to_string(),
            );
        }
        notes
    }
}

struct ReportSizes {
    rows: u64,
    samples: u64,
    views: usize,
    dim: usize,
}

/// The solved spectrum, or the first eigenvalues of an estimated one.
fn known_spectrum(solved: Solved, measures: &Measures) -> Option<Spectrum> {
    let estimated = |estimate: Estimate| {
        Some(Spectrum {
            values: estimate.resolved(),
            numeric_floor: measures.numeric_noise_floor?,
            input_floor: measures.input_noise_floor?,
        })
    };
    solved.spectrum.or_else(|| solved.estimate.and_then(estimated))
}
