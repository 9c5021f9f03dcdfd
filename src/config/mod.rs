//! Arguments: one flattened struct a room, every flag with a FULLRANK_ twin, every complaint at once.
//!
//! Guarantees: what `check` returns can be served. Must not: open anything but the files it is pointed at.

mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::serve::PolicyArgs;
use crate::analysis::origin::Device;
use crate::pipeline::Policy;

pub use self::serve::{Config, ServeArgs};

/// Watches the embeddings of self-supervised training runs, and says whether and why they are collapsing.
#[derive(Debug, Parser)]
#[command(name = "fullrank", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Receive embeddings and publish verdicts.
    Serve(Box<ServeArgs>),
    /// Serve, fed with recorded real trainings: one healthy, two collapsing.
    Demo(Box<DemoArgs>),
    /// Measure and judge files: .npy or .safetensors.
    Analyze(AnalyzeArgs),
    /// Print the OpenAPI document.
    Openapi,
    /// What `serve` starts to compute on a device.
    #[command(hide = true)]
    ComputeWorker(ComputeWorkerArgs),
}

/// Arguments of `compute-worker`.
#[derive(Debug, Args)]
pub struct ComputeWorkerArgs {
    /// cpu, torch-cpu, cuda:N.
    #[arg(long, value_parser = device)]
    pub device: Device,
    /// Threads of its kernels on the CPU.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// By how much it gives way.
    #[arg(long, default_value_t = 0)]
    pub niceness: i32,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Stop once the recordings are judged, with exit code 0 if the verdicts are the expected ones.
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `analyze`.
#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// Files of embeddings: z, or z1 z2 ..., N x d.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// One JSON report a file, a line each.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

fn device(text: &str) -> Result<Device, String> {
    Device::of_name(text).ok_or_else(|| "known are cpu, torch-cpu and cuda:N".to_string())
}

impl DemoArgs {
    /// Checks everything.
    ///
    /// # Errors
    /// Every complaint, one a line.
    pub fn check(self) -> Result<Config, String> {
        self.serve.check()
    }
}

impl AnalyzeArgs {
    /// The thresholds to judge by.
    ///
    /// # Errors
    /// Every complaint, one a line.
    pub fn policy(&self) -> Result<Policy, String> {
        let mut complaints = Vec::new();
        let policy = self.policy.read(&mut complaints);
        if complaints.is_empty() { Ok(policy) } else { Err(complaints.join("\n")) }
    }
}
