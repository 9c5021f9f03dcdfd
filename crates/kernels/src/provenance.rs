//! Where a number was computed and in what arithmetic, for the report.
//!
//! Must not: decide anything; the backend does.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// The arithmetic requested for summing the rows' products.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[strum(serialize_all = "lowercase")]
pub enum Precision {
    /// The fastest kernel whose rounding is below what the rows' own type has already lost; otherwise f64.
    #[default]
    Auto,
    /// Always f64.
    F64,
    /// The fastest kernel there is; its rounding counts in the report's noise floor.
    Fast,
}

/// A device that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// This process's own kernels.
    Cpu,
    /// libtorch on the CPU.
    Torch,
    /// libtorch on a CUDA device of this number.
    Cuda(u8),
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "cpu" => Ok(Device::Cpu),
            "torch-cpu" => Ok(Device::Torch),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map(Device::Cuda).ok_or(UnknownDevice),
        }
    }
}

/// No device has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown device: expected cpu, torch-cpu or cuda:N")]
pub struct UnknownDevice;

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Torch => f.write_str("torch-cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// One device and kernel that contributed to a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provenance {
    /// The device.
    pub device: Device,
    /// The arithmetic (`f64`, `f32`, `bf16`); for eigenvalues the solver.
    pub kernel: &'static str,
}

/// Everything that contributed to a result.
pub type Provenances = BTreeSet<Provenance>;

/// The devices among `provenances`, such as `cpu` or `cpu+cuda:0`.
pub fn devices(provenances: &Provenances) -> String {
    joined(provenances.iter().map(|provenance| provenance.device.to_string()))
}

/// The kernels among `provenances`, such as `f64` or `bf16+f64`.
pub fn kernels(provenances: &Provenances) -> String {
    joined(provenances.iter().map(|provenance| provenance.kernel.to_string()))
}

fn joined(names: impl Iterator<Item = String>) -> String {
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect::<Vec<_>>().join("+")
}
