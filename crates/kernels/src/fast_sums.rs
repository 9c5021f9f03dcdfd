//! How every device handles rounding: blocks, kernel names, and when a fast sum is not accurate enough.
//!
//! Must not: model the rounding; `rounding` does.

use crate::moments::Moments;
use crate::packed::Packed;
use crate::provenance::Provenance;
use crate::rounding::{Blocks, Rounding};

/// The most rows summed in f32 at a time; the sums of such blocks are added in f64.
pub const F32_BLOCK_ROWS: usize = 512;

/// How the kernel of that name sums `rows` rows in f32, if it does; `Err` if there is no such kernel.
pub(crate) fn blocks(kernel: &str, rows: usize) -> Result<Option<Blocks>, &'static str> {
    let of = |centred| Some(Blocks { rows, block: F32_BLOCK_ROWS, centred });
    match kernel {
        "f64" => Ok(None),
        "f32" => Ok(of(true)),
        "bf16" => Ok(of(false)),
        _ => Err("no kernel has that name"),
    }
}

/// A kernel's sums with their rounding; `errors` are those of the entries (k, k + 1), if it sums in f32.
pub fn summed(
    provenance: Provenance,
    rows: usize,
    mean: Vec<f64>,
    scatter: Packed,
    errors: Vec<f64>,
) -> Result<Moments, &'static str> {
    let rounding = blocks(provenance.kernel, rows)?
        .map_or_else(Rounding::default, |blocks| Rounding::new(blocks, &scatter, &mean, errors));
    Ok(Moments::new(rows as u64, mean, scatter).computed(provenance, rounding))
}

/// Under this stable rank a batch is near a line or a few: its coordinates nearly copy one another, copies in a coarse
/// type are rounded alike, and the digits below the few directions separate a collapse from a small spread. Such a
/// batch is summed again in f64.
const LEAST_STABLE_RANK: f64 = 4.0;

/// Whether sums that are faster than f64 have lost no more than `limit` of Sigma, and the batch is not a line.
pub fn keeps_enough(fast: &Moments, limit: f64) -> bool {
    let trace = fast.scatter().trace();
    if trace == 0.0 {
        return true;
    }
    let stable_rank = 1.0 / fast.scatter().frobenius_squared_in(trace);
    stable_rank >= LEAST_STABLE_RANK && fast.rounding() <= limit
}
