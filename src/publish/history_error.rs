//! Why the history cannot be opened or read.

/// Why the history cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite says so.
    #[error("history: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The directory or the lock file.
    #[error("data directory {path}: {error}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("data directory {0} is in use by another fullrank: give each its own")]
    InUse(String),
    /// Written by a later version.
    #[error(
        "the history has schema version {found}, this fullrank knows up to {known}: run the version that wrote it, or another --data-dir"
    )]
    Version {
        /// The file's.
        found: i64,
        /// This program's.
        known: i64,
    },
}
