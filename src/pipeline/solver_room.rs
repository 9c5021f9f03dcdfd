//! The memory of the solvers: a permit for its bytes before a solve, given back after it.
//!
//! Guarantees: the permits out at any time sum to the limit at most; who asks for more than there is waits for all of it
//! and works alone. Smaller solves pass one that waits, but not for ever. Must not: be asked for a second permit by who
//! holds one: that is how nobody ever waits for somebody who waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// Solves that may pass one that waits for more memory.
const MOST_PASSED: usize = 64;

/// See the file's head.
#[derive(Debug)]
pub struct SolverRoom {
    limit: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// Tickets of those that wait, in their order, with how many have passed each.
    waiting: VecDeque<(u64, usize)>,
    tickets: u64,
}

/// Bytes that a solve may take.
#[derive(Debug)]
pub struct Permit<'a> {
    room: &'a SolverRoom,
    bytes: usize,
}

impl SolverRoom {
    /// A room of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), freed: Condvar::new() }
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes given out now.
    pub fn used(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).used
    }

    /// Whether a solve of so many bytes fits at all.
    pub fn holds(&self, bytes: usize) -> bool {
        bytes <= self.limit
    }

    /// Waits for `bytes`, or for all there is.
    pub fn enter(&self, bytes: usize) -> Permit<'_> {
        let bytes = bytes.min(self.limit);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = state.tickets;
        state.tickets += 1;
        state.waiting.push_back((ticket, 0));
        while !state.lets_in(ticket, bytes, self.limit) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Who waits behind may fit as well.
        self.freed.notify_all();
        Permit { room: self, bytes }
    }
}

impl State {
    fn lets_in(&mut self, ticket: u64, bytes: usize, limit: usize) -> bool {
        let before = self.waiting.iter().take_while(|(other, _)| *other != ticket).count();
        let patient = self.waiting.iter().take(before).all(|(_, passed)| *passed < MOST_PASSED);
        if !patient || limit - self.used < bytes {
            return false;
        }
        self.waiting.iter_mut().take(before).for_each(|(_, passed)| *passed += 1);
        self.waiting.remove(before);
        self.used += bytes;
        true
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.room.state.lock().unwrap_or_else(PoisonError::into_inner).used -= self.bytes;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_smaller_solve_passes_a_larger_one_that_waits() {
        let room = SolverRoom::new(10);
        let first = room.enter(6);
        std::thread::scope(|scope| {
            let large = scope.spawn(|| room.enter(9).bytes);
            until(|| room.state.lock().unwrap().waiting.len() == 1);
            for _ in 0..MOST_PASSED {
                assert_eq!(room.enter(4).bytes, 4);
            }
            // Now the large one has been passed often enough: another small one waits behind it.
            let small = scope.spawn(|| room.enter(4).bytes);
            until(|| room.state.lock().unwrap().waiting.len() == 2);
            assert_eq!(room.used(), 6);
            drop(first);
            assert_eq!((large.join().unwrap(), small.join().unwrap()), (9, 4));
        });
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn never_over_the_limit_and_everybody_gets_in() {
        let room = SolverRoom::new(100);
        let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..6usize {
                let (room, inside, done) = (&room, &inside, &done);
                scope.spawn(move || {
                    for turn in 0..200 {
                        // Some ask for more than there is: they take all of it.
                        let permit = room.enter((thread * 37 + turn * 11) % 150);
                        assert!(inside.fetch_add(permit.bytes, Ordering::SeqCst) + permit.bytes <= 100);
                        std::thread::yield_now();
                        inside.fetch_sub(permit.bytes, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((room.used(), done.into_inner()), (0, 1200));
    }
}
