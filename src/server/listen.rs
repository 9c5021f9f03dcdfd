//! The accept loop: every connection gets deadlines and a place under the cap, and uses HTTP/1.1 or HTTP/2 as the
//! client does.
//!
//! Guarantees: at the cap a new connection is closed immediately, and the count never exceeds it; on shutdown, requests
//! in progress are answered. Must not: bind (`app` does), or know a route.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use super::patience::{DeadlineStream, InFlight};
use crate::publish::ServiceMetrics;

/// How long requests in progress get at shutdown.
const GRACE: Duration = Duration::from_secs(20);
/// How often a silent HTTP/2 peer is pinged.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// HTTP/2 flow control: what a peer may send before it is read. Large, for tensors; it is not a buffer.
const STREAM_WINDOW: u32 = 4 << 20;
const STREAMS: u32 = 64;
const HEADER_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct Listening {
    pub max_connections: usize,
    pub header_timeout_s: u64,
    pub metrics: Arc<ServiceMetrics>,
}

/// Accepts connections until `shutdown` is true, then lets requests in progress finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    listening: Listening,
    mut shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(listening.max_connections));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Usually out of file descriptors: it passes, and a busy loop does not help.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stopped(&mut shutdown) => break,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!("closed a connection over the cap");
            continue;
        };
        let connection = connect(&builder, stream, &router, &listening);
        let watched = graceful.watch(connection);
        let counted = Counted::start(&listening.metrics);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(error, "a connection ended early");
            }
            drop((counted, place));
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GRACE) => tracing::warn!("some requests did not finish before shutdown"),
    }
}

/// Counts a connection until it drops, even if its task panics.
struct Counted(Arc<ServiceMetrics>);

impl Counted {
    fn start(metrics: &Arc<ServiceMetrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Waits until the value is true, or its sender is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None) // `DeadlineStream` distinguishes an idle connection from a crawling header
        .max_buf_size(512 << 10)
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES as u32)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

fn connect(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    router: &Router,
    listening: &Listening,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + use<> {
    // Send small answers without delay.
    let _ = stream.set_nodelay(true);
    let in_flight = InFlight::default();
    let io =
        TokioIo::new(DeadlineStream::new(stream, in_flight.clone(), Duration::from_secs(listening.header_timeout_s)));
    let router = router.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let serving = in_flight.start();
        let router = router.clone();
        async move {
            let response = router.oneshot(request.map(axum::body::Body::new)).await;
            drop(serving);
            response
        }
    });
    builder.serve_connection(io, service).into_owned()
}
