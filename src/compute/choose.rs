//! Turns `--backend` into a backend, with the reason in words.
//!
//! Guarantees: an explicit choice is met, or refused with the remedy; only `auto` may fall back to another device. Must
//! not: fall back silently.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::resources::BackendResources;
use kernels::backend::{Backend, ComputeError};
use kernels::cpu::Cpu;
use kernels::provenance::Device;

/// The values of `--backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The best device there is.
    #[default]
    Auto,
    /// Pure Rust on the CPU.
    Cpu,
    /// libtorch on the CPU.
    Torch,
    /// libtorch on the CUDA device of this number.
    TorchCuda(u8),
}

/// A backend, and why it was chosen.
pub struct Chosen {
    /// The device's kernels.
    pub backend: Arc<dyn Backend>,
    /// The reason, for the log.
    pub why: String,
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let card = |number: &str| number.parse().ok().map(BackendChoice::TorchCuda);
        match text {
            "auto" => Ok(BackendChoice::Auto),
            "cpu" => Ok(BackendChoice::Cpu),
            "torch" => Ok(BackendChoice::Torch),
            "torch-cuda" => Ok(BackendChoice::TorchCuda(0)),
            _ => text
                .strip_prefix("torch-cuda:")
                .and_then(card)
                .ok_or_else(|| "expected one of: auto, cpu, torch, torch-cuda, torch-cuda:N".to_string()),
        }
    }
}

impl BackendChoice {
    /// Why this build cannot meet the choice on any machine; `None` if it may.
    pub fn complaint(self) -> Option<String> {
        match self {
            BackendChoice::Auto | BackendChoice::Cpu => None,
            BackendChoice::Torch | BackendChoice::TorchCuda(_) if HAS_LIBTORCH => None,
            BackendChoice::Torch | BackendChoice::TorchCuda(_) => Some(format!(
                "--backend {self}: this build has no libtorch; build with --features torch on Linux, or use cpu or auto"
            )),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendChoice::Auto => f.write_str("auto"),
            BackendChoice::Cpu => f.write_str("cpu"),
            BackendChoice::Torch => f.write_str("torch"),
            BackendChoice::TorchCuda(index) => write!(f, "torch-cuda:{index}"),
        }
    }
}

const HAS_LIBTORCH: bool = cfg!(all(feature = "torch", target_os = "linux"));

/// Opens the backend that was asked for.
///
/// # Errors
/// If an explicit choice cannot be met; the text holds the remedy.
pub fn open(choice: BackendChoice, resources: &BackendResources) -> Result<Chosen, ComputeError> {
    if let Some(complaint) = choice.complaint() {
        return Err(ComputeError::Device(complaint));
    }
    let cpu = |why: String| Ok(Chosen { backend: Arc::new(Cpu::new(resources.threads)?), why });
    let device = match choice {
        BackendChoice::Cpu => return cpu("--backend cpu".to_string()),
        BackendChoice::Auto if !HAS_LIBTORCH => return cpu("auto: this build has no libtorch".to_string()),
        BackendChoice::Torch => Device::Torch,
        BackendChoice::Auto => Device::Cuda(0),
        BackendChoice::TorchCuda(index) => Device::Cuda(index),
    };
    match (supervised(device, resources), choice) {
        (Ok((backend, memory)), BackendChoice::Auto) => {
            Ok(Chosen { backend, why: format!("auto: libtorch sees a CUDA device{memory}") })
        }
        (Ok((backend, memory)), _) => Ok(Chosen { backend, why: format!("--backend {choice}{memory}") }),
        (Err(error), BackendChoice::Auto) => cpu(format!("auto: {error}")),
        (Err(error), _) => {
            Err(ComputeError::Device(format!("--backend {choice}: {error}; name another device, or use cpu or auto")))
        }
    }
}

/// The device behind compute workers, and a text about its memory.
#[cfg(target_os = "linux")]
fn supervised(device: Device, resources: &BackendResources) -> Result<(Arc<dyn Backend>, String), ComputeError> {
    use super::worker::Supervised;
    use super::worker::card::Share;

    let share = match device {
        Device::Cuda(index) => Some(Share::on_card(index, resources.gpu_memory_bytes)?),
        Device::Cpu | Device::Torch => None,
    };
    let workers = super::worker::card::workers(device, share.as_ref(), resources)?;
    let backend = Supervised::start(workers, Cpu::new(resources.threads)?, &resources.clock)?;
    Ok((Arc::new(backend), share.map_or_else(String::new, |share| format!(", {share}"))))
}

#[cfg(not(target_os = "linux"))]
fn supervised(device: Device, _resources: &BackendResources) -> Result<(Arc<dyn Backend>, String), ComputeError> {
    Err(ComputeError::Device(format!("{device} is supported on Linux only")))
}
