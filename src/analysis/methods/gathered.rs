//! What a window's batches add up to for the methods' diagnostics, next to the accumulators of the rows.
//!
//! Guarantees: mergeable across workers in order; bounded memory per worker. Must not: need a batch twice.

use std::collections::BTreeSet;

use nalgebra::DMatrix;

use super::assignments::{Assignments, Probabilities, Softmax};
use super::cosines::Cosines;
use super::groups::Groups;
use super::kernels::DiagnosticKernels;
use super::relations::Edges;
use super::row_pairs::RowPairs;
use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::parameters::SCALARS;
use crate::analysis::role::Role;
use kernels::moments::Moments;
use kernels::rows::Rows;

#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    /// Samples of score rows, for a layer without z.
    pub(super) samples: u64,
    /// Stems of the inputs that came: `z2`, `teacher1`, `loss`.
    pub(super) sent: BTreeSet<&'static str>,
    pub(super) teacher: RowPairs,
    pub(super) predictions: RowPairs,
    pub(super) positives: RowPairs,
    pub(super) negatives: RowPairs,
    pub(super) assignments: Assignments,
    /// W^T W of the newest prototypes W, d x d.
    pub(super) prototype_gram: Option<DMatrix<f64>>,
    pub(super) predictor_weight: Option<DMatrix<f64>>,
    pub(super) ids: Option<Groups>,
    pub(super) labels: Option<Groups>,
    pub(super) edges: Option<Edges>,
    pub(super) cosines: Option<Cosines>,
    /// Sum over batches of the share of distinct neighbours, and the number of batches.
    pub(super) neighbors: (f64, u64),
    /// Moments of the samples' view means, with more than two views.
    pub(super) view_means: Option<Moments>,
    /// Inputs that could not be used, and the remedy.
    pub(super) notes: BTreeSet<&'static str>,
}

impl Gathered {
    /// The most bytes that a batch like this can add, by purpose.
    pub(crate) fn bytes(batch: &EmbeddingBatch) -> [usize; 6] {
        let companions = &batch.companions;
        let square = |dim: usize| 8 * dim * dim;
        let (dim, views) = batch.views(Role::Embedding).map_or((1, 0), |(views, _)| (views[0].dim(), views.len()));
        let groups = |ids: &Option<Vec<i64>>| if views > 0 && ids.is_some() { Groups::bytes(dim) } else { 0 };
        [
            2 * 8 * companions.prototypes().unwrap_or(0),
            companions.prototype_weight.as_ref().map_or(0, |rows| square(rows.dim())),
            companions.predictor_weight.as_ref().map_or(0, |rows| square(rows.dim())),
            groups(&companions.ids),
            groups(&companions.labels),
            if views > 2 { square(dim) / 2 } else { 0 },
        ]
    }

    /// Adds one batch.
    pub(crate) fn add(&mut self, batch: &EmbeddingBatch, kernels: &DiagnosticKernels<'_>) -> Result<(), String> {
        self.note_sent(batch);
        self.add_assignments(batch);
        self.add_row_pairs(batch);
        let companions = &batch.companions;
        if let Some(neighbors) = &companions.neighbors {
            let unique: BTreeSet<i64> = neighbors.iter().copied().collect();
            self.neighbors.0 += unique.len() as f64 / neighbors.len() as f64;
            self.neighbors.1 += 1;
        }
        if let Some(prototypes) = &companions.prototype_weight {
            self.prototype_gram = Some(uncentred(&(kernels.moments)(prototypes)?));
        }
        if let Some(weight) = &companions.predictor_weight {
            let mut values = vec![0.0; weight.len() * weight.dim()];
            weight.read(0, weight.len(), &mut values);
            self.predictor_weight = Some(DMatrix::from_row_slice(weight.len(), weight.dim(), &values));
        }
        match batch.views(Role::Embedding) {
            Some((views, _)) => self.add_rows(batch, views, kernels),
            None => Ok(()),
        }
    }

    fn add_rows(
        &mut self,
        batch: &EmbeddingBatch,
        views: &[Rows],
        kernels: &DiagnosticKernels<'_>,
    ) -> Result<(), String> {
        let (companions, dim) = (&batch.companions, views[0].dim());
        for (ids, groups) in [(&companions.ids, &mut self.ids), (&companions.labels, &mut self.labels)] {
            if let Some(ids) = ids {
                groups.get_or_insert_with(|| Groups::empty(dim)).add(views, ids, kernels.moments)?;
            }
        }
        if let Some(edges) = &companions.edges {
            self.edges.get_or_insert_default().add(views, edges, kernels)?;
        }
        if self.cosines.is_none() {
            self.cosines = Cosines::from_view(&views[0], kernels)?;
        }
        if views.len() > 2 {
            let means = (kernels.moments)(&mean_of(views)?)?;
            self.view_means.get_or_insert_with(|| Moments::empty(dim)).merge(&means);
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: &Gathered) {
        self.samples += other.samples;
        self.sent.extend(&other.sent);
        self.notes.extend(&other.notes);
        self.teacher.merge(&other.teacher);
        self.predictions.merge(&other.predictions);
        self.positives.merge(&other.positives);
        self.negatives.merge(&other.negatives);
        self.assignments.merge(&other.assignments);
        self.neighbors = (self.neighbors.0 + other.neighbors.0, self.neighbors.1 + other.neighbors.1);
        self.prototype_gram = other.prototype_gram.clone().or(self.prototype_gram.take());
        self.predictor_weight = other.predictor_weight.clone().or(self.predictor_weight.take());
        merge_either(&mut self.ids, &other.ids, Groups::merge);
        merge_either(&mut self.labels, &other.labels, Groups::merge);
        merge_either(&mut self.edges, &other.edges, Edges::merge);
        merge_either(&mut self.cosines, &other.cosines, Cosines::merge);
        merge_either(&mut self.view_means, &other.view_means, Moments::merge);
    }

    /// (samples, views, K) if scores over prototypes came.
    pub(crate) fn scores(&self) -> Option<(u64, u64, usize)> {
        let usage = self.assignments.student.as_ref().or(self.assignments.target.as_ref());
        let rows = usage.map_or(0, |usage| usage.rows);
        let count = usage.map_or(0, |usage| usage.sums.len());
        (self.samples > 0).then(|| (self.samples, rows / self.samples.max(1), count))
    }

    fn note_sent(&mut self, batch: &EmbeddingBatch) {
        const TENSORS: [(Role, &[&str]); 4] = [
            (Role::Embedding, &["z1", "z2"]),
            (Role::Teacher, &["teacher1"]),
            (Role::Prediction, &["prediction1"]),
            (Role::PreBn, &["pre_bn"]),
        ];
        for (role, names) in TENSORS {
            let views = batch.parts.iter().find(|part| part.role == role).map_or(0, |part| part.views());
            self.sent.extend(names.iter().take(views));
        }
        let companions = &batch.companions;
        let sent = [
            ("logits1", !companions.logits.is_empty()),
            ("teacher_logits1", !companions.teacher_logits.is_empty()),
            ("codes1", !companions.codes.is_empty()),
            ("negative1", !companions.negatives.is_empty()),
            ("center", companions.center.is_some()),
            ("neighbors", companions.neighbors.is_some()),
            ("predictor_weight", companions.predictor_weight.is_some()),
        ];
        self.sent.extend(sent.iter().filter(|(_, came)| *came).map(|(name, _)| *name));
        let scalars = &batch.parameters.scalars;
        self.sent.extend(SCALARS.iter().filter(|name| scalars.contains_key(**name)));
    }

    fn add_assignments(&mut self, batch: &EmbeddingBatch) {
        let companions = &batch.companions;
        let Some(count) = companions.prototypes() else { return };
        if !self.assignments.fits(count) {
            self.notes
                .insert("a push with a different number of prototypes was left out: push it under another layer name");
            return;
        }
        let scalar = |name: &str| batch.parameters.scalars.get(name).copied();
        let student = scalar("temperature").map(|temperature| Softmax { temperature, center: None });
        let center = companions.center.as_deref();
        let teacher = scalar("teacher_temperature").map(|temperature| Softmax { temperature, center });
        if !companions.logits.is_empty() && student.is_none() {
            self.notes.insert("send temperature with logits: without it they cannot be turned into probabilities");
        }
        if !companions.teacher_logits.is_empty() && teacher.is_none() {
            self.notes.insert(
                "send teacher_temperature with teacher_logits: without it they cannot be turned into probabilities",
            );
        }
        let numbers: BTreeSet<usize> = [&companions.logits, &companions.teacher_logits, &companions.codes]
            .iter()
            .flat_map(|scores| scores.keys().copied())
            .collect();
        let mut read = false;
        for number in numbers {
            // Scores without their temperature are left out.
            let of =
                |scores: Option<&'_ Rows>, softmax: Option<Softmax<'_>>| scores.filter(|_| softmax.is_some()).cloned();
            let of_student = of(companions.logits.get(&number), student);
            let of_teacher = of(companions.teacher_logits.get(&number), teacher);
            let student = of_student.as_ref().map(|scores| Probabilities { scores, softmax: student });
            let teacher = of_teacher.as_ref().map(|scores| Probabilities { scores, softmax: teacher });
            let codes = companions.codes.get(&number).map(|scores| Probabilities { scores, softmax: None });
            let target = teacher.or(codes);
            read |= student.is_some() || target.is_some();
            self.assignments.add(student.as_ref(), target.as_ref());
        }
        if read {
            self.samples += companions.samples().unwrap_or(0) as u64;
        }
    }

    fn add_row_pairs(&mut self, batch: &EmbeddingBatch) {
        let embedding = batch.views(Role::Embedding);
        let teacher = batch.views(Role::Teacher);
        let of_view = |role: Option<(&[Rows], &[usize])>, number: usize| {
            let (views, numbers) = role?;
            numbers.iter().position(|sent| *sent == number).map(|index| views[index].clone())
        };
        if let Some((views, numbers)) = embedding {
            for (view, number) in views.iter().zip(numbers) {
                if let Some(teacher) = of_view(teacher, *number) {
                    self.teacher.add(view, &teacher);
                }
            }
            if let [anchor, positive, ..] = views
                && let Some(negative) = batch.companions.negatives.values().next()
            {
                self.positives.add(anchor, positive);
                self.negatives.add(anchor, negative);
            }
        }
        let Some((predictions, numbers)) = batch.views(Role::Prediction) else { return };
        for (prediction, number) in predictions.iter().zip(numbers) {
            // The target: the teacher of another view, as BYOL trains it; otherwise the teacher that came, otherwise
            // the other views.
            let (teachers, of) = teacher.unwrap_or((&[], &[]));
            let crossed = of.iter().position(|of| of != number).or(of.iter().position(|of| of == number));
            if let Some(target) = crossed {
                self.predictions.add(prediction, &teachers[target]);
                continue;
            }
            let (views, others) = embedding.unwrap_or((&[], &[]));
            for (view, _) in views.iter().zip(others).filter(|(_, other)| *other != number) {
                self.predictions.add(prediction, view);
            }
        }
    }
}

/// Z^T Z.
fn uncentred(moments: &Moments) -> DMatrix<f64> {
    kernels::spectrum::second_moment(moments) * moments.rows() as f64
}

/// The mean of each sample's views, N x d.
fn mean_of(views: &[Rows]) -> Result<Rows, String> {
    let (rows, dim) = (views[0].len(), views[0].dim());
    let (mut sum, mut values) = (vec![0.0; rows * dim], vec![0.0; rows * dim]);
    for view in views {
        view.read(0, rows, &mut values);
        for (sum, x) in sum.iter_mut().zip(&values) {
            *sum += x / views.len() as f64;
        }
    }
    Rows::from_f64((rows, dim), &sum).map_err(|error| error.to_string())
}

/// A worker that never sent an input does not affect the ones that did.
fn merge_either<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>, merge: impl FnOnce(&mut T, &T)) {
    match (mine.as_mut(), theirs) {
        (Some(mine), Some(theirs)) => merge(mine, theirs),
        (None, Some(theirs)) => *mine = Some(theirs.clone()),
        (_, None) => {}
    }
}
