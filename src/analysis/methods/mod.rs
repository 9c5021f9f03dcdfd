//! The diagnostics of every method: one table of names, grouped by the inputs they need, and one file per group.
//!
//! Guarantees: nothing is computed from inputs that were not sent: a group without its inputs is `None`, and `needs`
//! names what to send. Must not: judge.
//!
//! Two halves: `gathered` holds what a window's batches add up to, group by group; `diagnose` turns that and the
//! measured layers into [`Diagnostics`] when the window is measured.

mod assignments;
mod cosines;
mod diagnose;
mod gathered;
mod groups;
mod kernels;
mod label_fit;
mod loss_constant;
mod measured_layer;
mod needs;
mod normalisation;
mod predictors;
mod relations;
mod row_pairs;
mod subject;
pub mod table;
mod terms;
mod two_views;
mod within_between;

pub(crate) use diagnose::{Diagnosed, diagnose};
pub(crate) use gathered::Gathered;
pub(crate) use kernels::DiagnosticKernels;
pub(crate) use loss_constant::LossConstant;
pub(crate) use measured_layer::MeasuredLayer;
pub(crate) use subject::Subject;
pub use table::{Diagnostics, TABLE};
