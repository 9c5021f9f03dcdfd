//! What is diagnosed: a window's measured layers and gathered inputs.

use std::collections::BTreeMap;

use super::gathered::Gathered;
use super::measured_layer::MeasuredLayer;
use crate::analysis::parameters::Method;
use crate::analysis::role::Role;

pub(crate) struct Subject<'a> {
    pub gathered: &'a Gathered,
    pub layers: &'a BTreeMap<Role, MeasuredLayer<'a>>,
    pub scalars: &'a BTreeMap<&'static str, f64>,
    pub method: Option<Method>,
    /// Skip what needs factorisations: the solvers are behind.
    pub skip_factorisations: bool,
}
