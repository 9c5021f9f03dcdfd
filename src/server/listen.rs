//! The accept loop: every connection gets deadlines, a place under the cap, and HTTP/1.1 or HTTP/2 by what it speaks.
//!
//! Guarantees: at the cap a new connection is closed at once, and counted connections never pass it; on shutdown requests
//! under way are answered. Must not: bind (`app` does), or know a route.

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

/// Requests under way at shutdown are given this long.
const GRACE: Duration = Duration::from_secs(20);
/// An HTTP/2 peer that is silent is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// HTTP/2 flow control: what a peer may send before it is read. Large, for tensors; it is no buffer.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 streams of one connection.
const STREAMS: u32 = 64;
/// Longest HTTP/1 header, and largest HTTP/2 header list.
const HEADER_BYTES: usize = 64 << 10;

/// What bounds a listener.
#[derive(Clone)]
pub struct Listening {
    /// Connections at once.
    pub max_connections: usize,
    /// Seconds for a request's header.
    pub header_timeout_s: u64,
    /// The counters.
    pub metrics: Arc<ServiceMetrics>,
}

/// Accepts until `shutdown` turns true, then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, listening: Listening, mut shutdown: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(listening.max_connections));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, usually: it passes, and a loop that spins does not help.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stopped(&mut shutdown) => break,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!("a connection over the cap was closed");
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
        () = tokio::time::sleep(GRACE) => tracing::warn!("some requests did not finish before the stop"),
    }
}

/// Counts a connection until it drops, also when its task panics.
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

/// Waits until the value is true, or nobody is left to set it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None) // `DeadlineStream` tells an idle connection from a crawling header
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
    // Small answers should not wait for more.
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
