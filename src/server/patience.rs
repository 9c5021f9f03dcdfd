//! A socket with the deadlines that the HTTP library lacks: for the first byte, a crawling header, an idle connection,
//! and a client that never reads.
//!
//! Guarantees: a connection that makes no progress ends; one whose request is being served is left alone. Must not:
//! look at the bytes, except the first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection between requests is kept.
pub(super) const IDLE: Duration = Duration::from_secs(75);
/// A client must read some of a response within this time.
const WRITE_STALL: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<AtomicUsize>);

/// Counts one request until it drops.
pub(super) struct Serving(InFlight);

impl InFlight {
    pub(super) fn start(&self) -> Serving {
        self.0.fetch_add(1, Ordering::AcqRel);
        Serving(self.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) struct DeadlineStream {
    stream: TcpStream,
    in_flight: InFlight,
    header: Duration,
    /// When the client must have acted.
    deadline: Instant,
    reading: Reading,
    timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// No data yet: the header's deadline is running.
    Start,
    /// Within an HTTP/1 header: its deadline keeps running.
    Header,
    /// Within a request or between two.
    Idle,
    /// HTTP/2: frames may arrive at any time.
    Frames,
}

impl DeadlineStream {
    pub(super) fn new(stream: TcpStream, in_flight: InFlight, header: Duration) -> Self {
        let deadline = Instant::now() + header;
        let timer = Box::pin(sleep_until(deadline));
        Self { stream, in_flight, header, deadline, reading: Reading::Start, timer, write_timer: None }
    }

    fn came(&mut self, data: &[u8]) {
        match self.reading {
            _ if self.in_flight.any() => self.rest(),
            Reading::Start if data.starts_with(b"PRI") => {
                self.reading = Reading::Frames;
                self.rest();
            }
            Reading::Start => self.reading = Reading::Header,
            Reading::Idle => {
                self.reading = Reading::Header;
                self.deadline = Instant::now() + self.header;
            }
            Reading::Header => {}
            Reading::Frames => self.rest(),
        }
    }

    /// A request is being served (bodies have their own limits), or the connection is idle.
    fn rest(&mut self) {
        if self.reading != Reading::Frames {
            self.reading = Reading::Idle;
        }
        self.deadline = Instant::now() + IDLE;
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                this.came(&buf.filled()[before..]);
            }
            return Poll::Ready(result);
        }
        loop {
            if this.in_flight.any() {
                this.rest();
            }
            this.timer.as_mut().reset(this.deadline);
            ready!(this.timer.as_mut().poll(cx));
            if !this.in_flight.any() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client was too slow")));
            }
        }
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_write(cx, data) {
            this.write_timer = None;
            if this.reading != Reading::Header {
                // The client is reading a response.
                this.rest();
            }
            return Poll::Ready(result);
        }
        let timer = this.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
