//! What one receiver has been sent, and what it must still be sent.
//!
//! Guarantees: an alert that ended is kept until its end was delivered, even if its beginning never was. At most
//! [`MOST_ENDED`] of those are kept. Must not: send.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::alert::{Alert, Key};
use crate::analysis::verdict::Level;

/// Ended alerts that wait for a receiver; each holds one report, some kilobytes.
pub(super) const MOST_ENDED: usize = 1000;

/// How long a warning must hold before it is sent, like `for: 5m` in `dashboards/prometheus`: one odd window of a run
/// that measures every step is not news. Critical alerts already have the verdict's own hysteresis.
const HOLD: SignedDuration = SignedDuration::from_mins(5);

#[derive(Default)]
pub(super) struct AlertLedger {
    /// Warnings that have not held for long enough, and since when they fire.
    young: BTreeMap<Key, Timestamp>,
    firing: BTreeMap<Key, Alert>,
    /// Oldest first.
    ended: Vec<Alert>,
    /// The alerts that the receiver knows to fire.
    told: BTreeSet<Key>,
    again: bool,
}

impl AlertLedger {
    /// Updates the ledger with the firing alerts; returns how many ended alerts were dropped for lack of room.
    pub(super) fn observe(&mut self, mut current: BTreeMap<Key, Alert>, now: Timestamp) -> u64 {
        let before = std::mem::take(&mut self.young);
        for (key, alert) in &current {
            if alert.severity == Level::Warning && !self.firing.contains_key(key) {
                let since = before.get(key).copied().unwrap_or(now);
                if now.duration_since(since) < HOLD {
                    self.young.insert(key.clone(), since);
                }
            }
        }
        current.retain(|key, _| !self.young.contains_key(key));
        for (key, alert) in std::mem::take(&mut self.firing) {
            match current.get_mut(&key) {
                Some(same) => same.starts_at = alert.starts_at,
                None => self.ended.push(Alert { ends_at: Some(now), ..alert }),
            }
        }
        for alert in current.values_mut() {
            alert.starts_at = alert.starts_at.or(Some(now));
        }
        self.firing = current;
        // An alert that fires again has not ended.
        self.ended.retain(|alert| !self.firing.contains_key(&alert.key()));
        let dropped = self.ended.len().saturating_sub(MOST_ENDED);
        for alert in self.ended.drain(..dropped) {
            self.told.remove(&alert.key());
        }
        dropped as u64
    }

    /// Whether an alert may become due by time alone.
    pub(super) fn waits(&self) -> bool {
        !self.young.is_empty()
    }

    pub(super) fn fires(&self) -> bool {
        !self.firing.is_empty()
    }

    pub(super) fn repeat(&mut self, all: bool) {
        self.again |= all;
    }

    pub(super) fn is_due(&self) -> bool {
        self.again || !self.due_runs().is_empty()
    }

    pub(super) fn due_runs(&self) -> BTreeSet<String> {
        let news = self.firing.keys().filter(|key| !self.told.contains(*key));
        news.map(|key| key.0.clone()).chain(self.ended.iter().map(|alert| alert.run.clone())).collect()
    }

    pub(super) fn of_run(&self, run: &str) -> Vec<&Alert> {
        self.all().into_iter().filter(|alert| alert.run == run).collect()
    }

    pub(super) fn all(&self) -> Vec<&Alert> {
        self.firing.values().chain(&self.ended).collect()
    }

    /// Marks the alerts of one run, or all, as delivered.
    pub(super) fn delivered(&mut self, run: Option<&str>) {
        let taken = |name: &str| run.is_none_or(|run| run == name);
        self.again &= run.is_some();
        self.ended.retain(|alert| !taken(&alert.run));
        self.told.retain(|key| !taken(&key.0));
        self.told.extend(self.firing.keys().filter(|key| taken(&key.0)).cloned());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::analysis::batch::EmbeddingBatch;
    use crate::analysis::decode::json;
    use crate::analysis::parameters::Parameters;
    use crate::analysis::verdict::Alarm;
    use crate::analyze;
    use crate::pipeline::ThresholdOverrides;
    use kernels::cpu::Cpu;

    fn alerts(severities: &[(&str, Level)]) -> BTreeMap<Key, Alert> {
        let (tensors, parameters) = json::decode(br#"{"z": [[1, 2], [3, 5]]}"#, Parameters::default()).unwrap();
        let batch = EmbeddingBatch::new(tensors, parameters).unwrap();
        let report = Arc::new(
            analyze::report(Arc::new(Cpu::new(1).unwrap()), batch, "z", &ThresholdOverrides::default()).unwrap(),
        );
        let alert = |(run, severity): &(&str, Level)| Alert {
            run: (*run).to_string(),
            layer: "l".to_string(),
            alarm: Alarm::CompleteCollapse,
            severity: *severity,
            method: None,
            since_window: 3,
            report: Arc::clone(&report),
            starts_at: None,
            ends_at: None,
        };
        severities.iter().map(alert).map(|alert| (alert.key(), alert)).collect()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn due(ledger: &AlertLedger) -> Vec<String> {
        ledger.due_runs().into_iter().collect()
    }

    #[test]
    fn what_is_critical_is_due_at_once_and_a_warning_once_it_has_held() {
        let mut ledger = AlertLedger::default();
        let both = [("bad", Level::Critical), ("odd", Level::Warning)];
        ledger.observe(alerts(&both), at(0));
        assert_eq!((due(&ledger), ledger.waits()), (vec!["bad".to_string()], true));
        ledger.observe(alerts(&both[..1]), at(299));
        ledger.observe(alerts(&both), at(300));
        assert_eq!(due(&ledger), ["bad"], "it had stopped firing in between");
        ledger.observe(alerts(&both), at(600));
        assert_eq!((due(&ledger), ledger.waits()), (vec!["bad".to_string(), "odd".to_string()], false));
        ledger.delivered(Some("bad"));
        assert_eq!(due(&ledger), ["odd"]);
        // A higher severity is another alert, and ends the first.
        ledger.delivered(None);
        ledger.observe(alerts(&[("bad", Level::Critical), ("odd", Level::Critical)]), at(700));
        let of_odd: Vec<_> = ledger.of_run("odd").iter().map(|alert| (alert.severity, alert.ends_at)).collect();
        assert_eq!(of_odd, [(Level::Critical, None), (Level::Warning, Some(at(700)))]);
    }

    #[test]
    fn an_end_is_kept_until_it_is_told_and_no_more_than_there_is_room_for() {
        let mut ledger = AlertLedger::default();
        ledger.observe(alerts(&[("r", Level::Critical)]), at(0));
        ledger.observe(BTreeMap::new(), at(5));
        let ended = &ledger.of_run("r")[0];
        assert_eq!((ended.starts_at, ended.ends_at), (Some(at(0)), Some(at(5))), "never sent, and not forgotten");
        ledger.delivered(Some("r"));
        assert!(!ledger.is_due());
        let names: Vec<String> = (0..=MOST_ENDED).map(|k| format!("r{k}")).collect();
        let many: Vec<(&str, Level)> = names.iter().map(|name| (name.as_str(), Level::Critical)).collect();
        assert_eq!(ledger.observe(alerts(&many), at(6)), 0);
        assert_eq!(ledger.observe(BTreeMap::new(), at(7)), 1);
        assert_eq!(ledger.all().len(), MOST_ENDED);
    }
}
