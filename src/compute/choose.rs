//! From `--backend` to a backend, and the reason in words.
//!
//! Guarantees: an explicit wish is met or refused with the way out; only `auto` may end elsewhere than it began. Must not:
//! fall back in silence.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cpu::Cpu;
use super::{Backend, ComputeError};
use crate::analysis::origin::Device;

/// What `--backend` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The best there is.
    #[default]
    Auto,
    /// Pure Rust on the CPU.
    Cpu,
    /// libtorch on the CPU.
    Torch,
    /// libtorch on the CUDA device of this number.
    TorchCuda(u8),
}

/// With what a backend works.
#[derive(Clone)]
pub struct Means {
    /// Threads of large products.
    pub threads: usize,
    /// How long a compute worker may take to get ready, and how much longer a job may take than its size explains.
    pub patience: Duration,
    /// Bytes of a card's memory that the compute workers may take; `None`: a quarter of what is free at the start.
    pub gpu_memory_bytes: Option<u64>,
    /// Time since some start, which never goes back.
    pub clock: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// A backend, and why it.
pub struct Chosen {
    /// What computes.
    pub backend: Arc<dyn Backend>,
    /// In words, for the log.
    pub why: String,
}

impl Wish {
    /// Of the flag's text: auto, cpu, torch, torch-cuda, torch-cuda:N.
    pub fn of_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Wish::Auto),
            "cpu" => Some(Wish::Cpu),
            "torch" => Some(Wish::Torch),
            "torch-cuda" => Some(Wish::TorchCuda(0)),
            _ => text.strip_prefix("torch-cuda:")?.parse().ok().map(Wish::TorchCuda),
        }
    }

    /// Why this build cannot meet it on any machine; `None`: it may.
    pub fn complaint(self) -> Option<String> {
        match self {
            Wish::Auto | Wish::Cpu => None,
            Wish::Torch | Wish::TorchCuda(_) if HAS_LIBTORCH => None,
            Wish::Torch | Wish::TorchCuda(_) => Some(format!(
                "--backend {self}: this build has no libtorch; build with --features torch on Linux, or use cpu or auto"
            )),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Auto => f.write_str("auto"),
            Wish::Cpu => f.write_str("cpu"),
            Wish::Torch => f.write_str("torch"),
            Wish::TorchCuda(index) => write!(f, "torch-cuda:{index}"),
        }
    }
}

const HAS_LIBTORCH: bool = cfg!(all(feature = "torch", target_os = "linux"));

/// Opens what is wished for.
///
/// # Errors
/// When an explicit wish cannot be met, with the way out.
pub fn open(wish: Wish, means: &Means) -> Result<Chosen, ComputeError> {
    if let Some(complaint) = wish.complaint() {
        return Err(ComputeError::Device(complaint));
    }
    let cpu = |why: String| Ok(Chosen { backend: Arc::new(Cpu::new(means.threads)?), why });
    let device = match wish {
        Wish::Cpu => return cpu("--backend cpu".to_string()),
        Wish::Auto if !HAS_LIBTORCH => return cpu("auto: this build has no libtorch".to_string()),
        Wish::Torch => Device::Torch,
        Wish::Auto => Device::Cuda(0),
        Wish::TorchCuda(index) => Device::Cuda(index),
    };
    match (supervised(device, means), wish) {
        (Ok((backend, memory)), Wish::Auto) => {
            Ok(Chosen { backend, why: format!("auto: libtorch sees a CUDA device{memory}") })
        }
        (Ok((backend, memory)), _) => Ok(Chosen { backend, why: format!("--backend {wish}{memory}") }),
        (Err(error), Wish::Auto) => cpu(format!("auto: {error}")),
        (Err(error), _) => {
            Err(ComputeError::Device(format!("--backend {wish}: {error}; name another device, or use cpu or auto")))
        }
    }
}

/// The device behind workers, and what is to be said of its memory.
#[cfg(target_os = "linux")]
fn supervised(device: Device, means: &Means) -> Result<(Arc<dyn Backend>, String), ComputeError> {
    use super::worker::Supervised;
    use super::worker::card::Share;

    let share = match device {
        Device::Cuda(index) => Some(Share::of_card(index, means.gpu_memory_bytes)?),
        Device::Cpu | Device::Torch => None,
    };
    let workers = super::worker::card::workers(device, share.as_ref(), means)?;
    let backend = Supervised::start(workers, Cpu::new(means.threads)?, &means.clock)?;
    Ok((Arc::new(backend), share.map_or_else(String::new, |share| format!(", {share}"))))
}

#[cfg(not(target_os = "linux"))]
fn supervised(device: Device, _means: &Means) -> Result<(Arc<dyn Backend>, String), ComputeError> {
    Err(ComputeError::Device(format!("{device} is driven on Linux only")))
}
