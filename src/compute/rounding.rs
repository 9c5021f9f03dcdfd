//! How the kernels of a device round, by their words: for what comes back from another process.
//!
//! Must not: model it; `analysis::rounding` does.

use crate::analysis::rounding::Rounding;

/// Rows summed in f32 at a time, at most; the sums of such blocks are added in f64. As in `cpu`.
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
