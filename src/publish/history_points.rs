//! A layer's whole history in a bounded number of windows, for charts.
//!
//! Guarantees: at most the requested number of reports is read; one that stands for several windows is the worst judged
//! of them, so a short collapse is not lost. Must not: average (a mean of two ranks is not a rank).

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::history::History;
use super::history_error::HistoryError;
use super::tables::{as_stored, eigenvalues};
use crate::analysis::verdict::VerdictState;

#[derive(Debug)]
pub(crate) struct HistoryPoints {
    pub total: usize,
    /// The selected windows, oldest first, the newest revision of each.
    pub windows: Vec<HistoryPoint>,
}

#[derive(Debug)]
pub(crate) struct HistoryPoint {
    pub report: Value,
    /// Descending; `None` unless requested and known.
    pub eigenvalues: Option<Vec<f64>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PointsQuery {
    pub from: u64,
    pub to: u64,
    pub most: usize,
    /// With the eigenvalues.
    pub spectra: bool,
}

impl History {
    /// Windows of a layer.
    pub(crate) fn points(&self, run: &str, layer: &str, query: PointsQuery) -> Result<HistoryPoints, HistoryError> {
        self.read(|connection| {
            let all = marks(connection, run, layer, query)?;
            let mut read = connection.prepare_cached(if query.spectra {
                "SELECT report, eigenvalues FROM reports LEFT JOIN spectra USING (run, layer, window, revision)
                 WHERE run = ?1 AND layer = ?2 AND window = ?3 AND revision = ?4"
            } else {
                "SELECT report, NULL FROM reports WHERE run = ?1 AND layer = ?2 AND window = ?3 AND revision = ?4"
            })?;
            let mut windows = Vec::new();
            for (window, revision, _) in chosen(&all, query.most) {
                let row = read.query_row(params![run, layer, window, revision], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
                });
                // The run may have been deleted meanwhile.
                let Some((report, blob)) = row.optional()? else { continue };
                let eigenvalues = blob.as_deref().map(eigenvalues);
                windows.push(HistoryPoint { report: serde_json::from_str(&report).unwrap_or_default(), eigenvalues });
            }
            Ok(HistoryPoints { total: all.len(), windows })
        })
    }
}

type Mark = (i64, u32, Option<VerdictState>);

/// Every window with its newest revision and that revision's state, without reading the long reports.
fn marks(connection: &Connection, run: &str, layer: &str, asked: PointsQuery) -> rusqlite::Result<Vec<Mark>> {
    // Next to max(), a bare column takes its value from the row with the maximum.
    let mut query = connection.prepare_cached(
        "SELECT window, max(revision), state FROM reports WHERE run = ?1 AND layer = ?2 AND window BETWEEN ?3 AND ?4
         GROUP BY window ORDER BY window",
    )?;
    let range = params![run, layer, as_stored(asked.from), as_stored(asked.to)];
    query.query_map(range, |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?.parse().ok())))?.collect()
}

/// At most `most` windows, evenly spread: from each stretch the worst, and of equally bad ones the last.
fn chosen(all: &[Mark], most: usize) -> Vec<Mark> {
    if all.len() <= most {
        return all.to_vec();
    }
    let stretch = |i: usize| &all[i * all.len() / most..(i + 1) * all.len() / most];
    (0..most).filter_map(|i| stretch(i).iter().max_by_key(|mark| mark.2).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_collapse_is_chosen() {
        let state = |i| Some(if i == 5003 { VerdictState::Collapsed } else { VerdictState::Healthy });
        let all: Vec<Mark> = (0..10_000).map(|i| (i, 1, state(i))).collect();
        let few = chosen(&all, 400);
        assert_eq!(few.len(), 400);
        assert!(few.iter().any(|mark| mark.0 == 5003));
        assert_eq!(few.last().map(|mark| mark.0), Some(9999));
        assert_eq!(chosen(&all[..3], 400).len(), 3);
    }
}
