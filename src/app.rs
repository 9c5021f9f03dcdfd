//! Builds, spawns, drains. The only file that starts threads and tasks of the service's own.
//!
//! Guarantees: on shutdown the doors close first, then every accepted batch is merged, every open window is published as
//! incomplete, and everything published is stored. Must not: decide anything about a batch.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::analysis::origin::Device;
use crate::compute::choose::{self, Chosen, Means};
use crate::compute::cpu::Cpu;
use crate::compute::fault::{Event, Reason};
use crate::compute::{ACCUMULATE_NICENESS, Backend, ComputeError, SPECTRUM_NICENESS, give_way};
use crate::config::{ComputeWorkerArgs, Config};
use crate::ingest::listen::{Listening, serve, told};
use crate::ingest::{Bodies, Doors};
use crate::pipeline::{Inbox, Parts};
use crate::publish::{Board, Build, History, HistoryError, RunCollector, Service, notify};
use crate::web::{self, Events, Site};

/// How often the passing of time is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The metrics, which is a fault of the program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The kernels.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// A socket.
    #[error("the listening socket has no address: {0}")]
    Socket(std::io::Error),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Bound sockets.
pub struct Listeners {
    /// Every door.
    pub main: TcpListener,
    /// /metrics, if apart.
    pub metrics: Option<TcpListener>,
}

/// Runs until `shutdown` fires (or its sender is dropped), then drains.
///
/// # Errors
/// When something cannot be built; once serving, it does not fail.
pub async fn run(config: Config, listeners: Listeners, shutdown: oneshot::Receiver<()>) -> Result<(), StartError> {
    let started = Instant::now();
    let means = Means {
        threads: config.threads,
        patience: Duration::from_secs(config.compute_timeout_s.into()),
        gpu_memory_bytes: config.gpu_memory_bytes,
        clock: Arc::new(move || started.elapsed()),
    };
    let wish = config.backend;
    let chosen = tokio::task::spawn_blocking(move || choose::open(wish, &means)).await;
    let Chosen { backend, why } = chosen.map_err(|error| ComputeError::Device(error.to_string()))??;
    tracing::info!(backend = %backend.device(), %why, "chose what computes");
    run_with(config, listeners, shutdown, backend).await
}

/// As [`run`], with a backend of the caller's.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    listeners: Listeners,
    shutdown: oneshot::Receiver<()>,
    backend: Arc<dyn Backend>,
) -> Result<(), StartError> {
    let (site, doors) = build(&config, backend)?;
    let inbox = Arc::clone(&doors.inbox);
    let workers = spawn_threads(&inbox, config.threads, site.spectrum_threads)?;

    let (stop, stopped) = watch::channel(false);
    let listening = Listening {
        max_connections: config.doors.max_connections,
        header_timeout_s: config.doors.header_timeout_s,
        service: Arc::clone(&site.service),
    };
    let with_metrics = listeners.metrics.is_none();
    let address = listeners.main.local_addr().map_err(StartError::Socket)?;
    let main = web::router(&site, &doors, with_metrics);
    let mut servers = vec![tokio::spawn(serve(listeners.main, main, listening.clone(), stopped.clone()))];
    if let Some(listener) = listeners.metrics {
        servers.push(tokio::spawn(serve(listener, web::metrics_router(&site), listening, stopped.clone())));
    }
    tracing::info!(%address, "serving HTTP and gRPC; the page is at http://{address}/");
    let ticker = tokio::spawn(tick(Arc::clone(&inbox), stopped));
    let (hush, hushed) = watch::channel(false);
    let notifiers: Vec<_> = config
        .notify
        .into_iter()
        .map(|target| {
            tracing::info!(receiver = target.receiver.word(), to = notify::origin(&target.url), "telling of alerts");
            let (board, service) = (Arc::clone(&site.board), Arc::clone(&site.service));
            tokio::spawn(notify::run(target, board, service, Timestamp::now, hushed.clone()))
        })
        .collect();

    tell_manager(NotifyState::Ready);
    // A dropped sender means stop, too.
    let _ = shutdown.await;
    tell_manager(NotifyState::Stopping);
    tracing::info!("stopping: no more pushes are taken, open windows are published as incomplete");
    let draining = Arc::clone(&inbox);
    // The drain may wait for the registry and hand out windows; it is short, but not for this thread.
    let _ = tokio::task::spawn_blocking(move || draining.drain(Timestamp::now())).await;
    let _ = stop.send(true);
    for server in servers {
        let _ = server.await;
    }
    let _ = ticker.await;
    let _ = tokio::task::spawn_blocking(move || join(&inbox, workers)).await;
    // The last windows may have collapsed.
    let _ = hush.send(true);
    for notifier in notifiers {
        let _ = notifier.await;
    }
    if let Some(fault) = site.history.fault() {
        tracing::error!(fault, "the last reports could not be stored");
    }
    Ok(())
}

/// For who started this with a NOTIFY_SOCKET, as systemd does for `Type=notify`; nobody else hears of it.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager at NOTIFY_SOCKET could not be told");
    }
}

fn build(config: &Config, backend: Arc<dyn Backend>) -> Result<(Site, Doors), StartError> {
    let spectrum_threads = config.threads.saturating_sub(1).max(1);
    let about = Build {
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("FULLRANK_REVISION"),
        backend: backend.device().to_string(),
    };
    let service = Service::new(&about, config.pipeline.inbox_batches)?;
    watch(&*backend, &service);
    let board = Arc::new(Board::default());
    let history = Arc::new(History::open(config.data_dir.as_deref())?);
    if config.data_dir.is_none() {
        tracing::warn!("the history is kept in memory and lost at exit: give --data-dir to keep it");
    }
    service.registry.register(Box::new(RunCollector::new(
        Arc::clone(&board),
        Arc::clone(&service),
        config.max_series,
    )?))?;
    tracing::info!(
        backend = %backend.device(),
        precision = config.precision.word(),
        threads = config.threads,
        spectrum_threads,
        "computing"
    );
    let inbox = Arc::new(Inbox::new(Parts {
        limits: config.pipeline.clone(),
        policy: config.policy.clone(),
        backend,
        precision: config.precision,
        board: Arc::clone(&board),
        history: Arc::clone(&history),
        service: Arc::clone(&service),
    })?);
    let bodies = Bodies::new(config.doors.clone());
    let doors = Doors { inbox: Arc::clone(&inbox), bodies: Arc::clone(&bodies), service: Arc::clone(&service) };
    let access = config.access.clone();
    let max_series = config.max_series;
    let events = Events::default();
    Ok((Site { inbox, board, history, service, bodies, access, events, max_series, spectrum_threads }, doors))
}

/// `compute-worker`: computes for the service that started this process, until that is gone.
///
/// # Errors
/// When no service started it, or the stream to it fails.
#[cfg(target_os = "linux")]
pub fn compute_worker(args: &ComputeWorkerArgs) -> Result<(), String> {
    use crate::compute::worker::child;
    use tokio::signal::unix::{SignalKind, signal};

    // What stops the service may reach its workers, too, but it drains with their help, and they end with it.
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

/// As on Linux, where it is.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn compute_worker(args: &ComputeWorkerArgs) -> Result<(), String> {
    Err(format!("{} is driven on Linux only", args.device))
}

/// Counts and logs what goes wrong with a device and is made good.
fn watch(backend: &dyn Backend, service: &Arc<Service>) {
    // Every label is there from the start, so that a rate sees the first event.
    for reason in Reason::ALL {
        service.compute_fallbacks.with_label_values(&[reason.word()]);
    }
    let service = Arc::clone(service);
    let device = backend.device();
    backend.on_event(Box::new(move |event| match event {
        Event::FellBack(reason) => {
            service.compute_fallbacks.with_label_values(&[reason.word()]).inc();
            tracing::debug!(%device, reason = reason.word(), "a job was done by the cpu backend");
        }
        Event::Ended { reason, detail, pause } => tracing::warn!(
            %device,
            reason = reason.word(),
            %detail,
            pause_s = pause.as_secs(),
            "the compute worker failed: its job is done by the cpu backend, another worker takes over after the pause; \
             if this goes on, use --backend cpu"
        ),
        Event::Restarted => {
            service.compute_worker_restarts.inc();
            tracing::info!(%device, "another compute worker took over");
        }
    }));
}

/// Accumulate and spectrum threads.
struct Workers {
    accumulate: Vec<JoinHandle<()>>,
    spectrum: Vec<JoinHandle<()>>,
}

fn spawn_threads(inbox: &Arc<Inbox>, accumulate: usize, spectrum: usize) -> Result<Workers, StartError> {
    let spawn = |name: String, work: fn(&Inbox)| {
        let inbox = Arc::clone(inbox);
        std::thread::Builder::new().name(name).spawn(move || work(&inbox)).map_err(StartError::Thread)
    };
    let merge: fn(&Inbox) = |inbox| {
        give_way(ACCUMULATE_NICENESS);
        inbox.accumulate();
    };
    let solve: fn(&Inbox) = |inbox| {
        give_way(SPECTRUM_NICENESS);
        inbox.solve();
    };
    Ok(Workers {
        accumulate: (0..accumulate).map(|i| spawn(format!("accumulate-{i}"), merge)).collect::<Result<_, _>>()?,
        spectrum: (0..spectrum).map(|i| spawn(format!("spectrum-{i}"), solve)).collect::<Result<_, _>>()?,
    })
}

async fn tick(inbox: Arc<Inbox>, mut stopped: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = told(&mut stopped) => return,
        }
        let inbox = Arc::clone(&inbox);
        let _ = tokio::task::spawn_blocking(move || inbox.tick(Timestamp::now())).await;
    }
}

fn join(inbox: &Inbox, workers: Workers) {
    inbox.queues().stop_accumulating();
    for thread in workers.accumulate {
        let _ = thread.join();
    }
    inbox.queues().stop_spectra();
    for thread in workers.spectrum {
        let _ = thread.join();
    }
}
