//! A byte budget: memory is reserved before it is allocated, and released when its guard drops.
//!
//! Guarantees: the guards never add up to more than the limit. `try_reserve` answers immediately; `reserve` waits, and
//! a request for more than the limit waits for all of it and then works alone. Smaller requests may pass a waiting one,
//! but not forever. Must not: be waited for by a thread that holds a guard of the same budget; this rules out
//! deadlocks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many requests may pass one that waits for more memory.
const MOST_PASSED: usize = 64;

/// The bytes that may be in use at once.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    usage: Mutex<Reserved>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Reserved {
    used: usize,
    /// Tickets of the waiting requests, in order, and how many others have passed each.
    waiting: VecDeque<(u64, usize)>,
    tickets: u64,
}

#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, usage: Mutex::default(), freed: Condvar::new() })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.usage().used
    }

    /// Whether this many bytes fit if nothing else is reserved.
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        bytes <= self.limit
    }

    /// Reserves `bytes`; `None` if they are not free.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        self.usage().take(bytes, self.limit).then(|| Reservation { budget: Arc::clone(self), bytes })
    }

    /// Waits for `bytes`, or for the whole budget if they exceed it.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.limit);
        let mut usage = self.usage();
        let ticket = usage.tickets;
        usage.tickets += 1;
        usage.waiting.push_back((ticket, 0));
        while !usage.admits(ticket, bytes, self.limit) {
            usage = self.freed.wait(usage).unwrap_or_else(PoisonError::into_inner);
        }
        drop(usage);
        // Later requests may fit as well.
        self.freed.notify_all();
        Reservation { budget: Arc::clone(self), bytes }
    }

    fn usage(&self) -> MutexGuard<'_, Reserved> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    fn take(&mut self, bytes: usize, limit: usize) -> bool {
        let fits = bytes <= limit - self.used;
        self.used += if fits { bytes } else { 0 };
        fits
    }

    fn admits(&mut self, ticket: u64, bytes: usize, limit: usize) -> bool {
        let before = self.waiting.iter().take_while(|(other, _)| *other != ticket).count();
        let may_pass = self.waiting.iter().take(before).all(|(_, passed)| *passed < MOST_PASSED);
        if !may_pass || !self.take(bytes, limit) {
            return false;
        }
        self.waiting.iter_mut().take(before).for_each(|(_, passed)| *passed += 1);
        self.waiting.remove(before);
        true
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows the reservation to `bytes`; false if they are not free.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self.budget.usage().take(more, self.budget.limit);
        self.bytes += if taken { more } else { 0 };
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.usage().used -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn never_over_the_limit_and_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.try_reserve(6).unwrap();
        assert!(budget.try_reserve(5).is_none());
        assert!(first.grow_to(10) && !first.grow_to(11));
        assert_eq!(budget.used(), 10);
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_reserve(usize::MAX).is_none());
    }

    fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_smaller_request_passes_a_larger_one_that_waits() {
        let budget = Budget::new(10);
        let first = budget.reserve(6);
        std::thread::scope(|scope| {
            let large = scope.spawn(|| budget.reserve(9).bytes);
            until(|| budget.usage().waiting.len() == 1);
            for _ in 0..MOST_PASSED {
                assert_eq!(budget.reserve(4).bytes, 4);
            }
            // The large one has been passed often enough: the next small one waits behind it.
            let small = scope.spawn(|| budget.reserve(4).bytes);
            until(|| budget.usage().waiting.len() == 2);
            assert_eq!(budget.used(), 6);
            drop(first);
            assert_eq!((large.join().unwrap(), small.join().unwrap()), (9, 4));
        });
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn waiting_never_passes_the_limit_and_everybody_gets_in() {
        let budget = Budget::new(100);
        let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..6usize {
                let (budget, inside, done) = (&budget, &inside, &done);
                scope.spawn(move || {
                    for turn in 0..200 {
                        // Some ask for more than there is: they get all of it.
                        let held = budget.reserve((thread * 37 + turn * 11) % 150);
                        assert!(inside.fetch_add(held.bytes, Ordering::SeqCst) + held.bytes <= 100);
                        std::thread::yield_now();
                        inside.fetch_sub(held.bytes, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((budget.used(), done.into_inner()), (0, 1200));
    }
}
