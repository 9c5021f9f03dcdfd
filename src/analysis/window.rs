//! What one window of one layer has gathered: the accumulator that batches are added to and workers are merged into.
//!
//! Guarantees: `merge` in worker order gives the same bits whatever the order in which the workers' batches came. Must
//! not: multiply matrices (the backend's kernels do, and pass in the results).

use super::part::Payload;
use super::pushed::PushedMoments;
use kernels::moments::{Moments, UnitMoments};
use kernels::packed::Packed;
use kernels::reservoir::Reservoir;
use kernels::row_pass::{RowPass, RowStatistics};
use kernels::rows::{Float, Rows};
use kernels::view_moments::ViewMoments;

/// Everything that is kept of a window's rows.
#[derive(Clone, Debug)]
pub struct Accumulator {
    /// N: rows of one view.
    pub samples: u64,
    /// V.
    pub views: usize,
    /// Moments of the pooled rows of all views.
    pub moments: Moments,
    /// Moments of the unit rows; `None` once moments without unit fields came in.
    pub unit: Option<UnitMoments>,
    /// Centred second moment of the unit rows, if a trainer sent it.
    pub(crate) unit_scatter: Option<Packed>,
    /// `None` once pushed moments came in.
    pub(crate) statistics: Option<RowStatistics>,
    /// `None` once pushed moments came in.
    pub reservoir: Option<Reservoir>,
    /// `None` with a single view.
    pub pairs: Option<ViewMoments>,
    /// The coarsest type of the rows.
    pub float: Float,
}

impl Accumulator {
    /// One batch of rows, with the kernels' results for it.
    pub fn from_views(views: &[Rows], moments: Moments, pairs: Option<ViewMoments>, capacity: usize) -> Self {
        let mut pass = RowPass::new(views[0].dim(), capacity);
        for view in views {
            pass.read(view);
        }
        Self {
            samples: views[0].len() as u64,
            views: views.len(),
            moments,
            unit: Some(pass.unit),
            unit_scatter: None,
            statistics: Some(pass.statistics),
            reservoir: Some(pass.reservoir),
            pairs,
            float: views.iter().map(Rows::resolution).max().unwrap_or(Float::F64),
        }
    }

    pub(crate) fn from_moments(pushed: PushedMoments) -> Self {
        Self {
            samples: pushed.moments.rows(),
            views: 1,
            moments: pushed.moments,
            unit: pushed.unit,
            unit_scatter: pushed.unit_scatter,
            statistics: None,
            reservoir: None,
            pairs: None,
            float: pushed.float,
        }
    }

    /// Adds the rows of `other`, which must have the same dimension and number of views.
    pub fn merge(&mut self, other: &Accumulator) {
        self.samples += other.samples;
        self.unit_scatter = match (&self.unit_scatter, &other.unit_scatter, &self.unit, &other.unit) {
            (Some(a), Some(b), Some(unit_a), Some(unit_b)) => {
                let mut merged = scatter_moments(a, unit_a);
                merged.merge(&scatter_moments(b, unit_b));
                Some(merged.scatter().clone())
            }
            _ => None,
        };
        self.moments.merge(&other.moments);
        merge_option(&mut self.unit, &other.unit, UnitMoments::merge);
        merge_option(&mut self.statistics, &other.statistics, RowStatistics::merge);
        merge_option(&mut self.reservoir, &other.reservoir, Reservoir::merge);
        merge_option(&mut self.pairs, &other.pairs, ViewMoments::merge);
        self.float = self.float.max(other.float);
    }

    /// Bytes of an accumulator of this shape, without its row reservoir.
    pub fn bytes(views: usize, dim: usize) -> usize {
        4 * dim * (dim + 1) + ViewMoments::bytes(views, dim) + 32 * dim
    }
}

/// Whether a payload can join an accumulator of `dim` and `views`.
pub(crate) fn fits(payload: &Payload, dim: usize, views: usize) -> bool {
    match payload {
        Payload::Views(rows) => rows[0].dim() == dim && rows.len() == views,
        Payload::Moments(pushed) => pushed.moments.dim() == dim && views == 1,
    }
}

fn merge_option<T>(mine: &mut Option<T>, theirs: &Option<T>, merge: impl FnOnce(&mut T, &T)) {
    match (mine.as_mut(), theirs) {
        (Some(mine), Some(theirs)) => merge(mine, theirs),
        _ => *mine = None,
    }
}

/// Unit rows as moments, which can be merged.
fn scatter_moments(scatter: &Packed, unit: &UnitMoments) -> Moments {
    Moments::new(unit.rows, unit.mean.clone(), scatter.clone())
}
