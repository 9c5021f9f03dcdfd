//! Turns a measured window into its methods' diagnostics: every group whose inputs were sent, and notes on the others.

use super::gathered::Gathered;
use super::kernels::DiagnosticKernels;
use super::loss_constant::{LossConstant, at_constant};
use super::measured_layer::{MeasuredLayer, SOLVABLE};
use super::subject::Subject;
use super::table::{
    BatchNormDiagnostics, Diagnostics, LossDiagnostics, NeighborsDiagnostics, PredictorDiagnostics,
    PrototypeTargetsDiagnostics, PrototypesDiagnostics, TeacherDiagnostics, TripletDiagnostics,
};
use super::two_views::ROWS_PER_DIM;
use super::{label_fit, needs, normalisation, predictors, relations, terms, two_views, within_between};
use crate::analysis::companions::MAX_WEIGHT_DIM;
use crate::analysis::measures::entropy_rank;
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

#[derive(Clone, Debug, Default)]
pub struct Diagnosed {
    pub diagnostics: Diagnostics,
    pub constant: Option<LossConstant>,
    /// What to send, and what failed.
    pub notes: Vec<String>,
    /// Number of kernel calls that failed.
    pub failures: usize,
}

pub(crate) fn diagnose(subject: &Subject<'_>, kernels: &DiagnosticKernels<'_>) -> Diagnosed {
    let mut diagnosed = fill(subject, kernels);
    diagnosed.diagnostics.finite();
    diagnosed
}

fn fill(subject: &Subject<'_>, kernels: &DiagnosticKernels<'_>) -> Diagnosed {
    let mut out = Diagnosed { notes: needs::notes(subject.method, &subject.gathered.sent), ..Diagnosed::default() };
    out.notes.extend(subject.gathered.notes.iter().map(|note| (*note).to_string()));
    out.fill_assignments(subject, kernels);
    out.fill_loss(subject);
    out.fill_row_pairs(subject.gathered);
    let Some(layer) = subject.layers.get(&Role::Embedding) else { return out };
    out.fill_teacher(subject, layer);
    out.fill_batch_norm(subject, layer);
    out.fill_terms(subject, layer);
    out.fill_predictions(subject, layer);
    out.diagnostics.simplex = subject.gathered.cosines.map(|cosines| cosines.values());
    let total = layer.measures.total_variance.unwrap_or(0.0);
    if !subject.skip_factorisations && SOLVABLE.contains(&total) {
        out.fill_views(layer, kernels);
        out.fill_predictor_weight(subject.gathered, layer, kernels);
        out.fill_groups(subject.gathered, layer, kernels);
        out.fill_graph(subject.gathered, layer, kernels);
    }
    out
}

impl Diagnosed {
    /// A kernel's result; a failure is counted and noted.
    fn keep<T>(&mut self, what: &str, result: Result<T, String>) -> Option<T> {
        result
            .map_err(|why| {
                self.failures += 1;
                self.notes.push(format!("{what} could not be computed: {why}"));
            })
            .ok()
    }

    fn fill_assignments(&mut self, subject: &Subject<'_>, kernels: &DiagnosticKernels<'_>) {
        let gathered = subject.gathered;
        let assignments = &gathered.assignments;
        let gram = gathered.prototype_gram.as_ref().filter(|_| !subject.skip_factorisations);
        let weight_rank = gram
            .and_then(|gram| self.keep("the rank of the prototypes", (kernels.eigenvalues)(gram)))
            .and_then(|eigenvalues| entropy_rank(&eigenvalues));
        let student = assignments.student.as_ref();
        if student.is_some() || weight_rank.is_some() {
            self.diagnostics.prototypes = Some(PrototypesDiagnostics {
                count: student.map(|usage| usage.sums.len() as f64).or(subject.scalars.get("prototypes").copied()),
                entropy: student.map(|usage| usage.entropy()),
                marginal_entropy: student.map(|usage| usage.marginal_entropy()),
                information: student.map(|usage| usage.marginal_entropy() - usage.entropy()),
                divergence: assignments.divergence(),
                largest_share: student.map(|usage| usage.largest_share()),
                usage: student.map(|usage| usage.usage()),
                usage_share: student.map(|usage| usage.usage_share()),
                dead_share: student.map(|usage| usage.dead_share()),
                weight_entropy_rank: weight_rank,
            });
        }
        self.diagnostics.prototype_targets = assignments.target.as_ref().map(|usage| PrototypeTargetsDiagnostics {
            count: Some(usage.sums.len() as f64),
            entropy: Some(usage.entropy()),
            marginal_entropy: Some(usage.marginal_entropy()),
            information: Some(usage.marginal_entropy() - usage.entropy()),
            largest_share: Some(usage.largest_share()),
            usage: Some(usage.usage()),
            dead_share: Some(usage.dead_share()),
        });
    }

    fn fill_loss(&mut self, subject: &Subject<'_>) {
        let Some(value) = subject.scalars.get("loss").copied() else { return };
        // The constant's ingredients, if the tensors give them.
        let mut scalars = subject.scalars.clone();
        if let Some((_, _, count)) = subject.gathered.scores().filter(|(_, _, count)| *count > 0) {
            scalars.entry("prototypes").or_insert(count as f64);
        }
        if let Some(layer) = subject.layers.get(&Role::Embedding) {
            scalars.insert("dim", layer.rows.moments.dim() as f64);
        }
        self.constant = subject.method.and_then(|method| at_constant(value, method, &scalars));
        self.diagnostics.loss = Some(LossDiagnostics {
            value: Some(value),
            constant: self.constant.as_ref().map(|constant| constant.value),
            distance: self.constant.as_ref().map(|constant| constant.distance),
            text: self.constant.as_ref().map(LossConstant::text),
        });
        if let Some(constant) = self.constant.as_ref().filter(|constant| constant.holds()) {
            self.notes.push(format!("loss {value:.4} = {}: {}", constant.formula, constant.meaning));
        }
    }

    fn fill_row_pairs(&mut self, gathered: &Gathered) {
        let (positive, negative) = (gathered.positives.distance(), gathered.negatives.distance());
        self.diagnostics.triplet = positive.zip(negative).map(|(positive, negative)| TripletDiagnostics {
            positive_distance: Some(positive),
            negative_distance: Some(negative),
            distance_gap: Some(negative - positive),
        });
        let (shares, batches) = gathered.neighbors;
        let unique_share = (batches > 0).then(|| shares / batches as f64);
        self.diagnostics.neighbors = unique_share.map(|share| NeighborsDiagnostics { unique_share: Some(share) });
    }

    fn fill_teacher(&mut self, subject: &Subject<'_>, student: &MeasuredLayer<'_>) {
        let Some(layer) = subject.layers.get(&Role::Teacher) else { return };
        let ratio = layer.measures.entropy_rank.zip(student.measures.entropy_rank).map(|(t, s)| t / s);
        // Few rows have few eigenvalues: spectra from very different numbers of rows differ for that reason alone.
        let (rows, others) = (layer.rows.samples, student.rows.samples);
        let alike = rows <= 2 * others && others <= 2 * rows;
        let gap = layer.measures.center_norm.zip(student.measures.center_norm).map(|(t, s)| t - s);
        self.diagnostics.teacher = Some(TeacherDiagnostics {
            cosine: subject.gathered.teacher.cosine(),
            entropy_rank_ratio: ratio,
            spectrum_distance: alike.then_some(()).and_then(|()| {
                let (teacher, student) = layer.eigenvalues.zip(student.eigenvalues)?;
                spectrum_distance(teacher, student)
            }),
            center_norm_gap: gap,
        });
    }

    fn fill_batch_norm(&mut self, subject: &Subject<'_>, post: &MeasuredLayer<'_>) {
        let Some(pre) = subject.layers.get(&Role::PreBn) else { return };
        let scalar = |name: &str| subject.scalars.get(name).copied();
        match scalar("bn_eps").zip(scalar("bn_gamma")) {
            Some((eps, gamma)) => self.diagnostics.batch_norm = Some(normalisation::around(pre, post, eps, gamma)),
            None => {
                self.diagnostics.batch_norm = Some(BatchNormDiagnostics {
                    pre_std: Some((pre.rows.moments.total_variance() / pre.rows.moments.dim() as f64).sqrt()),
                    pre_mean_cosine: pre.measures.mean_cosine,
                    pre_center_norm: pre.measures.center_norm,
                    post_center_norm: post.measures.center_norm,
                    ..BatchNormDiagnostics::default()
                });
                self.notes.push(
                    "send bn_eps and bn_gamma with pre_bn to detect a collapse that batch norm hides".to_string(),
                );
            }
        }
    }

    fn fill_terms(&mut self, subject: &Subject<'_>, layer: &MeasuredLayer<'_>) {
        let Some(pairs) = &layer.rows.pairs else { return };
        let scalar = |name: &str| subject.scalars.get(name).copied();
        self.diagnostics.vicreg =
            scalar("gamma").filter(|_| subject.method == Some(Method::Vicreg)).map(|gamma| terms::vicreg(pairs, gamma));
        self.diagnostics.barlow = scalar("lambda")
            .filter(|_| subject.method == Some(Method::Barlow))
            .map(|lambda| terms::barlow(pairs, lambda));
    }

    fn fill_views(&mut self, layer: &MeasuredLayer<'_>, kernels: &DiagnosticKernels<'_>) {
        let Some(pairs) = &layer.rows.pairs else { return };
        let (samples, dim) = (layer.rows.samples, layer.rows.moments.dim());
        if (samples as f64) < ROWS_PER_DIM * dim as f64 {
            self.notes.push(format!(
                "mutual_information and linear_r2 need 10 samples per dimension in a window: {samples} of {}",
                10 * dim
            ));
            return;
        }
        let shared = self.keep("what the views share", two_views::shared(pairs, kernels)).flatten();
        if let Some(shared) = shared {
            self.diagnostics.predictor.get_or_insert_default().linear_r2 = shared.linear_r2;
            self.diagnostics.mutual_information = Some(shared.information);
        }
    }

    fn fill_predictions(&mut self, subject: &Subject<'_>, layer: &MeasuredLayer<'_>) {
        if let Some(prediction) = subject.layers.get(&Role::Prediction) {
            let values: &mut PredictorDiagnostics = self.diagnostics.predictor.get_or_insert_default();
            let ranks = prediction.measures.entropy_rank.zip(layer.measures.entropy_rank);
            values.entropy_rank_ratio = ranks.map(|(p, z)| p / z);
            values.cosine = subject.gathered.predictions.cosine();
        }
    }

    fn fill_predictor_weight(
        &mut self,
        gathered: &Gathered,
        layer: &MeasuredLayer<'_>,
        kernels: &DiagnosticKernels<'_>,
    ) {
        let Some(weight) = &gathered.predictor_weight else { return };
        if weight.nrows() != layer.rows.moments.dim() {
            self.notes.push("predictor_weight has another dimension than z: it was left out".to_string());
            return;
        }
        let found = predictors::against_second_moment(weight, &layer.rows.moments, layer.measures, kernels);
        if let Some((alignment, commutator)) = self.keep("the predictor's alignment", found) {
            let values = self.diagnostics.predictor.get_or_insert_default();
            values.eigenvector_alignment = alignment;
            values.commutator = commutator;
        }
    }

    fn fill_groups(&mut self, gathered: &Gathered, layer: &MeasuredLayer<'_>, kernels: &DiagnosticKernels<'_>) {
        let dim = layer.rows.moments.dim();
        if dim > MAX_WEIGHT_DIM && (gathered.ids.is_some() || gathered.labels.is_some()) {
            self.notes
                .push(format!("lidar, graph and labels are not computed above dimension {MAX_WEIGHT_DIM}: {dim}"));
            return;
        }
        if let Some(groups) = &gathered.ids {
            let found = within_between::lidar(groups, kernels);
            let too_few = matches!(found, Ok(None));
            self.diagnostics.lidar = self.keep("lidar", found).flatten();
            if too_few {
                self.notes.push(
                    "lidar needs two ids with at least two rows each: send several views, or repeat ids".to_string(),
                );
            }
        }
        if let Some(groups) = &gathered.labels {
            let (rows, dim) = (groups.moments.rows(), layer.rows.moments.dim());
            let found = label_fit::fit(groups, kernels);
            let too_few = matches!(found, Ok(None));
            self.diagnostics.labels = self.keep("the fit of labels", found).flatten();
            if too_few {
                self.notes.push(format!(
                    "labels need two classes and 10 rows per dimension in a window: {} classes, {rows} of {} rows",
                    groups.by_id.len(),
                    10 * dim
                ));
            }
        }
        for (what, groups) in [("ids", &gathered.ids), ("labels", &gathered.labels)] {
            if let Some(groups) = groups.as_ref().filter(|groups| groups.left_out > 0) {
                let (kept, left_out) = (groups.by_id.len(), groups.left_out);
                self.notes.push(format!(
                    "the first {kept} {what} of the window are used; {left_out} rows of others are left out"
                ));
            }
        }
    }

    fn fill_graph(&mut self, gathered: &Gathered, layer: &MeasuredLayer<'_>, kernels: &DiagnosticKernels<'_>) {
        let found = match (&gathered.edges, &gathered.ids, &layer.rows.pairs) {
            (Some(edges), _, _) => {
                if edges.too_many {
                    self.notes.push(
                        "the eigenspace of edges is computed from batches of at most 1024 rows: push fewer rows at a time"
                            .to_string(),
                    );
                }
                Ok(edges.values(layer))
            }
            (None, Some(_), _) if layer.rows.moments.dim() > MAX_WEIGHT_DIM => return,
            (None, Some(groups), _) => relations::by_ids(groups, layer, kernels),
            (None, None, Some(pairs)) => relations::by_views(pairs, gathered.view_means.as_ref(), layer, kernels),
            (None, None, None) => return,
        };
        self.diagnostics.graph = self.keep("the relation graph", found);
    }
}

/// 1/2 sum |p_i - q_i| of the normalised eigenvalues, each descending.
fn spectrum_distance(a: &[f64], b: &[f64]) -> Option<f64> {
    let (total_a, total_b): (f64, f64) = (a.iter().sum(), b.iter().sum());
    if total_a <= 0.0 || total_b <= 0.0 || a.len() != b.len() {
        return None;
    }
    Some(a.iter().zip(b).map(|(a, b)| (a / total_a - b / total_b).abs()).sum::<f64>() / 2.0)
}
