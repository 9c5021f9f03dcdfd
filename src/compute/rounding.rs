//! What every device does about rounding: blocks, the words of the kernels, and when a fast sum is not good enough.
//!
//! Must not: model the rounding; `analysis::rounding` does.

use crate::analysis::moments::Moments;
use crate::analysis::rounding::Rounding;

/// Rows summed in f32 at a time, at most; the sums of such blocks are added in f64.
pub const F32_BLOCK_ROWS: usize = 512;

/// Of `rows` rows summed by the kernel of that word; `None`: no kernel sums rows so. `neighbours` are the errors of the
/// entries (k, k + 1), and those entries.
pub fn of_kernel(kernel: &str, rows: usize, neighbours: Vec<(f64, f64)>) -> Option<Rounding> {
    match kernel {
        "f64" => Some(Rounding::default()),
        "f32" => Some(Rounding::of_blocks(rows, F32_BLOCK_ROWS, true, neighbours)),
        "bf16" => Some(Rounding::of_blocks(rows, F32_BLOCK_ROWS, false, neighbours)),
        _ => None,
    }
}

/// Under this stable rank a batch is near a line or a few: its coordinates nearly copy one another, copies in a coarse type
/// are rounded alike, and the digits under the few directions are what tells a collapse from a small spread. Such a
/// batch is summed again in f64.
const LEAST_STABLE_RANK: f64 = 4.0;

/// Whether what was summed faster than in f64 has lost no more than `limit` of Sigma, and is no line.
pub fn keeps_enough(fast: &Moments, limit: f64) -> bool {
    let trace = fast.scatter().trace();
    if trace == 0.0 {
        return true;
    }
    let stable_rank = 1.0 / fast.scatter().frobenius_squared_in(trace);
    // lambda_1^2 <= |Sigma|_F^2 = (tr Sigma)^2 / D2
    stable_rank >= LEAST_STABLE_RANK && fast.rounding(fast.total_variance() / stable_rank.sqrt()) <= limit
}
