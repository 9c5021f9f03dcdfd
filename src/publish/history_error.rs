//! Why the history cannot be opened or read.

/// Why the history cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("history: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("data directory {path}: {error}")]
    Directory { path: String, error: std::io::Error },
    #[error("data directory {0} is in use by another fullrank: give each its own")]
    InUse(String),
    #[error(
        "the history has schema version {found}, but this fullrank supports at most {known}: run the version that wrote it, or use another --data-dir"
    )]
    Version { found: i64, known: i64 },
}
