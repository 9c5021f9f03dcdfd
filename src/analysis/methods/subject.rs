//! What is to be diagnosed.

use std::collections::BTreeMap;

use super::gathered::Gathered;
use super::measured_layer::MeasuredLayer;
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

/// What is to be diagnosed.
pub struct Subject<'a> {
    /// What the batches added up to.
    pub gathered: &'a Gathered,
    /// The layer and those derived from it.
    pub layers: &'a BTreeMap<Role, MeasuredLayer<'a>>,
    /// The newest value of each scalar parameter.
    pub scalars: &'a BTreeMap<&'static str, f64>,
    /// The method that the run named.
    pub method: Option<Method>,
    /// Leave out what needs factorisations: the solvers are behind.
    pub skip_factorisations: bool,
}
