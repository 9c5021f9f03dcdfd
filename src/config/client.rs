//! The flags of the subcommands that call a running service.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;

use super::serve::{read_token, url};
use crate::client::Client;
use crate::replay::ReplayOverrides;

/// Address and token of the service.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Address of the service.
    #[arg(long, env = "FULLRANK_URL", hide_env_values = true, default_value = "http://127.0.0.1:8417", value_parser = url)]
    url: Url,
    /// File that holds the service's token.
    #[arg(long, env = "FULLRANK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Where the service is.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Print the service's answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run.
    pub run: String,
    /// Only this layer.
    #[arg(long)]
    pub layer: Option<String>,
    /// Print this window's reports instead of the newest.
    #[arg(long)]
    pub window: Option<u64>,
    /// Print JSON, one report per line.
    #[arg(long)]
    pub json: bool,
    /// Where the service is.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Recordings as described in examples/README.md; or .npy and .safetensors files, one window each, in this order.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The run; by default the recording's, or the first file's name.
    #[arg(long)]
    run: Option<String>,
    /// The layer; by default the recording's, or projector.
    #[arg(long)]
    layer: Option<String>,
    /// The method, such as simsiam; by default the recording's.
    #[arg(long)]
    method: Option<String>,
    /// Where the service is.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Where the service is.
    #[command(flatten)]
    pub service: ServiceArgs,
}

impl ServiceArgs {
    /// A client of that service.
    ///
    /// # Errors
    /// If the token cannot be read.
    pub fn client(&self) -> Result<Client, String> {
        Client::new(self.url.clone(), self.token_file.as_deref().map(read_token).transpose()?)
    }
}

impl ReplayArgs {
    /// Values for recordings that do not have their own.
    pub fn overrides(&self) -> ReplayOverrides {
        ReplayOverrides { run: self.run.clone(), layer: self.layer.clone(), method: self.method.clone() }
    }
}
