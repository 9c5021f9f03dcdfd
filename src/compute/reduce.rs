//! Reduces one batch's rows on a device to what a window keeps of them.

use kernels::backend::{Backend, CenteredRows, ComputeError};
use kernels::moments::Moments;
use kernels::packed::Packed;
use kernels::provenance::Precision;
use kernels::reservoir;
use kernels::rows::Rows;

use super::lend::with_kernels;
use crate::analysis::batch::EmbeddingBatch;
use crate::analysis::methods::Gathered;
use crate::analysis::parameters::Parameters;
use crate::analysis::part::{Part, Payload};
use crate::analysis::window::Accumulator;
use kernels::view_moments::ViewMoments;

/// Reduces the rows of one role as the push asks; with `unit_moments` also the second moment of the unit rows.
/// `precision` applies if the push does not name one.
pub(crate) fn reduce(
    backend: &dyn Backend,
    part: &Part,
    asked: &Parameters,
    precision: Precision,
) -> Result<Accumulator, ComputeError> {
    let views = match &part.payload {
        Payload::Moments(pushed) => return Ok(Accumulator::from_moments((**pushed).clone())),
        Payload::Views(views) => views,
    };
    let precision = asked.precision.unwrap_or(precision);
    let mut moments = backend.moments(&views[0], precision)?;
    let mut pairs = None;
    if let [_, second, others @ ..] = &views[..] {
        let first_two = [moments.clone(), backend.moments(second, precision)?];
        moments.merge(&first_two[1]);
        for view in others {
            moments.merge(&backend.moments(view, precision)?);
        }
        let cross =
            backend.cross(CenteredRows::new(&views[0], &first_two[0]), CenteredRows::new(second, &first_two[1]))?;
        pairs = Some(ViewMoments::new(views, first_two, cross));
    }
    let mut rows = Accumulator::from_views(views, moments, pairs, reservoir::CAPACITY);
    if asked.unit_moments == Some(true) {
        rows.unit_scatter = unit_scatter(backend, views)?;
    }
    Ok(rows)
}

/// The second moment of the unit rows of all views: as much work as the moments.
fn unit_scatter(backend: &dyn Backend, views: &[Rows]) -> Result<Option<Packed>, ComputeError> {
    let mut sum: Option<Moments> = None;
    for unit in views.iter().filter_map(Rows::unit) {
        let moments = backend.moments(&unit, Precision::F64)?;
        match &mut sum {
            Some(sum) => sum.merge(&moments),
            None => sum = Some(moments),
        }
    }
    Ok(sum.map(|moments| moments.scatter().clone()))
}

/// Adds one batch to the methods' diagnostics.
pub(crate) fn gather(backend: &dyn Backend, batch: &EmbeddingBatch, gathered: &mut Gathered) -> Result<(), String> {
    with_kernels(backend, |kernels| gathered.add(batch, kernels))
}
