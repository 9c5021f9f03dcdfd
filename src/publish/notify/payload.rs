//! Alerts as JSON: Alertmanager's webhook payload, version 4, and the body of its own API, v2.

use kernels::word::Word;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::alert::Alert;
use crate::analysis::parameters::Method;

/// A group of all alerts of one run, as Alertmanager posts it, with the evidence of each.
pub(super) fn webhook(run: &str, alerts: &[&Alert], external_url: &str) -> Value {
    let firing = alerts.iter().any(|alert| alert.ends_at.is_none());
    let all: Vec<Value> = alerts.iter().map(|alert| alert_of_webhook(alert, external_url)).collect();
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{run=\"{run}\"}}"),
        "truncatedAlerts": 0,
        "status": if firing { "firing" } else { "resolved" },
        "receiver": "fullrank",
        "groupLabels": {"run": run},
        "commonLabels": common(&all, "labels"),
        "commonAnnotations": common(&all, "annotations"),
        "externalURL": external_url,
        "alerts": all,
    })
}

/// The list that Alertmanager accepts; a firing alert ends at `until` unless it is sent again.
pub(super) fn alertmanager(alerts: &[&Alert], until: jiff::Timestamp, external_url: &str) -> Value {
    let one = |alert: &&Alert| {
        let mut annotations = annotations(alert, external_url);
        annotations["evidence"] = Value::from(alert.evidence().to_string());
        json!({
            "labels": labels(alert),
            "annotations": annotations,
            "startsAt": time(alert.starts_at),
            "endsAt": time(alert.ends_at.or(Some(until))),
            "generatorURL": page(alert, external_url),
        })
    };
    alerts.iter().map(one).collect()
}

fn alert_of_webhook(alert: &Alert, external_url: &str) -> Value {
    let labels = labels(alert);
    json!({
        "status": if alert.ends_at.is_none() { "firing" } else { "resolved" },
        "fingerprint": format!("{:016x}", xxh3_64(labels.to_string().as_bytes())),
        "labels": labels,
        "annotations": annotations(alert, external_url),
        "startsAt": time(alert.starts_at),
        // Go's zero time: the alert has not ended.
        "endsAt": alert.ends_at.map_or("0001-01-01T00:00:00Z".into(), |at| time(Some(at))),
        "generatorURL": page(alert, external_url),
        "evidence": alert.evidence(),
    })
}

fn labels(alert: &Alert) -> Value {
    json!({
        "alertname": alert.name(),
        "run": alert.run,
        "layer": alert.layer,
        "severity": alert.severity.word(),
    })
}

fn annotations(alert: &Alert, external_url: &str) -> Value {
    json!({
        "summary": alert.summary(),
        "description": alert.description(),
        "method": alert.method.map_or("", Method::word),
        "dashboard_url": page(alert, external_url),
    })
}

fn page(alert: &Alert, external_url: &str) -> String {
    format!("{}/#run={}", external_url.trim_end_matches('/'), alert.run)
}

fn time(at: Option<jiff::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::from(at.to_string()))
}

/// The entries that all alerts share in `part`.
fn common(alerts: &[Value], part: &str) -> Map<String, Value> {
    let first = alerts.first().and_then(|alert| alert[part].as_object()).cloned().unwrap_or_default();
    first.into_iter().filter(|(name, value)| alerts.iter().all(|alert| alert[part][name.as_str()] == *value)).collect()
}
