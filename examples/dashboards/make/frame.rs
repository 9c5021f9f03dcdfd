//! Everything around the panels of a dashboard: variables, alerts as annotations, links.
//!
//! Must not: know what is measured.

use serde_json::{Value, json};

use super::panel::{DATASOURCE, Row, placed, selected};

/// A dashboard without its panels.
pub(super) struct Frame {
    /// Fixed, because alerts and links use it.
    pub(super) uid: &'static str,
    /// The title in the list of dashboards.
    pub(super) title: &'static str,
    /// What the dashboard is for.
    pub(super) description: &'static str,
    /// Whether it has the variables `run` and `layer`.
    pub(super) of_runs: bool,
    /// The query of the alerts to draw.
    pub(super) alerts: &'static str,
    /// The link to the service's own page.
    pub(super) page: &'static str,
}

/// (uid, path, title) of all dashboards.
const DASHBOARDS: [(&str, &str, &str); 3] = [
    ("fullrank-fleet", "/d/fullrank-fleet/fleet", "All runs"),
    ("fullrank-run", "/d/fullrank-run/run", "One run"),
    ("fullrank-service", "/d/fullrank-service/service", "The service"),
];

impl Frame {
    /// The whole dashboard.
    pub(super) fn around(&self, rows: Vec<Row>) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["fullrank"],
            "schemaVersion": 41,
            "editable": false,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "annotations": {"list": [self.annotation()]},
            "links": self.links(),
            "templating": {"list": self.variables()},
            "panels": placed(rows),
        })
    }

    /// Alerts as annotations: Prometheus has a series for each alert while it fires.
    fn annotation(&self) -> Value {
        json!({
            "name": "Alerts", "enable": true, "iconColor": "red",
            "datasource": {"type": "prometheus", "uid": DATASOURCE},
            "expr": selected(self.alerts),
            "titleFormat": "{{alertname}}", "textFormat": "{{severity}} {{run}} {{layer}}", "tagKeys": "severity",
        })
    }

    fn links(&self) -> Vec<Value> {
        let others =
            DASHBOARDS.iter().filter(|(uid, ..)| *uid != self.uid).map(|(_, url, title)| (*url, *title, "dashboard"));
        let all = others.chain([(self.page, "fullrank's page", "external link")]);
        let link = |(url, title, icon): (&str, &str, &str)| {
            let within = icon == "dashboard";
            json!({
                "type": "link", "title": title, "url": url, "icon": icon, "tooltip": "", "tags": [],
                "asDropdown": false, "targetBlank": !within, "includeVars": within, "keepTime": within,
            })
        };
        all.map(link).collect()
    }

    fn variables(&self) -> Vec<Value> {
        // No name of a run or layer has other characters, so that a label from elsewhere that does is not offered; and
        // none with a backtick, which would end the string that it stands in.
        let mut all = vec![
            json!({
                "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
                "hide": 0, "multi": false, "includeAll": false, "refresh": 1, "regex": "",
            }),
            variable("job", "Job", "label_values(fullrank_build_info, job)", "/^[^`]+$/"),
            variable(
                "instance",
                "Instance",
                "label_values(fullrank_build_info{job=~`${job:regex}`}, instance)",
                "/^[^`]+$/",
            ),
        ];
        if self.of_runs {
            all.push(variable("run", "Run", "label_values(fullrank_run_info{S}, run)", "/^[A-Za-z0-9._-]+$/"));
            all.push(variable(
                "layer",
                "Layer",
                "label_values(fullrank_report_rows{R}, layer)",
                "/^[A-Za-z0-9._:-]+$/",
            ));
        }
        all.push(json!({
            "type": "textbox", "name": "page", "label": "fullrank's page", "query": "http://127.0.0.1:8417", "hide": 0,
            "description": "Address of the service in a browser, for links to its own page",
            "current": {"text": "http://127.0.0.1:8417", "value": "http://127.0.0.1:8417"},
        }));
        all
    }
}

/// A variable over a label's values, with multiple choice; initially all.
fn variable(name: &str, label: &str, query: &str, only: &str) -> Value {
    let query = selected(query);
    json!({
        "type": "query", "name": name, "label": label, "hide": 0,
        "query": {"qryType": 1, "query": query, "refId": "variable"},
        "datasource": {"type": "prometheus", "uid": DATASOURCE},
        "multi": true, "includeAll": true, "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]},
        // Refreshed with the time range, because runs leave /metrics.
        "refresh": 2, "sort": 1, "regex": only,
    })
}
