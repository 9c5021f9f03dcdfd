//! Builds, spawns, drains. Only this file starts the service's own threads and tasks.
//!
//! Guarantees: on shutdown the sockets close first, then every accepted batch is merged, every open window is published
//! as incomplete, and everything published is stored. Must not: decide anything about a batch.

use kernels::word::Word;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use strum::VariantArray;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::compute::choose::{self, Chosen};
use crate::compute::resources::BackendResources;
use crate::config::{ComputeWorkerArgs, Config};
use crate::ingest::{Bodies, Ingest};
use crate::pipeline::Pipeline;
use crate::pipeline::restore::PipelineParts;
use crate::publish::{Board, Build, History, HistoryError, RunCollector, ServiceMetrics, notify};
use crate::server::listen::{Listening, serve, stopped};
use crate::server::{metrics_router, router};
use crate::web::{EventPlaces, Site};
use kernels::backend::{Backend, ComputeError};
use kernels::cpu::Cpu;
use kernels::fault::{DeviceEvent, FallbackReason};
use kernels::priority::{ACCUMULATE_NICENESS, SPECTRUM_NICENESS, give_way};
use kernels::provenance::Device;

/// How often the clock is checked.
const TICK: Duration = Duration::from_secs(1);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The history cannot be opened or read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The metrics; this would be a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The compute device cannot be opened.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// A bound socket has no address.
    #[error("the listening socket has no address: {0}")]
    Socket(std::io::Error),
    /// The system cannot start another thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Bound sockets.
pub struct Listeners {
    /// For HTTP and gRPC.
    pub main: TcpListener,
    /// For /metrics, if it has an address of its own.
    pub metrics: Option<TcpListener>,
}

/// Runs until `shutdown` fires (or its sender is dropped), then drains.
///
/// # Errors
/// If something cannot be built; once it is serving, it does not fail.
pub async fn run(config: Config, listeners: Listeners, shutdown: oneshot::Receiver<()>) -> Result<(), StartError> {
    let started = Instant::now();
    let resources = BackendResources {
        threads: config.threads,
        patience: Duration::from_secs(config.compute_timeout_s.into()),
        gpu_memory_bytes: config.gpu_memory_bytes,
        clock: Arc::new(move || started.elapsed()),
    };
    let choice = config.backend;
    let chosen = tokio::task::spawn_blocking(move || choose::open(choice, &resources)).await;
    let Chosen { backend, why } = chosen.map_err(|error| ComputeError::Device(error.to_string()))??;
    tracing::info!(backend = %backend.device(), %why, "chose the compute device");
    run_with(config, listeners, shutdown, backend).await
}

/// As [`run`], with the caller's backend. Boxed: the service is then compiled here, not in each crate that awaits it.
pub fn run_with(
    config: Config,
    listeners: Listeners,
    shutdown: oneshot::Receiver<()>,
    backend: Arc<dyn Backend>,
) -> BoxFuture<'static, Result<(), StartError>> {
    Box::pin(serve_until(config, listeners, shutdown, backend))
}

async fn serve_until(
    config: Config,
    listeners: Listeners,
    shutdown: oneshot::Receiver<()>,
    backend: Arc<dyn Backend>,
) -> Result<(), StartError> {
    let (site, ingest) = build(&config, backend)?;
    let pipeline = Arc::clone(&site.pipeline);
    let workers = spawn_threads(&pipeline, config.threads, site.spectrum_threads)?;

    let (stop, stopping) = watch::channel(false);
    let listening = Listening {
        max_connections: config.ingest.max_connections,
        header_timeout_s: config.ingest.header_timeout_s,
        metrics: Arc::clone(&pipeline.reports.metrics),
    };
    let with_metrics = listeners.metrics.is_none();
    let address = listeners.main.local_addr().map_err(StartError::Socket)?;
    let main = router(&site, &ingest, &config.access, with_metrics);
    let mut servers = vec![tokio::spawn(serve(listeners.main, main, listening.clone(), stopping.clone()))];
    if let Some(listener) = listeners.metrics {
        servers.push(tokio::spawn(serve(listener, metrics_router(&site, &config.access), listening, stopping.clone())));
    }
    tracing::info!(%address, "serving HTTP and gRPC; the page is at http://{address}/");
    let ticker = tokio::spawn(tick(Arc::clone(&pipeline), stopping));
    let (hush, hushed) = watch::channel(false);
    let notifiers: Vec<_> = config
        .notify
        .into_iter()
        .map(|target| {
            tracing::info!(receiver = target.receiver.word(), to = notify::origin(&target.url), "sending alerts");
            let (board, metrics) = (Arc::clone(&pipeline.reports.board), Arc::clone(&pipeline.reports.metrics));
            tokio::spawn(notify::run(target, board, metrics, Timestamp::now, hushed.clone()))
        })
        .collect();

    tell_manager(NotifyState::Ready);
    // A dropped sender also means stop. Then, in order: drain, sockets, ticker, pipeline threads, last alerts.
    let _ = shutdown.await;
    tell_manager(NotifyState::Stopping);
    tracing::info!("stopping: no more pushes are accepted, open windows are published as incomplete");
    let draining = Arc::clone(&pipeline);
    // The drain may wait for the registry and closes windows; it is short, but still too long for this thread.
    let _ = tokio::task::spawn_blocking(move || draining.drain(Timestamp::now())).await;
    let _ = stop.send(true);
    for server in servers {
        let _ = server.await;
    }
    let _ = ticker.await;
    let _ = tokio::task::spawn_blocking(move || join(&pipeline, workers)).await;
    // The last windows may have collapsed.
    let _ = hush.send(true);
    for notifier in notifiers {
        let _ = notifier.await;
    }
    if let Some(fault) = site.pipeline.reports.history.fault() {
        tracing::error!(fault, "could not store the last reports");
    }
    Ok(())
}

/// Notifies the service manager at NOTIFY_SOCKET, which systemd sets for `Type=notify`; does nothing without it.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "could not notify the service manager at NOTIFY_SOCKET");
    }
}

fn build(config: &Config, backend: Arc<dyn Backend>) -> Result<(Site, Ingest), StartError> {
    let spectrum_threads = config.threads.saturating_sub(1).max(1);
    let about = Build {
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("FULLRANK_REVISION"),
        backend: backend.device().to_string(),
    };
    let metrics = ServiceMetrics::new(&about, config.pipeline.inbox_batches)?;
    watch(&*backend, &metrics);
    let board = Arc::new(Board::default());
    let history = Arc::new(History::open(config.data_dir.as_deref())?);
    if config.data_dir.is_none() {
        tracing::warn!("the history is kept in memory and lost at exit: give --data-dir to keep it");
    }
    let collector = RunCollector::new(Arc::clone(&board), Arc::clone(&metrics), config.max_series)?;
    metrics.registry.register(Box::new(collector))?;
    tracing::info!(
        backend = %backend.device(),
        precision = config.precision.word(),
        threads = config.threads,
        spectrum_threads,
        "computing"
    );
    let pipeline = Arc::new(Pipeline::new(PipelineParts {
        limits: config.pipeline.clone(),
        overrides: config.overrides.clone(),
        backend,
        precision: config.precision,
        board,
        history,
        metrics,
    })?);
    let bodies = Bodies::new(config.ingest.clone());
    let ingest = Ingest { pipeline: Arc::clone(&pipeline), bodies: Arc::clone(&bodies) };
    let (events, max_series) = (EventPlaces::default(), config.max_series);
    Ok((Site { pipeline, bodies, events, max_series, spectrum_threads }, ingest))
}

/// `compute-worker`: computes for the service that started this process, until the service is gone.
#[cfg(target_os = "linux")]
pub fn compute_worker(args: &ComputeWorkerArgs) -> Result<(), String> {
    use crate::compute::worker::child;
    use tokio::signal::unix::{SignalKind, signal};

    // Signals that stop the service may reach its workers too. The service drains with their help, and they end with
    // it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let _entered = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let _handled_from_now_on = signal(kind).map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    give_way(args.niceness);
    let (device, threads) = (args.device, args.threads);
    match device {
        Device::Cpu => child::serve(device, || Cpu::new(threads)),
        #[cfg(feature = "torch")]
        Device::Torch | Device::Cuda(_) => child::serve(device, || crate::compute::torch::Torch::open(device, threads)),
        #[cfg(not(feature = "torch"))]
        Device::Torch | Device::Cuda(_) => {
            child::serve(device, || Err::<Cpu, _>(ComputeError::Device("this build has no libtorch".to_string())))
        }
    }
}

/// The stub for other systems.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn compute_worker(args: &ComputeWorkerArgs) -> Result<(), String> {
    Err(format!("{} is supported on Linux only", args.device))
}

/// Counts and logs device failures that were recovered from.
fn watch(backend: &dyn Backend, metrics: &Arc<ServiceMetrics>) {
    // Creates every label at the start, so that a rate sees the first event.
    for reason in FallbackReason::VARIANTS {
        metrics.compute_fallbacks.with_label_values(&[reason.word()]);
    }
    let metrics = Arc::clone(metrics);
    let device = backend.device();
    backend.on_event(Box::new(move |event| match event {
        DeviceEvent::FellBack(reason) => {
            metrics.compute_fallbacks.with_label_values(&[reason.word()]).inc();
            tracing::debug!(%device, reason = reason.word(), "a job was done by the cpu backend");
        }
        DeviceEvent::Ended { reason, detail, pause } => tracing::warn!(
            %device,
            reason = reason.word(),
            %detail,
            pause_s = pause.as_secs(),
            "the compute worker failed: the cpu backend does its job, and another worker takes over after the pause; \
             if this goes on, use --backend cpu"
        ),
        DeviceEvent::Restarted => {
            metrics.compute_worker_restarts.inc();
            tracing::info!(%device, "another compute worker took over");
        }
    }));
}

struct PipelineThreads {
    accumulate: Vec<JoinHandle<()>>,
    spectrum: Vec<JoinHandle<()>>,
}

fn spawn_threads(pipeline: &Arc<Pipeline>, accumulate: usize, spectrum: usize) -> Result<PipelineThreads, StartError> {
    let spawn = |name: String, work: fn(&Pipeline)| {
        let pipeline = Arc::clone(pipeline);
        std::thread::Builder::new().name(name).spawn(move || work(&pipeline)).map_err(StartError::Thread)
    };
    let merge: fn(&Pipeline) = |pipeline| {
        give_way(ACCUMULATE_NICENESS);
        pipeline.accumulate();
    };
    let solve: fn(&Pipeline) = |pipeline| {
        give_way(SPECTRUM_NICENESS);
        pipeline.report();
    };
    Ok(PipelineThreads {
        accumulate: (0..accumulate).map(|i| spawn(format!("accumulate-{i}"), merge)).collect::<Result<_, _>>()?,
        spectrum: (0..spectrum).map(|i| spawn(format!("spectrum-{i}"), solve)).collect::<Result<_, _>>()?,
    })
}

async fn tick(pipeline: Arc<Pipeline>, mut stopping: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stopped(&mut stopping) => return,
        }
        let pipeline = Arc::clone(&pipeline);
        let _ = tokio::task::spawn_blocking(move || pipeline.tick(Timestamp::now())).await;
    }
}

fn join(pipeline: &Pipeline, workers: PipelineThreads) {
    pipeline.accumulation.stop();
    for thread in workers.accumulate {
        let _ = thread.join();
    }
    pipeline.reports.stop();
    for thread in workers.spectrum {
        let _ = thread.join();
    }
}
