//! Receives bodies: reused scratch buffers, with every byte admitted against one budget.
//!
//! Guarantees: bytes in flight (received, or decoded and not yet merged) never exceed the budget; a body that stalls or
//! crawls is dropped. Must not: keep more than [`KEPT_BUFFERS`] idle buffers, or look into a body.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::budget::{Budget, Reservation};
use crate::error::{Code, Refusal};

/// Buffers kept for reuse; fresh memory costs a page fault per 4 KiB.
const KEPT_BUFFERS: usize = 4;
const KEPT_BYTES: usize = 72 << 20;
/// A body of unknown length is admitted in steps of at least this size.
const STEP: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct IngestLimits {
    /// Largest body, decompressed.
    pub max_body_bytes: usize,
    /// Bytes of all bodies in flight.
    pub in_flight_bytes: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// Seconds for a request's header.
    pub header_timeout_s: u64,
    /// Seconds that a body may stall.
    pub body_idle_timeout_s: u64,
    /// Lowest average rate of a body, in bytes per second.
    pub min_body_rate: u64,
}

pub(crate) struct Bodies {
    limits: IngestLimits,
    budget: Arc<Budget>,
    kept: Mutex<Vec<Vec<u8>>>,
}

pub(crate) struct Scratch {
    bodies: Arc<Bodies>,
    reservation: Reservation,
    buffer: Vec<u8>,
    started: Instant,
}

impl Bodies {
    pub(crate) fn new(limits: IngestLimits) -> Arc<Self> {
        Arc::new(Self { budget: Budget::new(limits.in_flight_bytes), limits, kept: Mutex::default() })
    }

    pub(crate) fn limits(&self) -> &IngestLimits {
        &self.limits
    }

    pub(crate) fn used(&self) -> usize {
        self.budget.used()
    }

    /// Admits a body of `length` bytes, or of unknown length.
    /// Refuses with `too_large`, or `overloaded` if other bodies hold the bytes.
    pub(crate) fn admit(self: &Arc<Self>, length: Option<u64>) -> Result<Scratch, Refusal> {
        let limit = self.limits.max_body_bytes;
        let length = match length {
            Some(length) if length > limit as u64 => return Err(self.too_large(length)),
            Some(length) => length as usize,
            None => STEP.min(limit),
        };
        let reservation = self.budget.try_reserve(length).ok_or_else(|| self.overloaded(length))?;
        let mut buffer = self.lock().pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(length);
        Ok(Scratch { bodies: Arc::clone(self), reservation, buffer, started: Instant::now() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_large(&self, length: u64) -> Refusal {
        let limit = self.limits.max_body_bytes as u64;
        let what =
            format!("a body of {length} bytes, decompressed, is over the limit of {limit}; push fewer rows at a time");
        Refusal::over(Code::TooLarge, what, limit)
    }

    fn overloaded(&self, length: usize) -> Refusal {
        let limit = self.budget.limit() as u64;
        let used = self.budget.used();
        let what = format!(
            "{used} of {limit} bytes of bodies are in flight, no room for {length} more; push again in a moment"
        );
        Refusal::over(Code::Overloaded, what, limit)
    }
}

impl Scratch {
    /// Appends received bytes.
    /// Refuses with `too_large` or `overloaded` if the body grows beyond what was admitted.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let length = self.buffer.len() + data.len();
        if length > self.bodies.limits.max_body_bytes {
            return Err(self.bodies.too_large(length as u64));
        }
        if length > self.reservation.bytes() {
            let wanted = (self.reservation.bytes() * 2).max(length).max(STEP).min(self.bodies.limits.max_body_bytes);
            if !self.reservation.grow_to(wanted) {
                return Err(self.bodies.overloaded(wanted));
            }
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// Admits the memory that decoding needs besides the body.
    /// Refuses with `overloaded`.
    pub(crate) fn admit_decoded(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.reservation.grow_to(self.reservation.bytes() + bytes) {
            return Ok(());
        }
        Err(self.bodies.overloaded(bytes))
    }

    /// Waits for the next piece, within the idle timeout and above the lowest rate.
    /// Refuses with `timeout`.
    pub(crate) async fn next<T>(&self, piece: impl Future<Output = T>) -> Result<T, Refusal> {
        let limits = &self.bodies.limits;
        let idle = Duration::from_secs(limits.body_idle_timeout_s);
        let elapsed = self.started.elapsed();
        if elapsed > idle && (self.buffer.len() as f64) < limits.min_body_rate as f64 * elapsed.as_secs_f64() {
            return Err(Refusal::over(
                Code::Timeout,
                format!(
                    "{} bytes came in {:.0} s, slower than {} bytes per second",
                    self.buffer.len(),
                    elapsed.as_secs_f64(),
                    limits.min_body_rate
                ),
                limits.min_body_rate,
            ));
        }
        tokio::time::timeout(idle, piece).await.map_err(|_| {
            let what =
                format!("no data arrived for {} s after {} bytes of the body", idle.as_secs(), self.buffer.len());
            Refusal::over(Code::Timeout, what, limits.body_idle_timeout_s)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The whole body; its memory is returned when the last slice of it drops.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Scratch {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut kept = self.bodies.lock();
        if kept.len() < KEPT_BUFFERS && buffer.capacity() <= KEPT_BYTES && buffer.capacity() > STEP {
            kept.push(buffer);
        }
    }
}
