//! A run as work in progress refers to it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Lets work in progress check that its run still exists: a later run of the same name has another handle.
#[derive(Debug, Default)]
pub(super) struct RunHandle {
    deleted: AtomicBool,
}

impl RunHandle {
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
    }
}
