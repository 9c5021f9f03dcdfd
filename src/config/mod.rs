//! Arguments: one flattened struct per subject, a FULLRANK_ variable for every flag, all errors reported at once.
//!
//! Guarantees: a config returned by `check` can be served. Must not: open files other than those it names.

mod client;
mod serve;
mod show;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use kernels::provenance::Device;

use self::serve::ThresholdArgs;
use crate::pipeline::ThresholdOverrides;

pub use self::client::{HealthcheckArgs, ReplayArgs, ReportArgs, RunsArgs};
pub use self::serve::Config;
pub(crate) use self::serve::ServeArgs;
pub use self::show::effective;

/// Text of `--version`. Without libtorch there is one backend.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = [("otlp", cfg!(feature = "otlp")), ("torch", cfg!(feature = "torch"))];
    let features: Vec<&str> = features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let features = if features.is_empty() { "none".to_string() } else { features.join(", ") };
    let backends = if cfg!(feature = "torch") { "cpu, torch, torch-cuda" } else { "cpu" };
    let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("FULLRANK_REVISION"));
    format!("{version}\nrevision: {revision}\nfeatures: {features}\nbackends: {backends}")
});

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the answer is no: healthcheck found no ready service, or the demo ended in other verdicts than recorded
  2  it could not be done, for a reason in the command line, a file, or the service's answer: the message says which";

/// Watches the embeddings of self-supervised training runs, and reports whether and why they are collapsing.
#[derive(Debug, Parser)]
#[command(name = "fullrank", version, long_version = LONG_VERSION.as_str(), propagate_version = true, after_help = EXIT_CODES)]
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
    /// Serve, with recordings of real trainings: one healthy, two collapsing.
    Demo(Box<DemoArgs>),
    /// Measure and judge files (.npy or .safetensors).
    Analyze(AnalyzeArgs),
    /// Push recorded embeddings to a running service, as a trainer would.
    Replay(ReplayArgs),
    /// Print the newest reports of a run.
    Report(ReportArgs),
    /// List the runs of a service, worst first.
    Runs(RunsArgs),
    /// Check whether a service accepts pushes (exit code 0 or 1).
    Healthcheck(HealthcheckArgs),
    /// Print the values that `serve` would use, and where each comes from; secrets are hidden.
    CheckConfig(Box<ServeArgs>),
    /// Print the OpenAPI document.
    Openapi,
    /// Print a completion script, as in: fullrank completions bash > /etc/bash_completion.d/fullrank
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or write those of all subcommands.
    Man {
        /// Write a page for each subcommand into this directory.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Write Grafana dashboards that match this binary: fleet.json, run.json and service.json.
    Dashboards {
        /// The directory; created if needed.
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Started by `serve` to compute on a device.
    #[command(hide = true)]
    ComputeWorker(ComputeWorkerArgs),
}

/// Arguments of `compute-worker`.
#[derive(Debug, Args)]
pub struct ComputeWorkerArgs {
    /// The device: cpu, torch-cpu or cuda:N.
    #[arg(long, value_parser = Device::from_str)]
    pub device: Device,
    /// Threads of the kernels on the CPU.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Niceness of the process.
    #[arg(long, default_value_t = 0)]
    pub niceness: i32,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Stop once the recordings are judged; exit code 0 if the verdicts are the expected ones.
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `analyze`.
#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// Files of embeddings: z, or z1 z2 ..., N x d.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Print one JSON report per file, one per line.
    #[arg(long)]
    pub json: bool,
    /// Draw the spectra of all files into this .svg or .png file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    thresholds: ThresholdArgs,
}

impl DemoArgs {
    /// Checks all arguments.
    ///
    /// # Errors
    /// Every error, one per line.
    pub fn check(self) -> Result<Config, String> {
        self.serve.check()
    }
}

impl AnalyzeArgs {
    /// The thresholds to judge by.
    ///
    /// # Errors
    /// Every error, one per line.
    pub fn overrides(&self) -> Result<ThresholdOverrides, String> {
        let mut complaints = Vec::new();
        let overrides = self.thresholds.read(&mut complaints);
        if complaints.is_empty() { Ok(overrides) } else { Err(complaints.join("\n")) }
    }
}
