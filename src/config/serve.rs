//! The flags of `serve`: one struct per subject, a FULLRANK_ variable for every flag, all errors reported at once.
//!
//! Guarantees: a config returned by `check` can be served. Must not: open files other than those it names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use kernels::provenance::Precision;
use reqwest::Url;
use strum::VariantNames;

use crate::compute::choose::BackendChoice;
use crate::ingest::IngestLimits;
use crate::pipeline::{Limits, ThresholdOverrides};
use crate::publish::notify::{NotifyTarget, Receiver};
use crate::server::Access;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    publish: PublishArgs,
    #[command(flatten)]
    notify: NotifyArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
pub(super) struct ThresholdArgs {
    /// TOML file with thresholds under [default], [methods.NAME] and [runs."NAME"].
    #[arg(long, env = "FULLRANK_THRESHOLDS", value_name = "FILE")]
    thresholds: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ListenArgs {
    /// Address for HTTP/1.1, HTTP/2 and gRPC.
    #[arg(long, env = "FULLRANK_LISTEN", default_value = "127.0.0.1:8417")]
    listen: SocketAddr,
    /// Separate address for /metrics.
    #[arg(long, env = "FULLRANK_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// File with the token that clients must send (Bearer, or Basic with any user); required unless listening on
    /// loopback only.
    #[arg(long, env = "FULLRANK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Another host name that requests may use; IP addresses and localhost are always allowed.
    #[arg(long = "allowed-host", env = "FULLRANK_ALLOWED_HOSTS", value_delimiter = ',', value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// Largest body, decompressed.
    #[arg(long, env = "FULLRANK_MAX_BODY_BYTES", default_value_t = 256 << 20)]
    max_body_bytes: usize,
    /// Most bytes of bodies being received or waiting to be merged.
    #[arg(long, env = "FULLRANK_IN_FLIGHT_BYTES", default_value_t = 1 << 30)]
    in_flight_bytes: usize,
    /// Most connections at once.
    #[arg(long, env = "FULLRANK_MAX_CONNECTIONS", default_value_t = 1024)]
    max_connections: usize,
    /// Seconds that a client may take to send a request's header.
    #[arg(long, env = "FULLRANK_HEADER_TIMEOUT_S", default_value_t = 5)]
    header_timeout_s: u64,
    /// Seconds that a body may stall.
    #[arg(long, env = "FULLRANK_BODY_IDLE_TIMEOUT_S", default_value_t = 10)]
    body_idle_timeout_s: u64,
    /// Lowest average rate of a body after the idle timeout, in bytes per second.
    #[arg(long, env = "FULLRANK_MIN_BODY_RATE", default_value_t = 4096)]
    min_body_rate: u64,
}

#[derive(Debug, Args)]
struct PipelineArgs {
    /// Device: auto (a CUDA device if libtorch finds one, otherwise cpu), cpu, torch, torch-cuda or torch-cuda:N.
    #[arg(long, env = "FULLRANK_BACKEND", default_value = "auto", value_parser = BackendChoice::from_str)]
    backend: BackendChoice,
    /// Bytes of GPU memory to use next to a trainer; by default a quarter of what is free at the start.
    #[arg(long, env = "FULLRANK_GPU_MEMORY_BYTES")]
    gpu_memory_bytes: Option<u64>,
    /// Seconds that the libtorch process may take to start, and that a job may take beyond what its size explains.
    #[arg(long, env = "FULLRANK_COMPUTE_TIMEOUT_S", default_value_t = 60)]
    compute_timeout_s: u32,
    /// Arithmetic for rows whose push does not name one: auto (a faster kernel if it loses no more than the rows' own
    /// type already has), f64, or fast.
    #[arg(long, env = "FULLRANK_PRECISION", default_value = "auto", value_parser = precision)]
    precision: Precision,
    /// Threads that merge batches, and that a large product may use; 0: one per core.
    #[arg(long, env = "FULLRANK_THREADS", default_value_t = 0)]
    threads: usize,
    /// Batches that may wait to be merged.
    #[arg(long, env = "FULLRANK_INBOX_BATCHES", default_value_t = 256)]
    inbox_batches: usize,
    /// Bytes of accumulators and row samples of all open windows.
    #[arg(long, env = "FULLRANK_ACCUMULATOR_BYTES", default_value_t = 4 << 30)]
    accumulator_bytes: usize,
    /// Most bytes of all solves in progress; a spectrum that needs more (24 d^2 + 8192 d) is estimated, and labelled
    /// so.
    #[arg(long, env = "FULLRANK_SOLVER_BYTES", default_value_t = 2 << 30)]
    solver_bytes: usize,
    /// Most layers of unexpired runs.
    #[arg(long, env = "FULLRANK_MAX_STREAMS", default_value_t = 4096)]
    max_streams: usize,
    /// Windows that may wait for their eigenvalues; more are measured without.
    #[arg(long, env = "FULLRANK_SPECTRA_WAITING", default_value_t = 64)]
    spectra_waiting: usize,
    /// Seconds that a window waits for missing workers once a later window was pushed.
    #[arg(long, env = "FULLRANK_WINDOW_PATIENCE_S", default_value_t = 60)]
    window_patience_s: u32,
    /// Seconds after finish until a run's series leave /metrics.
    #[arg(long, env = "FULLRANK_RUN_TTL_S", default_value_t = 3600)]
    run_ttl_s: u32,
    /// Seconds without a push after which a run counts as finished.
    #[arg(long, env = "FULLRANK_IDLE_FINISH_S", default_value_t = 86_400)]
    idle_finish_s: u32,
    #[command(flatten)]
    thresholds: ThresholdArgs,
}

#[derive(Debug, Args)]
struct PublishArgs {
    /// Directory of the history; by default the history is kept in memory and lost at exit.
    #[arg(long, env = "FULLRANK_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Most series of runs in one scrape.
    #[arg(long, env = "FULLRANK_MAX_SERIES", default_value_t = 200_000)]
    max_series: usize,
}

#[derive(Debug, Args)]
struct NotifyArgs {
    /// Post alerts to this URL as Alertmanager would (webhook payload version 4), with the evidence; may be repeated.
    #[arg(
        long = "webhook",
        env = "FULLRANK_WEBHOOK",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    webhooks: Vec<String>,
    /// Send alerts to this Alertmanager, such as http://127.0.0.1:9093; may be repeated.
    #[arg(
        long = "alertmanager",
        env = "FULLRANK_ALERTMANAGER",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    alertmanagers: Vec<String>,
    /// Seconds that a receiver of alerts may take to answer.
    #[arg(long, env = "FULLRANK_NOTIFY_TIMEOUT_S", default_value_t = 10)]
    notify_timeout_s: u64,
    /// Address of this service for links in alerts; by default the address it listens on.
    #[arg(long, env = "FULLRANK_EXTERNAL_URL", value_name = "URL", value_parser = url)]
    external_url: Option<Url>,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// Log filter, such as info or fullrank=debug.
    #[arg(long, env = "FULLRANK_LOG", default_value = "info")]
    log: String,
    /// Log as JSON lines.
    #[arg(long, env = "FULLRANK_LOG_JSON")]
    log_json: bool,
    /// Send traces to this OpenTelemetry collector (OTLP over gRPC), such as http://127.0.0.1:4317.
    #[arg(long, env = "FULLRANK_OTLP_ENDPOINT", value_name = "URL", value_parser = url)]
    otlp_endpoint: Option<Url>,
}

pub(super) fn read_token(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_string()),
        Ok(_) => Err(format!("--token-file {}: the file is empty; write the token into it", path.display())),
        Err(error) => Err(format!("--token-file {}: {error}", path.display())),
    }
}

pub(super) fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: give it as http://host:port/path"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        return Ok(url);
    }
    Err(format!("its scheme is {}: give it as http://host:port/path or https://", url.scheme()))
}

fn precision(text: &str) -> Result<Precision, String> {
    text.parse().map_err(|_| format!("expected one of: {}", Precision::VARIANTS.join(", ")))
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of HTTP and gRPC.
    pub listen: SocketAddr,
    /// The address of /metrics, if separate.
    pub metrics_listen: Option<SocketAddr>,
    /// The token and the allowed host names.
    pub access: Access,
    /// The limits on bodies and connections.
    pub ingest: IngestLimits,
    /// The limits of the pipeline.
    pub pipeline: Limits,
    /// The thresholds by run and method.
    pub overrides: ThresholdOverrides,
    /// The compute device.
    pub backend: BackendChoice,
    /// Bytes of GPU memory, if given.
    pub gpu_memory_bytes: Option<u64>,
    /// How much longer a compute worker may take than its job explains.
    pub(crate) compute_timeout_s: u32,
    /// The arithmetic for rows whose push does not name one.
    pub precision: Precision,
    /// Threads that merge batches.
    pub threads: usize,
    /// The directory of the history; `None`: in memory.
    pub(crate) data_dir: Option<PathBuf>,
    /// The most series of runs in one scrape.
    pub(crate) max_series: usize,
    /// The receivers of alerts.
    pub notify: Vec<NotifyTarget>,
    /// The log filter.
    pub log: String,
    /// Whether to log JSON lines.
    pub log_json: bool,
    /// The collector of traces.
    pub otlp_endpoint: Option<String>,
}

impl ServeArgs {
    /// Checks all arguments.
    ///
    /// # Errors
    /// Every error, one per line.
    pub fn check(self) -> Result<Config, String> {
        let mut complaints = Vec::new();
        let token = self.listen.token(&mut complaints);
        self.listen.check(token.is_some(), &mut complaints);
        self.pipeline.check(&mut complaints);
        let notify = self.notify.check(self.listen.listen, &mut complaints);
        self.log.check(&mut complaints);
        let overrides = self.pipeline.thresholds.read(&mut complaints);
        if !complaints.is_empty() {
            return Err(complaints.join("\n"));
        }
        let (listen, pipeline) = (self.listen, self.pipeline);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Config {
            listen: listen.listen,
            metrics_listen: listen.metrics_listen,
            access: Access::new(token, listen.allowed_hosts),
            ingest: IngestLimits {
                max_body_bytes: listen.max_body_bytes,
                in_flight_bytes: listen.in_flight_bytes,
                max_connections: listen.max_connections,
                header_timeout_s: listen.header_timeout_s,
                body_idle_timeout_s: listen.body_idle_timeout_s,
                min_body_rate: listen.min_body_rate,
            },
            pipeline: Limits {
                inbox_batches: pipeline.inbox_batches,
                accumulator_bytes: pipeline.accumulator_bytes,
                solver_bytes: pipeline.solver_bytes,
                streams: pipeline.max_streams,
                spectra_waiting: pipeline.spectra_waiting,
                window_patience_s: pipeline.window_patience_s.into(),
                run_ttl_s: pipeline.run_ttl_s.into(),
                idle_finish_s: pipeline.idle_finish_s.into(),
            },
            overrides,
            backend: pipeline.backend,
            gpu_memory_bytes: pipeline.gpu_memory_bytes,
            compute_timeout_s: pipeline.compute_timeout_s,
            precision: pipeline.precision,
            threads: if pipeline.threads == 0 { cores } else { pipeline.threads },
            data_dir: self.publish.data_dir,
            max_series: self.publish.max_series,
            notify,
            log: self.log.log,
            log_json: self.log.log_json,
            otlp_endpoint: self.log.otlp_endpoint.map(String::from),
        })
    }
}

impl ListenArgs {
    fn token(&self, complaints: &mut Vec<String>) -> Option<String> {
        let token = read_token(self.token_file.as_ref()?);
        token.map_err(|complaint| complaints.push(complaint)).ok()
    }

    fn check(&self, has_token: bool, complaints: &mut Vec<String>) {
        for address in [Some(self.listen), self.metrics_listen].into_iter().flatten() {
            if !address.ip().is_loopback() && !has_token {
                complaints.push(format!(
                    "{address} can be reached from other machines: set --token-file, or listen on 127.0.0.1"
                ));
            }
        }
        let least = [
            ("--max-body-bytes", self.max_body_bytes, 1 << 16),
            ("--in-flight-bytes", self.in_flight_bytes, self.max_body_bytes),
            ("--max-connections", self.max_connections, 1),
            ("--header-timeout-s", self.header_timeout_s as usize, 1),
            ("--body-idle-timeout-s", self.body_idle_timeout_s as usize, 1),
        ];
        at_least(&least, complaints);
    }
}

impl PipelineArgs {
    fn check(&self, complaints: &mut Vec<String>) {
        let least = [
            ("--inbox-batches", self.inbox_batches, 1),
            ("--accumulator-bytes", self.accumulator_bytes, 1 << 20),
            ("--max-streams", self.max_streams, 1),
            ("--window-patience-s", self.window_patience_s as usize, 1),
            ("--compute-timeout-s", self.compute_timeout_s as usize, 1),
        ];
        at_least(&least, complaints);
        complaints.extend(self.backend.complaint());
    }
}

impl NotifyArgs {
    fn check(self, listen: SocketAddr, complaints: &mut Vec<String>) -> Vec<NotifyTarget> {
        at_least(&[("--notify-timeout-s", self.notify_timeout_s as usize, 1)], complaints);
        let external_url = self.external_url.map_or_else(|| format!("http://{listen}"), String::from);
        let timeout = Duration::from_secs(self.notify_timeout_s);
        let kinds = [
            ("--webhook", Receiver::Webhook, self.webhooks),
            ("--alertmanager", Receiver::Alertmanager, self.alertmanagers),
        ];
        let mut targets = Vec::new();
        for (flag, receiver, addresses) in kinds {
            for (i, address) in addresses.iter().enumerate() {
                match url(address) {
                    Ok(url) => {
                        targets.push(NotifyTarget { receiver, url, external_url: external_url.clone(), timeout })
                    }
                    // The address may hold a secret: do not repeat it.
                    Err(why) => complaints.push(format!("{flag}, address {}: {why}", i + 1)),
                }
            }
        }
        targets
    }
}

impl ThresholdArgs {
    pub(super) fn read(&self, complaints: &mut Vec<String>) -> ThresholdOverrides {
        let Some(path) = &self.thresholds else { return ThresholdOverrides::default() };
        let parsed =
            std::fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|text| ThresholdOverrides::parse(&text));
        parsed.unwrap_or_else(|complaint| {
            complaints.push(format!("--thresholds {}: {complaint}", path.display()));
            ThresholdOverrides::default()
        })
    }
}

fn at_least(rows: &[(&str, usize, usize)], complaints: &mut Vec<String>) {
    for (flag, value, least) in rows {
        if value < least {
            complaints.push(format!("{flag} is {value}: it must be at least {least}"));
        }
    }
}

impl LogArgs {
    fn check(&self, complaints: &mut Vec<String>) {
        if self.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
            complaints.push(
                "--otlp-endpoint: this build sends no traces; build with the default features, or leave it out"
                    .to_string(),
            );
        }
        if self.otlp_endpoint.as_ref().is_some_and(|url| url.scheme() == "https") {
            complaints.push(
                "--otlp-endpoint: traces are sent without TLS; give the http:// address of a collector on this machine, \
                 and let it forward them"
                    .to_string(),
            );
        }
    }
}
