//! The noise floors, and what they leave undefined.

use super::evidence::Evidence;
use super::table::{Measured, Measures};

/// Fills the floors.
pub(super) fn fill(evidence: &Evidence<'_>, out: &mut Measured) {
    let m = &mut out.measures;
    m.input_noise_floor = Some(evidence.input_floor);
    m.numeric_noise_floor = Some(evidence.numeric_floor);
    m.noise_floor = Some(evidence.floor());
    if evidence.rows.moments.total_variance() <= evidence.floor() {
        // No eigenvalue can exceed the floor.
        leave_without_structure(m);
    }
}

/// If nothing exceeds the floor, there is no structure to rank.
pub(super) fn leave_without_structure(m: &mut Measures) {
    m.stable_rank = None;
    m.stable_rank_corrected = None;
    m.diagonal_entropy_rank = None;
}
