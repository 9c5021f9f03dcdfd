//! How evenly the unit rows lie on the sphere: uniformity (C12) and its Wasserstein form (C13).

use super::evidence::Evidence;
use super::table::Measured;
use kernels::uniformity::w2;

/// Fills C12 and C13.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    if let Some(unit) = &evidence.solved.unit {
        out.measures.w2_uniformity = Some(w2(&unit.values));
    }
    if let Some(uniformity) = &evidence.solved.uniformity {
        out.measures.uniformity = Some(uniformity.value);
        if let Some(interval) = uniformity.interval {
            out.intervals.insert("uniformity".to_string(), interval);
            out.sampled = true;
        }
    }
}
