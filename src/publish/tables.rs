//! The history's tables: their schema, and the statements that write and read them.
//!
//! Guarantees: one write is one transaction. Must not: keep state, or be used outside `history`.

use std::sync::Arc;

use jiff::Timestamp;
use kernels::spectrum::Spectrum;
use kernels::word::Word;
use rusqlite::{Connection, OptionalExtension, params};

use super::history_error::HistoryError;
use super::saved::{InterruptedWindow, PublishedState, ReportPlace, RestoredLayer, Saved, StoredClose};
use crate::analysis::parameters::Method;
use crate::analysis::report::{FullReport, Report};
use crate::identity::WindowKey;

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
CREATE TABLE closed_windows (run TEXT, layer TEXT, window INTEGER, revision INTEGER NOT NULL, sessions INTEGER NOT NULL,
  PRIMARY KEY (run, layer, window)) STRICT, WITHOUT ROWID;
CREATE TABLE open_windows (run TEXT, layer TEXT, window INTEGER, PRIMARY KEY (run, layer, window)) STRICT, WITHOUT ROWID;
";

pub(super) enum Write {
    Save(Box<Saved>),
    MarkOpen { window: WindowKey, now: Timestamp },
    Run { run: String, method: Option<Method>, last_push: Timestamp, finished_at: Option<Timestamp> },
    Unlatch { run: String },
    Delete { run: String },
}

pub(super) fn migrate(connection: &Connection) -> Result<(), HistoryError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        VERSION => Ok(()),
        0 => Ok(connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?),
        found => Err(HistoryError::Version { found, known: VERSION }),
    }
}

/// Windows are below 2^63: the endpoints refuse larger ones.
pub(super) fn as_stored(window: u64) -> i64 {
    i64::try_from(window).unwrap_or(i64::MAX)
}

pub(super) fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    match write {
        Write::Save(saved) => save(&transaction, saved)?,
        Write::MarkOpen { window, now } => {
            // The run's row first: a run that is killed in its first window is then known afterwards, and one that a
            // push reopened is open.
            let run_row = "INSERT INTO runs VALUES (?1, NULL, ?2, NULL)
                           ON CONFLICT (run) DO UPDATE SET last_push_at = excluded.last_push_at, finished_at = NULL";
            transaction.execute(run_row, params![&*window.run, now.to_string()])?;
            transaction.execute(
                "INSERT OR IGNORE INTO open_windows VALUES (?1, ?2, ?3)",
                params![&*window.run, &*window.layer, as_stored(window.window)],
            )?;
        }
        Write::Run { run, method, last_push, finished_at } => {
            save_run(&transaction, run, *method, *last_push, *finished_at)?;
            if finished_at.is_some() {
                transaction.execute("DELETE FROM open_windows WHERE run = ?1", [run])?;
            }
        }
        Write::Unlatch { run } => {
            transaction
                .execute("UPDATE verdicts SET latched_window = NULL, latched_revision = NULL WHERE run = ?1", [run])?;
        }
        Write::Delete { run } => {
            for table in ["runs", "layers", "verdicts", "reports", "spectra", "closed_windows", "open_windows"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE run = ?1"), [run])?;
            }
        }
    }
    transaction.commit()
}

fn save_run(
    connection: &Connection,
    run: &str,
    method: Option<Method>,
    last_push: Timestamp,
    finished_at: Option<Timestamp>,
) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        run,
        method.map(Method::word),
        last_push.to_string(),
        finished_at.map(|at| at.to_string())
    ])?;
    Ok(())
}

fn save(connection: &Connection, saved: &Saved) -> rusqlite::Result<()> {
    let WindowKey { run, layer, window, revision } = &saved.window;
    let (run, layer, state) = (&**run, &**layer, &saved.run);
    save_run(connection, run, state.method, state.last_push, state.finished_at)?;
    connection.prepare_cached("INSERT OR REPLACE INTO layers VALUES (?1, ?2, ?3)")?.execute(params![
        run,
        layer,
        state.layer_memory
    ])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO closed_windows VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![run, layer, as_stored(*window), revision, as_stored(saved.sessions)])?;
    for published in &saved.reports {
        save_report(connection, published)?;
    }
    let mut verdict = connection.prepare_cached("INSERT OR REPLACE INTO verdicts VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for state in &saved.published {
        let (window, revision) = state.latched.map(|place| (as_stored(place.window), place.revision)).unzip();
        verdict.execute(params![run, state.layer, as_stored(state.since_window), window, revision])?;
    }
    connection
        .prepare_cached("DELETE FROM open_windows WHERE run = ?1 AND layer = ?2 AND window = ?3")?
        .execute(params![run, layer, as_stored(*window)])?;
    Ok(())
}

fn save_report(connection: &Connection, full: &FullReport) -> rusqlite::Result<()> {
    let report = &full.report;
    let (window, verdict) = (as_stored(report.window), &report.verdict);
    let text = serde_json::to_string(report).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
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
            text,
        ])?;
    let Some(Spectrum { values, numeric_floor, input_floor }) = &full.spectrum else { return Ok(()) };
    let blob: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    connection
        .prepare_cached("INSERT OR REPLACE INTO spectra VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![report.run, report.layer, window, report.revision, numeric_floor, input_floor, blob])?;
    Ok(())
}

/// The newest report of a layer, a window, or one revision of it.
pub(super) fn load(
    connection: &Connection,
    run: &str,
    layer: &str,
    window: Option<u64>,
    revision: Option<u32>,
) -> rusqlite::Result<Option<Arc<FullReport>>> {
    let mut query = connection.prepare_cached(
        "SELECT r.report, s.eigenvalues, s.numeric_noise_floor, s.input_noise_floor
         FROM reports r LEFT JOIN spectra s USING (run, layer, window, revision)
         WHERE run = ?1 AND layer = ?2 AND (?3 IS NULL OR window = ?3) AND (?4 IS NULL OR revision = ?4)
         ORDER BY r.rowid DESC LIMIT 1",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let text: String = row.get(0)?;
        let report: Report = serde_json::from_str(&text)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))?;
        let spectrum = match row.get::<_, Option<Vec<u8>>>(1)? {
            Some(blob) => {
                Some(Spectrum { values: eigenvalues(&blob), numeric_floor: row.get(2)?, input_floor: row.get(3)? })
            }
            None => None,
        };
        Ok(Arc::new(FullReport { report, spectrum }))
    };
    query.query_row(params![run, layer, window.map(as_stored), revision], read).optional()
}

/// From a blob of little-endian f64.
pub(super) fn eigenvalues(blob: &[u8]) -> Vec<f64> {
    blob.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

pub(super) fn restored_layers(connection: &Connection, run: &str) -> rusqlite::Result<Vec<RestoredLayer>> {
    let mut query = connection.prepare_cached("SELECT layer, memory FROM layers WHERE run = ?1")?;
    let layers = query.query_map([run], |row| {
        let layer: String = row.get(0)?;
        Ok(RestoredLayer { closed: restored_closed(connection, run, &layer)?, layer, memory: row.get(1)? })
    })?;
    layers.collect()
}

fn restored_closed(connection: &Connection, run: &str, layer: &str) -> rusqlite::Result<Vec<StoredClose>> {
    let mut query = connection
        .prepare_cached("SELECT window, revision, sessions FROM closed_windows WHERE run = ?1 AND layer = ?2")?;
    let number = |row: &rusqlite::Row<'_>, index| row.get::<_, i64>(index).map(|value| value as u64);
    let close = |row: &rusqlite::Row<'_>| {
        Ok(StoredClose { window: number(row, 0)?, revision: row.get(1)?, sessions: number(row, 2)? })
    };
    query.query_map([run, layer], close)?.collect()
}

pub(super) fn restored_verdicts(connection: &Connection, run: &str) -> rusqlite::Result<Vec<PublishedState>> {
    let mut query = connection
        .prepare_cached("SELECT layer, since_window, latched_window, latched_revision FROM verdicts WHERE run = ?1")?;
    query
        .query_map([run], |row| {
            let (window, revision): (Option<i64>, Option<u32>) = (row.get(2)?, row.get(3)?);
            Ok(PublishedState {
                layer: row.get(0)?,
                since_window: row.get::<_, i64>(1)? as u64,
                latched: window.zip(revision).map(|(w, revision)| ReportPlace { window: w as u64, revision }),
            })
        })?
        .collect()
}

pub(super) fn restored_open(connection: &Connection, run: &str) -> rusqlite::Result<Vec<InterruptedWindow>> {
    let mut query = connection.prepare_cached("SELECT layer, window FROM open_windows WHERE run = ?1")?;
    query
        .query_map([run], |row| Ok(InterruptedWindow { layer: row.get(0)?, window: row.get::<_, i64>(1)? as u64 }))?
        .collect()
}
