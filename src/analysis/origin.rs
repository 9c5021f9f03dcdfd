//! Where a number was computed and in what arithmetic, so that a report can name it.
//!
//! Must not: decide anything; the backend does.

use std::collections::BTreeSet;
use std::fmt;

/// What a run asks of the arithmetic that sums its rows' products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// The fastest kernel whose rounding stays under what the rows' own type has left of them already; else f64.
    #[default]
    Auto,
    /// f64, always.
    F64,
    /// The fastest kernel there is: its rounding is in the report's noise floor.
    Fast,
}

impl Precision {
    /// The word of the parameter and of the flag.
    pub fn word(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F64 => "f64",
            Precision::Fast => "fast",
        }
    }

    /// The precision of that word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Precision::Auto, Precision::F64, Precision::Fast].into_iter().find(|precision| precision.word() == word)
    }
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

impl Device {
    /// The device of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Device::Cpu),
            "torch-cpu" => Some(Device::Torch),
            _ => name.strip_prefix("cuda:")?.parse().ok().map(Device::Cuda),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Torch => f.write_str("torch-cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// One device and kernel that had a part in a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Where.
    pub device: Device,
    /// In what arithmetic: `f64`, `f32`, `bf16`; of eigenvalues the solver.
    pub kernel: &'static str,
}

/// Everything that had a part in a result.
pub type Origins = BTreeSet<Origin>;

/// The devices among `origins`, such as `cpu` or `cpu+cuda:0`.
pub fn devices(origins: &Origins) -> String {
    joined(origins.iter().map(|origin| origin.device.to_string()))
}

/// The kernels among `origins`, such as `f64` or `bf16+f64`.
pub fn kernels(origins: &Origins) -> String {
    joined(origins.iter().map(|origin| origin.kernel.to_string()))
}

fn joined(names: impl Iterator<Item = String>) -> String {
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect::<Vec<_>>().join("+")
}
