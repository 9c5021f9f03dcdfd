//! How much of a GPU may be used, and how the workers that use it are started.
//!
//! Guarantees: the workers of one service together use no more GPU memory for tensors than they were given. Must not:
//! talk to a driver except through `nvidia-smi`; a driver may hang.

use std::fmt;
use std::process::{Command, Stdio};

use super::process::{Launch, WorkerLaunches};
use crate::compute::resources::BackendResources;
use kernels::backend::ComputeError;
use kernels::priority::{ACCUMULATE_NICENESS, SPECTRUM_NICENESS};
use kernels::provenance::Device;

/// Used if neither the GPU's memory nor a limit is known.
const UNKNOWN_SHARE: u64 = 1 << 30;

/// The share of the free memory that is used unless more is given: a trainer may not have allocated its share yet.
const FREE_PARTS: u64 = 4;

/// The workers that share it: one sums, one solves.
const WORKERS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Bytes of all workers together.
    pub bytes: u64,
    /// The GPU's memory in bytes, if `nvidia-smi` reports it.
    pub total: Option<u64>,
}

impl Share {
    /// For the GPU with this number: the given bytes, or a quarter of what is free.
    pub(crate) fn on_card(index: u8, given: Option<u64>) -> Result<Self, ComputeError> {
        Self::from_memory(given, memory_of(index))
    }

    /// As [`Share::on_card`], where `memory` is the GPU's total and free memory.
    pub(crate) fn from_memory(given: Option<u64>, memory: Option<(u64, u64)>) -> Result<Self, ComputeError> {
        match (given, memory) {
            (Some(bytes), Some((total, _))) if bytes > total => Err(ComputeError::Device(format!(
                "--gpu-memory-bytes is {bytes}: the GPU has {total}; give less, or leave it out for a quarter of what is free"
            ))),
            (Some(bytes), memory) => Ok(Self { bytes, total: memory.map(|(total, _)| total) }),
            (None, Some((total, free))) => Ok(Self { bytes: free / FREE_PARTS, total: Some(total) }),
            (None, None) => Ok(Self { bytes: UNKNOWN_SHARE, total: None }),
        }
    }

    /// The cap of one worker's caching allocator, as a fraction of the GPU's memory.
    fn fraction(&self) -> Option<f64> {
        self.total.filter(|total| *total > 0).map(|total| self.bytes as f64 / WORKERS as f64 / total as f64)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "using at most {} MiB of its memory", self.bytes >> 20)?;
        if self.total.is_none() {
            f.write_str(" (nvidia-smi does not report its memory, so libtorch's allocator is not capped)")?;
        }
        Ok(())
    }
}

/// How to start both workers of a device: this program's own `compute-worker`.
pub(crate) fn workers(
    device: Device,
    share: Option<&Share>,
    resources: &BackendResources,
) -> Result<WorkerLaunches, ComputeError> {
    let program = std::env::current_exe()
        .map_err(|error| ComputeError::Device(format!("cannot find this program's own file: {error}")))?;
    let launch = |niceness: i32| {
        let arguments = [
            "compute-worker".to_string(),
            format!("--device={device}"),
            format!("--threads={}", resources.threads),
            format!("--niceness={niceness}"),
        ];
        Launch {
            program: program.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: environment(share),
            device,
            patience: resources.patience,
        }
    };
    // The niceness of the threads that wait for them.
    let budget = share.map(|share| usize::try_from(share.bytes / WORKERS).unwrap_or(usize::MAX));
    Ok(WorkerLaunches { sums: launch(ACCUMULATE_NICENESS), solves: launch(SPECTRUM_NICENESS), budget })
}

fn environment(share: Option<&Share>) -> Vec<(&'static str, Option<String>)> {
    let Some(share) = share else { return Vec::new() };
    // Nothing in the program refers to libtorch's CUDA half, so linkers leave it out, and only a worker on a GPU should
    // load it: it takes a gigabyte, and the driver. If it is missing, the loader prints a message and goes on.
    let preloaded = std::env::var("LD_PRELOAD").unwrap_or_default();
    let mut variables = vec![
        ("LD_PRELOAD", Some(format!("{preloaded} libtorch_cuda.so").trim().to_string())),
        // For cuBLAS, whatever libtorch asks for: no TF32.
        ("NVIDIA_TF32_OVERRIDE", Some("0".to_string())),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", None),
        // The same bits for the same batch.
        ("CUBLAS_WORKSPACE_CONFIG", Some(":4096:8".to_string())),
        // Number the GPUs as nvidia-smi does, which reports their memory.
        ("CUDA_DEVICE_ORDER", Some("PCI_BUS_ID".to_string())),
    ];
    if let Some(fraction) = share.fraction() {
        variables.push(("PYTORCH_CUDA_ALLOC_CONF", Some(format!("per_process_memory_fraction:{fraction:.6}"))));
    }
    variables
}

/// (total bytes, free bytes)
fn memory_of(index: u8) -> Option<(u64, u64)> {
    let id = visible(index, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())?;
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits", "-i", &id])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// nvidia-smi's name for the GPU that CUDA calls by this number.
fn visible(index: u8, visible_devices: Option<&str>) -> Option<String> {
    match visible_devices {
        None => Some(index.to_string()),
        Some(list) => list.split(',').nth(index.into()).map(|id| id.trim().to_string()),
    }
}

/// Parses "81559, 80994", in MiB.
fn parse(line: &str) -> Option<(u64, u64)> {
    let (total, free) = line.trim().split_once(',')?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok().map(|mib| mib << 20);
    Some((bytes(total)?, bytes(free)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_what_was_given_or_a_quarter_of_what_is_free() {
        let gib = 1 << 30;
        assert_eq!(
            Share::from_memory(None, Some((80 * gib, 40 * gib))).unwrap(),
            Share { bytes: 10 * gib, total: Some(80 * gib) }
        );
        assert_eq!(Share::from_memory(Some(gib), Some((80 * gib, 0))).unwrap().fraction(), Some(0.5 / 80.0));
        assert_eq!(Share::from_memory(None, None).unwrap(), Share { bytes: UNKNOWN_SHARE, total: None });
        let refused = Share::from_memory(Some(81 * gib), Some((80 * gib, 0))).unwrap_err().to_string();
        assert!(refused.contains("--gpu-memory-bytes is") && refused.contains("give less"), "{refused}");
    }

    #[test]
    fn cards_are_found_by_what_is_visible() {
        assert_eq!(visible(1, None).as_deref(), Some("1"));
        assert_eq!(visible(1, Some("3, GPU-5a")).as_deref(), Some("GPU-5a"));
        assert_eq!(visible(2, Some("3,1")), None);
        assert_eq!(parse("81559, 80994\n"), Some((81559 << 20, 80994 << 20)));
        assert_eq!(parse("[N/A], [N/A]"), None);
    }
}
