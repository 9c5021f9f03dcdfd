//! Reports, spectra, runs and each layer's memory in SQLite: they survive a restart, and sqlite3 can open them.
//!
//! Guarantees: everything from one window is written in one transaction and synced (WAL, synchronous FULL) before it
//! counts as stored; a failed write is kept, in order, and retried, and `fault` gives the reason meanwhile. Must not:
//! be called on a thread that serves sockets.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::history_error::HistoryError;
use super::saved::{ReportPlace, Restored, Saved};
use super::tables::{Write, apply, as_stored, load, migrate, restored_layers, restored_open, restored_verdicts};
use crate::analysis::parameters::Method;
use crate::analysis::report::FullReport;
use crate::identity::WindowKey;

/// The SQLite database and the writes that wait for it.
pub struct History {
    writer: Mutex<Connection>,
    /// Pending writes, in order, those that failed first.
    pending: Mutex<VecDeque<Write>>,
    /// A second connection, so that reads do not wait for a sync; `None` in memory, where there is only one.
    reader: Option<Mutex<Connection>>,
    fault: Mutex<Option<String>>,
    _lock: Option<File>,
}

/// A page of stored reports.
#[derive(Debug)]
pub struct ReportPage {
    /// JSON, oldest first.
    pub reports: Vec<String>,
    /// The window where the next page starts.
    pub next: Option<u64>,
}

impl History {
    /// Opens or creates `fullrank.sqlite3` in `directory`, or a history in memory.
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
        Self {
            writer: Mutex::new(connection),
            pending: Mutex::default(),
            reader: reader.map(Mutex::new),
            fault: Mutex::default(),
            _lock: lock,
        }
    }

    /// Why writes currently fail.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues everything from one window for the next `flush`.
    pub(crate) fn save(&self, saved: Saved) {
        self.push(Write::Save(Box::new(saved)));
    }

    /// Records that a window holds rows that a kill would lose.
    pub(crate) fn mark_open(&self, window: &WindowKey, now: Timestamp) {
        self.push(Write::MarkOpen { window: window.clone(), now });
        self.flush();
    }

    /// Queues the run's own row for the next `flush`; a finished run has no interrupted windows.
    pub(crate) fn save_run(
        &self,
        run: &str,
        method: Option<Method>,
        last_push: Timestamp,
        finished_at: Option<Timestamp>,
    ) {
        self.push(Write::Run { run: run.to_string(), method, last_push, finished_at });
    }

    /// Queues unlatching the run's verdicts for the next `flush`.
    pub(crate) fn unlatch(&self, run: &str) {
        self.push(Write::Unlatch { run: run.to_string() });
    }

    /// Queues deleting the run for the next `flush`.
    pub fn delete(&self, run: &str) {
        self.push(Write::Delete { run: run.to_string() });
    }

    fn push(&self, write: Write) {
        self.queue().push_back(write);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Write>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes everything queued; a write that fails stays first in the queue.
    pub fn flush(&self) {
        let connection = self.writer();
        let mut fault = None;
        loop {
            let Some(write) = self.queue().pop_front() else { break };
            if let Err(error) = apply(&connection, &write) {
                fault = Some(error.to_string());
                self.queue().push_front(write);
                break;
            }
        }
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() && fault.is_some() {
            tracing::error!(error = fault, "cannot write the history; pushes are refused until that works again");
        } else if known.is_some() && fault.is_none() {
            tracing::info!("writing the history works again");
        }
        *known = fault;
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        match &self.reader {
            Some(reader) => Ok(read(&reader.lock().unwrap_or_else(PoisonError::into_inner))?),
            None => Ok(read(&self.writer())?),
        }
    }

    /// Closed windows `from ..= to`, oldest first, every revision; whole windows until there are at least `limit`
    /// reports.
    pub fn reports(
        &self,
        run: &str,
        layer: &str,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<ReportPage, HistoryError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT window, report FROM reports WHERE run = ?1 AND layer = ?2 AND window BETWEEN ?3 AND ?4
                 ORDER BY window, revision",
            )?;
            let mut rows = query.query(params![run, layer, as_stored(*range.start()), as_stored(*range.end())])?;
            let mut reports: Vec<String> = Vec::new();
            let mut last = None;
            while let Some(row) = rows.next()? {
                let window = row.get::<_, i64>(0)?;
                if reports.len() >= limit && last != Some(window) {
                    return Ok(ReportPage { reports, next: Some(window as u64) });
                }
                last = Some(window);
                reports.push(row.get(1)?);
            }
            Ok(ReportPage { reports, next: None })
        })
    }

    /// The newest revision of a window's report, or the newest window's.
    pub fn newest(&self, run: &str, layer: &str, window: Option<u64>) -> Result<Option<Arc<FullReport>>, HistoryError> {
        self.read(|connection| load(connection, run, layer, window, None))
    }

    /// As [`History::newest`], for callers that cannot handle an error.
    pub fn report(&self, run: &str, layer: &str, window: u64) -> Option<Arc<FullReport>> {
        self.newest(run, layer, Some(window)).unwrap_or_else(|error| {
            tracing::error!(%error, "a stored report cannot be read");
            None
        })
    }

    /// One revision of a report.
    pub(crate) fn revision(
        &self,
        run: &str,
        layer: &str,
        place: ReportPlace,
    ) -> Result<Option<Arc<FullReport>>, HistoryError> {
        self.read(|connection| load(connection, run, layer, Some(place.window), Some(place.revision)))
    }

    /// Every run, to restore at the start of the service.
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
                    published: restored_verdicts(connection, &run)?,
                    interrupted: restored_open(connection, &run)?,
                    run,
                });
            }
            Ok(runs)
        })
    }
}
