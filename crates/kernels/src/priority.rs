//! How much threads that compute give way to others.

/// Niceness of threads that merge: a push is answered before its rows are merged, and the trainer on the same machine
/// comes first.
pub const ACCUMULATE_NICENESS: i32 = 5;

/// Niceness of threads that solve: a merge goes before an eigensolve, which takes seconds.
pub const SPECTRUM_NICENESS: i32 = 10;

/// Lowers the priority of this thread. Linux keeps niceness per thread; elsewhere it would be the whole process's, so
/// nothing is done.
pub fn give_way(niceness: i32) {
    #[cfg(target_os = "linux")]
    // Without the permission the thread keeps its priority: slower for others, wrong for nobody.
    let _ = rustix::process::setpriority_process(None, niceness);
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}
