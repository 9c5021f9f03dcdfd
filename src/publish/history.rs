//! Reports, spectra, runs and each layer's memory in SQLite: they survive a restart, and sqlite3 opens them.
//!
//! Guarantees: what one window brings is written in one transaction and synced (WAL, synchronous FULL) before it counts as
//! stored; a write that fails is kept, in order, and tried again, and `fault` says why meanwhile.
//! Must not: be called on a thread that serves sockets, reads of the board excepted.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::{Published, PublishedState, Saved};

/// The schema's version, in SQLite's user_version.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE runs (run TEXT PRIMARY KEY, method TEXT, last_push_at TEXT NOT NULL, finished_at TEXT) STRICT;
CREATE TABLE layers (run TEXT, layer TEXT, memory TEXT NOT NULL, PRIMARY KEY (run, layer)) STRICT, WITHOUT ROWID;
CREATE TABLE verdicts (run TEXT, layer TEXT, since_window INTEGER NOT NULL, latched_window INTEGER,
  latched_revision INTEGER, PRIMARY KEY (run, layer)) STRICT, WITHOUT ROWID;
CREATE TABLE reports (run TEXT, layer TEXT, window INTEGER, revision INTEGER, closed_at TEXT NOT NULL, rows INTEGER NOT NULL,
  dim INTEGER NOT NULL, state TEXT NOT NULL, scale TEXT NOT NULL, dimension TEXT NOT NULL, cause TEXT NOT NULL,
  report TEXT NOT NULL, PRIMARY KEY (run, layer, window, revision)) STRICT;
CREATE TABLE spectra (run TEXT, layer TEXT, window INTEGER, revision INTEGER, numeric_noise_floor REAL NOT NULL,
  input_noise_floor REAL NOT NULL, eigenvalues BLOB NOT NULL, PRIMARY KEY (run, layer, window, revision)) STRICT;
CREATE TABLE open_windows (run TEXT, layer TEXT, window INTEGER, PRIMARY KEY (run, layer, window)) STRICT, WITHOUT ROWID;
";

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
    #[error("the history has schema version {found}, this fullrank knows up to {known}: run the version that wrote it, or another --data-dir")]
    Version {
        /// The file's.
        found: i64,
        /// This program's.
        known: i64,
    },
}

/// See the file's head.
pub struct History {
    writer: Mutex<Writer>,
    /// A second connection, so that reads do not wait for a sync; `None` in memory, where there is one.
    reader: Option<Mutex<Connection>>,
    fault: Mutex<Option<String>>,
    _lock: Option<File>,
}

struct Writer {
    connection: Connection,
    /// Writes that failed, and all that came after them.
    pending: VecDeque<Write>,
}

enum Write {
    Save(Box<Saved>),
    MarkOpen { run: String, layer: String, window: u64 },
    Run { run: String, method: Option<&'static str>, last_push: Timestamp, finished_at: Option<Timestamp> },
    Unlatch { run: String },
    Delete { run: String },
}

/// A run as the history knows it.
#[derive(Debug)]
pub struct Restored {
    /// Its name.
    pub run: String,
    /// Its method's word.
    pub method: Option<String>,
    /// When rows last came.
    pub last_push: Timestamp,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
    /// Its layers, as pushed.
    pub layers: Vec<RestoredLayer>,
    /// What was published.
    pub verdicts: Vec<PublishedState>,
    /// Windows that were open: (layer, window).
    pub interrupted: Vec<(String, u64)>,
}

/// A layer as the history knows it.
#[derive(Debug)]
pub struct RestoredLayer {
    /// Its name.
    pub layer: String,
    /// Its memory, as JSON.
    pub memory: String,
}

impl History {
    /// Opens or makes `fullrank.sqlite3` under `directory`, or a history in memory.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(directory: Option<&Path>) -> Result<Self, HistoryError> {
        let Some(directory) = directory else {
            let connection = Connection::open_in_memory()?;
            migrate(&connection)?;
            return Ok(Self::new(connection, None, None));
        };
        let fail = |error| HistoryError::Directory { path: directory.display().to_string(), error };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let lock = File::create(directory.join("fullrank.lock")).map_err(fail)?;
        lock.try_lock().map_err(|_| HistoryError::InUse(directory.display().to_string()))?;
        let path = directory.join("fullrank.sqlite3");
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        migrate(&connection)?;
        let reader = Connection::open(&path)?;
        reader.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Self::new(connection, Some(reader), Some(lock)))
    }

    fn new(connection: Connection, reader: Option<Connection>, lock: Option<File>) -> Self {
        let writer = Mutex::new(Writer { connection, pending: VecDeque::new() });
        Self { writer, reader: reader.map(Mutex::new), fault: Mutex::new(None), _lock: lock }
    }

    /// Why writes fail at the moment.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores what one window brought.
    pub fn save(&self, saved: Saved) {
        self.write(Write::Save(Box::new(saved)));
    }

    /// Notes that a window holds rows that a kill would lose.
    pub fn mark_open(&self, run: &str, layer: &str, window: u64) {
        self.write(Write::MarkOpen { run: run.to_string(), layer: layer.to_string(), window });
    }

    /// Stores the run's own row.
    pub fn save_run(&self, run: &str, method: Option<&'static str>, last_push: Timestamp, finished_at: Option<Timestamp>) {
        self.write(Write::Run { run: run.to_string(), method, last_push, finished_at });
    }

    /// Forgets that the run's verdicts are latched.
    pub fn unlatch(&self, run: &str) {
        self.write(Write::Unlatch { run: run.to_string() });
    }

    /// Forgets the run.
    pub fn delete(&self, run: &str) {
        self.write(Write::Delete { run: run.to_string() });
    }

    /// Tries what failed again.
    pub fn retry(&self) {
        if self.fault().is_some() {
            self.flush(&mut self.writer());
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: Write) {
        let mut writer = self.writer();
        writer.pending.push_back(write);
        self.flush(&mut writer);
    }

    fn flush(&self, writer: &mut Writer) {
        let mut fault = None;
        while let Some(write) = writer.pending.front() {
            if let Err(error) = apply(&writer.connection, write) {
                fault = Some(error.to_string());
                break;
            }
            writer.pending.pop_front();
        }
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() && fault.is_some() {
            tracing::error!(error = fault, waiting = writer.pending.len(), "the history cannot be written; pushes are refused until it can");
        } else if known.is_some() && fault.is_none() {
            tracing::info!("the history can be written again");
        }
        *known = fault;
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        match &self.reader {
            Some(reader) => Ok(read(&reader.lock().unwrap_or_else(PoisonError::into_inner))?),
            None => Ok(read(&self.writer().connection)?),
        }
    }

    /// Closed windows `from ..= to`, oldest first, every revision; whole windows until at least `limit` reports are there.
    /// The second value is the window to go on from.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn reports(&self, run: &str, layer: &str, range: (u64, u64), limit: usize) -> Result<(Vec<String>, Option<u64>), HistoryError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT window, report FROM reports WHERE run = ?1 AND layer = ?2 AND window BETWEEN ?3 AND ?4
                 ORDER BY window, revision",
            )?;
            let mut rows = query.query(params![run, layer, as_stored(range.0), as_stored(range.1)])?;
            let mut reports: Vec<String> = Vec::new();
            let mut last = None;
            while let Some(row) = rows.next()? {
                let window = row.get::<_, i64>(0)?;
                if reports.len() >= limit && last != Some(window) {
                    return Ok((reports, Some(window as u64)));
                }
                last = Some(window);
                reports.push(row.get(1)?);
            }
            Ok((reports, None))
        })
    }

    /// The newest revision of a window's report, or of the newest window.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn newest(&self, run: &str, layer: &str, window: Option<u64>) -> Result<Option<Arc<Published>>, HistoryError> {
        self.read(|connection| load(connection, (run, layer), window, None))
    }

    /// As [`History::newest`], for who cannot do anything about an error.
    pub fn report(&self, run: &str, layer: &str, window: u64) -> Option<Arc<Published>> {
        self.newest(run, layer, Some(window)).unwrap_or_else(|error| {
            tracing::error!(%error, "a stored report cannot be read");
            None
        })
    }

    /// A report by its revision.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn revision(&self, run: &str, layer: &str, place: (u64, u32)) -> Result<Option<Arc<Published>>, HistoryError> {
        self.read(|connection| load(connection, (run, layer), Some(place.0), Some(place.1)))
    }

    /// Every run, for the start of the service.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn restore(&self) -> Result<Vec<Restored>, HistoryError> {
        self.read(|connection| {
            let mut runs = Vec::new();
            let mut query = connection.prepare("SELECT run, method, last_push_at, finished_at FROM runs")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let run: String = row.get(0)?;
                let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
                runs.push(Restored {
                    method: row.get(1)?,
                    last_push: time(row.get(2)?).unwrap_or(Timestamp::UNIX_EPOCH),
                    finished_at: time(row.get(3)?),
                    layers: restored_layers(connection, &run)?,
                    verdicts: restored_verdicts(connection, &run)?,
                    interrupted: restored_open(connection, &run)?,
                    run,
                });
            }
            Ok(runs)
        })
    }
}

fn migrate(connection: &Connection) -> Result<(), HistoryError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        VERSION => Ok(()),
        0 => Ok(connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?),
        found => Err(HistoryError::Version { found, known: VERSION }),
    }
}

/// Windows are below 2^63: the doors refuse others.
fn as_stored(window: u64) -> i64 {
    i64::try_from(window).unwrap_or(i64::MAX)
}

fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    match write {
        Write::Save(saved) => save(&transaction, saved)?,
        Write::MarkOpen { run, layer, window } => {
            // The run's row first: a run that is killed in its first window is known afterwards.
            let now = "INSERT OR IGNORE INTO runs VALUES (?1, NULL, '1970-01-01T00:00:00Z', NULL)";
            transaction.execute(now, params![run])?;
            transaction
                .execute("INSERT OR IGNORE INTO open_windows VALUES (?1, ?2, ?3)", params![run, layer, as_stored(*window)])?;
        }
        Write::Run { run, method, last_push, finished_at } => save_run(&transaction, run, *method, (*last_push, *finished_at))?,
        Write::Unlatch { run } => {
            transaction.execute("UPDATE verdicts SET latched_window = NULL, latched_revision = NULL WHERE run = ?1", [run])?;
        }
        Write::Delete { run } => {
            for table in ["runs", "layers", "verdicts", "reports", "spectra", "open_windows"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE run = ?1"), [run])?;
            }
        }
    }
    transaction.commit()
}

fn save_run(
    connection: &Connection,
    run: &str,
    method: Option<&str>,
    times: (Timestamp, Option<Timestamp>),
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![run, method, times.0.to_string(), times.1.map(|at| at.to_string())])?;
    Ok(())
}

fn save(connection: &Connection, saved: &Saved) -> rusqlite::Result<()> {
    let run = &saved.run;
    save_run(connection, run, saved.method, (saved.last_push, saved.finished_at))?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO layers VALUES (?1, ?2, ?3)")?
        .execute(params![run, saved.layer, saved.layer_state])?;
    for published in &saved.reports {
        save_report(connection, published)?;
    }
    let mut verdict = connection.prepare_cached("INSERT OR REPLACE INTO verdicts VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for state in &saved.latched {
        let (window, revision) = state.latched.map(|(w, r)| (as_stored(w), r)).unzip();
        verdict.execute(params![run, state.layer, as_stored(state.since_window), window, revision])?;
    }
    connection
        .prepare_cached("DELETE FROM open_windows WHERE run = ?1 AND layer = ?2 AND window = ?3")?
        .execute(params![run, saved.layer, as_stored(saved.window)])?;
    Ok(())
}

fn save_report(connection: &Connection, published: &Published) -> rusqlite::Result<()> {
    let report = &published.report;
    let (window, verdict) = (as_stored(report.window), &report.verdict);
    connection
        .prepare_cached("INSERT OR REPLACE INTO reports VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?
        .execute(params![
            report.run,
            report.layer,
            window,
            report.revision,
            report.closed_at,
            report.rows as i64,
            report.dim as i64,
            verdict.state.word(),
            verdict.scale.word(),
            verdict.dimension.word(),
            verdict.cause.word(),
            published.json.to_string(),
        ])?;
    let Some(eigenvalues) = &published.eigenvalues else { return Ok(()) };
    let blob: Vec<u8> = eigenvalues.iter().flat_map(|value| value.to_le_bytes()).collect();
    let measures = &report.measures;
    connection.prepare_cached("INSERT OR REPLACE INTO spectra VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
        report.run,
        report.layer,
        window,
        report.revision,
        measures.numeric_noise_floor.unwrap_or(0.0),
        measures.input_noise_floor.unwrap_or(0.0),
        blob,
    ])?;
    Ok(())
}

fn load(
    connection: &Connection,
    (run, layer): (&str, &str),
    window: Option<u64>,
    revision: Option<u32>,
) -> rusqlite::Result<Option<Arc<Published>>> {
    let mut query = connection.prepare_cached(
        "SELECT r.report, s.eigenvalues FROM reports r LEFT JOIN spectra s USING (run, layer, window, revision)
         WHERE run = ?1 AND layer = ?2 AND (?3 IS NULL OR window = ?3) AND (?4 IS NULL OR revision = ?4)
         ORDER BY window DESC, revision DESC LIMIT 1",
    )?;
    let row = query
        .query_row(params![run, layer, window.map(as_stored), revision], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
        })
        .optional()?;
    Ok(row.and_then(|(report, blob)| {
        let json: Value = serde_json::from_str(&report).ok()?;
        let eigenvalues = blob.map(|blob| blob.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect());
        super::report_read::published(json, eigenvalues).map(Arc::new)
    }))
}

fn restored_layers(connection: &Connection, run: &str) -> rusqlite::Result<Vec<RestoredLayer>> {
    let mut query = connection.prepare_cached("SELECT layer, memory FROM layers WHERE run = ?1")?;
    query.query_map([run], |row| Ok(RestoredLayer { layer: row.get(0)?, memory: row.get(1)? }))?.collect()
}

fn restored_verdicts(connection: &Connection, run: &str) -> rusqlite::Result<Vec<PublishedState>> {
    let mut query = connection
        .prepare_cached("SELECT layer, since_window, latched_window, latched_revision FROM verdicts WHERE run = ?1")?;
    query
        .query_map([run], |row| {
            let latched: Option<i64> = row.get(2)?;
            Ok(PublishedState {
                layer: row.get(0)?,
                since_window: row.get::<_, i64>(1)? as u64,
                latched: latched.map(|w| w as u64).zip(row.get(3)?),
            })
        })?
        .collect()
}

fn restored_open(connection: &Connection, run: &str) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut query = connection.prepare_cached("SELECT layer, window FROM open_windows WHERE run = ?1")?;
    query.query_map([run], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?.collect()
}
