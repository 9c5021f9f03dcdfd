//! Rows grouped by the id or label they were pushed with: count, mean and spread of each group, and the moments of all.
//!
//! Guarantees: rows are grouped by the id's value, never by position; a worker keeps the first [`capacity`] ids of a
//! window; rows of later ids are left out everywhere here, and counted.

use std::collections::{BTreeMap, BTreeSet};

use nalgebra::DMatrix;

use crate::analysis::decode::DecodeError;
use kernels::moments::Moments;
use kernels::rows::Rows;

/// Bytes that a worker's group means may take.
const MEAN_BYTES: usize = 16 << 20;
/// The limit on ids at small dimensions.
const MOST_IDS: usize = 4096;

/// How many ids a worker can hold at dimension `dim`.
pub(super) fn capacity(dim: usize) -> usize {
    (MEAN_BYTES / (8 * dim)).clamp(64, MOST_IDS)
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) rows: u64,
    pub(super) mean: Vec<f64>,
    /// Sum over the rows of |z - mean|^2.
    pub(super) scatter: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Groups {
    pub(super) by_id: BTreeMap<i64, Group>,
    pub(super) moments: Moments,
    /// Rows whose id came after the last that fits.
    pub(super) left_out: u64,
}

impl Groups {
    pub(super) fn empty(dim: usize) -> Self {
        Self { by_id: BTreeMap::new(), moments: Moments::empty(dim), left_out: 0 }
    }

    pub(super) fn bytes(dim: usize) -> usize {
        capacity(dim) * (8 * dim + 64) + 4 * dim * (dim + 1)
    }

    pub(super) fn add(
        &mut self,
        views: &[Rows],
        ids: &[i64],
        moments: &dyn Fn(&Rows) -> Result<Moments, String>,
    ) -> Result<(), String> {
        let dim = self.moments.dim();
        let mut free = capacity(dim).saturating_sub(self.by_id.len());
        let mut new = BTreeSet::new();
        let mut kept = Vec::with_capacity(ids.len());
        for id in ids {
            let known = self.by_id.contains_key(id) || new.contains(id);
            if !known && free > 0 {
                free -= 1;
                new.insert(*id);
            }
            kept.push(known || new.contains(id));
        }
        // The kernels first: one that fails must not leave half a batch.
        let mut reduced = Vec::new();
        for view in views {
            if let Some(rows) = selected(view, &kept).map_err(|error| error.to_string())? {
                reduced.push(moments(&rows)?);
            }
        }
        reduced.iter().for_each(|moments| self.moments.merge(moments));
        for view in views {
            let mut row = vec![0.0; dim];
            for (index, id) in ids.iter().enumerate() {
                if !kept[index] {
                    self.left_out += 1;
                    continue;
                }
                view.read(index, 1, &mut row);
                self.by_id.entry(*id).or_insert_with(|| Group::empty(dim)).push(&row);
            }
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: &Groups) {
        for (id, group) in &other.by_id {
            match self.by_id.get_mut(id) {
                Some(mine) => mine.merge(group),
                None => drop(self.by_id.insert(*id, group.clone())),
            }
        }
        self.moments.merge(&other.moments);
        self.left_out += other.left_out;
    }

    /// sum_g n_g (m_g - m)(m_g - m)^T, m the mean of all rows.
    pub(super) fn between(&self) -> DMatrix<f64> {
        let columns = self.weighted_means(self.moments.mean(), |group| group.rows as f64);
        &columns * columns.transpose()
    }

    /// sqrt(w_g) (m_g - c), one column per group.
    pub(super) fn weighted_means(&self, centre: &[f64], weight: impl Fn(&Group) -> f64) -> DMatrix<f64> {
        let mut columns = DMatrix::zeros(centre.len(), self.by_id.len());
        for (mut column, group) in columns.column_iter_mut().zip(self.by_id.values()) {
            let scale = weight(group).sqrt();
            for ((out, mean), centre) in column.iter_mut().zip(&group.mean).zip(centre) {
                *out = scale * (mean - centre);
            }
        }
        columns
    }
}

impl Group {
    fn empty(dim: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; dim], scatter: 0.0 }
    }

    fn push(&mut self, row: &[f64]) {
        self.rows += 1;
        let share = 1.0 / self.rows as f64;
        for (mean, x) in self.mean.iter_mut().zip(row) {
            let delta = x - *mean;
            *mean += delta * share;
            self.scatter += delta * (x - *mean);
        }
    }

    fn merge(&mut self, other: &Group) {
        let (a, b) = (self.rows as f64, other.rows as f64);
        let mut apart = 0.0;
        for (mean, theirs) in self.mean.iter_mut().zip(&other.mean) {
            let delta = theirs - *mean;
            apart += delta * delta;
            *mean += delta * (b / (a + b));
        }
        self.scatter += other.scatter + a * b / (a + b) * apart;
        self.rows += other.rows;
    }
}

/// The kept rows of a view; the view itself if all are kept.
fn selected(view: &Rows, kept: &[bool]) -> Result<Option<Rows>, DecodeError> {
    if kept.iter().all(|kept| *kept) {
        return Ok(Some(view.clone()));
    }
    let count = kept.iter().filter(|kept| **kept).count();
    if count == 0 {
        return Ok(None);
    }
    let mut values = vec![0.0; count * view.dim()];
    let mut rows = values.chunks_exact_mut(view.dim());
    for (index, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        if let Some(row) = rows.next() {
            view.read(index, 1, row);
        }
    }
    Ok(Some(Rows::from_f64((count, view.dim()), &values)?))
}
