//! The niceness of computing threads.

/// Niceness of threads that merge: pushes are answered first, and the trainer on the same machine comes before both.
pub const ACCUMULATE_NICENESS: i32 = 5;

/// Niceness of threads that solve: a merge goes before an eigensolve, which takes seconds.
pub const SPECTRUM_NICENESS: i32 = 10;

/// Lowers the priority of this thread. Linux keeps niceness per thread; elsewhere it would apply to the whole process,
/// so nothing is done.
pub fn give_way(niceness: i32) {
    #[cfg(target_os = "linux")]
    // Without the permission the thread keeps its priority: slower for others, but results do not change.
    let _ = rustix::process::setpriority_process(None, niceness);
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}
