//! A queue that keeps the order within each key and lets threads take turns between keys.
//!
//! Guarantees: items of one key are handled one at a time, in order; a busy key does not hold up the others as long as
//! a thread is free. Must not: limit its own length (admission does), or know what an item is.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct KeyedQueue<K, T> {
    state: Mutex<Pending<K, T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Pending<K, T> {
    /// Items by key; a key is present while it waits or one of its items is being handled.
    items: HashMap<K, VecDeque<T>>,
    /// Keys that wait for a thread.
    ready: VecDeque<K>,
    /// Keys that have an item being handled.
    handled: usize,
    stopped: bool,
}

impl<K: Clone + Eq + Hash, T> KeyedQueue<K, T> {
    pub(super) fn new() -> Self {
        let state = Pending { items: HashMap::new(), ready: VecDeque::new(), handled: 0, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds an item at the end of its key's queue.
    pub(super) fn push(&self, key: K, item: T) {
        let mut state = self.lock();
        match state.items.get_mut(&key) {
            Some(items) => items.push_back(item),
            None => {
                state.items.insert(key.clone(), VecDeque::from([item]));
                state.ready.push_back(key);
                self.changed.notify_one();
            }
        }
    }

    /// Handles items until the queue is stopped and empty. `handle` must not panic.
    pub(super) fn work(&self, mut handle: impl FnMut(T)) {
        while let Some((key, item)) = self.next() {
            handle(item);
            self.done(key);
        }
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<(K, T)> {
        let mut state = self.lock();
        loop {
            if let Some(key) = state.ready.pop_front()
                && let Some(item) = state.items.get_mut(&key).and_then(VecDeque::pop_front)
            {
                state.handled += 1;
                return Some((key, item));
            }
            if state.stopped && state.handled == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, key: K) {
        let mut state = self.lock();
        state.handled -= 1;
        if state.items.get(&key).is_some_and(|items| !items.is_empty()) {
            state.ready.push_back(key);
            self.changed.notify_one();
        } else {
            state.items.remove(&key);
        }
        if state.stopped && state.handled == 0 && state.ready.is_empty() {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending<K, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    #[test]
    fn each_key_keeps_its_order_whatever_the_threads_do() {
        let queue = KeyedQueue::new();
        (0..1000).for_each(|i| queue.push(i % 7, i));
        queue.stop();
        let seen = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| queue.work(|item| seen.lock().unwrap().push(item)));
            }
        });
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), 1000);
        for key in 0..7 {
            let mine: Vec<i32> = seen.iter().copied().filter(|i| i % 7 == key).collect();
            assert!(mine.is_sorted(), "{mine:?}");
        }
    }

    #[test]
    fn a_busy_key_holds_up_no_other() {
        let queue = KeyedQueue::new();
        let (barrier, (sender, receiver)) = (Barrier::new(2), channel());
        queue.push("slow", 0);
        queue.push("slow", 1);
        queue.push("quick", 2);
        queue.stop();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    queue.work(|item| {
                        // The first waits until the quick one was handled by the other thread.
                        if item != 1 {
                            barrier.wait();
                        }
                        sender.send(item).unwrap();
                    })
                });
            }
        });
        drop(sender);
        let mut seen: Vec<i32> = receiver.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }
}
