//! One panel: its queries, how it is drawn, and how to read it.
//!
//! Must not: know what is measured.

use serde_json::{Value, json};

use fullrank::analysis::verdict::VerdictState;
use kernels::word::Word;
use strum::VariantArray;

/// The data source chosen by the viewer.
pub(super) const DATASOURCE: &str = "${datasource}";

/// Label matchers with the values chosen by the viewer. Each value is escaped as a regular expression and put in
/// backticks, where PromQL keeps backslashes unchanged: in double quotes the `\.` of an escaped dot is an error, and a
/// quote in a label would end the string.
const SERVICE: &str = "job=~`${job:regex}`, instance=~`${instance:regex}`";
const RUN: &str = "job=~`${job:regex}`, instance=~`${instance:regex}`, run=~`${run:regex}`";
const LAYER: &str = "job=~`${job:regex}`, instance=~`${instance:regex}`, run=~`${run:regex}`, layer=~`${layer:regex}`";

/// Columns in a full row.
const WIDTH: u32 = 24;

/// Replaces `{S}`, `{R}` and `{L}`, also with more matchers after a comma, by those of a service, a run and a layer.
pub(super) fn selected(expression: &str) -> String {
    [("{S", SERVICE), ("{R", RUN), ("{L", LAYER)].iter().fold(expression.to_string(), |text, (short, matchers)| {
        [(",", ", "), ("}", "}")]
            .iter()
            .fold(text, |text, (end, then)| text.replace(&format!("{short}{end}"), &format!("{{{matchers}{then}")))
    })
}

pub(super) struct Panel {
    kind: &'static str,
    title: String,
    description: String,
    width: u32,
    height: u32,
    options: Value,
    defaults: Value,
    overrides: Vec<Value>,
    targets: Vec<Value>,
    transformations: Vec<Value>,
}

/// Panels under one heading.
pub(super) struct Row {
    pub(super) title: String,
    /// Closed until clicked; its queries do not run before.
    pub(super) collapsed: bool,
    /// From left to right, wrapped.
    pub(super) panels: Vec<Panel>,
}

impl Panel {
    fn new(kind: &'static str, title: impl Into<String>, unit: &str, options: Value, custom: Value) -> Self {
        // Without a step of our own, Grafana paints everything above 80 red.
        let thresholds = json!({"mode": "absolute", "steps": [{"value": null, "color": "text"}]});
        Self {
            kind,
            title: title.into(),
            description: String::new(),
            width: 8,
            height: 8,
            options,
            defaults: json!({"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom, "thresholds": thresholds}),
            overrides: Vec::new(),
            targets: Vec::new(),
            transformations: Vec::new(),
        }
    }

    /// Values over time.
    pub(super) fn lines(title: impl Into<String>, unit: &str) -> Self {
        let options = json!({
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "none"},
        });
        let custom =
            json!({"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": false});
        Self::new("timeseries", title, unit, options, custom)
    }

    /// A state over time.
    pub(super) fn timeline(title: impl Into<String>) -> Self {
        let options = json!({
            "mergeValues": true, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        });
        Self::new("state-timeline", title, "none", options, json!({"lineWidth": 0, "fillOpacity": 75}))
    }

    /// The newest value, large.
    pub(super) fn stat(title: impl Into<String>, unit: &str) -> Self {
        let options = json!({
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}, "orientation": "auto",
            "textMode": "value_and_name", "colorMode": "value", "graphMode": "none", "justifyMode": "auto",
        });
        let mut panel = Self::new("stat", title, unit, options, json!({}));
        panel.height = 4;
        panel
    }

    /// The newest values of several queries, one row per set of labels, the largest of column `sort` first.
    pub(super) fn table(title: impl Into<String>, sort: &str) -> Self {
        let options = json!({"showHeader": true, "cellHeight": "sm", "sortBy": [{"displayName": sort, "desc": true}]});
        let mut panel = Self::new("table", title, "none", options, json!({"align": "auto", "filterable": true}));
        panel.width = WIDTH;
        panel.height = 10;
        panel.transformations = vec![json!({"id": "merge", "options": {}})];
        panel
    }

    /// How to read the panel: what it shows, and what healthy and troubled runs look like.
    pub(super) fn reads(mut self, what: &str, healthy: &str, trouble: &str) -> Self {
        self.description = format!("{what}\n\n**Healthy:** {healthy}\n\n**Trouble:** {trouble}");
        self
    }

    /// Adds a query with the name of its series.
    pub(super) fn query(mut self, expression: &str, legend: &str) -> Self {
        let id = self.next_id();
        let instant = matches!(self.kind, "table" | "stat");
        let mut target = json!({
            "refId": id, "expr": selected(expression), "datasource": source(),
            "editorMode": "code", "instant": instant, "range": !instant,
        });
        match self.kind {
            "table" => target["format"] = json!("table"),
            _ => target["legendFormat"] = json!(legend),
        }
        self.targets.push(target);
        self
    }

    /// Adds a dashed series to compare with.
    pub(super) fn compare(mut self, expression: &str, legend: &str) -> Self {
        let id = self.next_id();
        self.overrides.push(json!({
            "matcher": {"id": "byFrameRefID", "options": id},
            "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 6]}}],
        }));
        self.query(expression, legend)
    }

    /// Adds a column of a table: query, heading and unit. Rows are joined by their labels, so the series must not have
    /// names, which would differ from column to column.
    pub(super) fn column(mut self, expression: &str, heading: &str, unit: &str) -> Self {
        let field = format!("Value #{}", self.next_id());
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": field},
            "properties": [{"id": "displayName", "value": heading}, {"id": "unit", "value": unit}],
        }));
        self.query(expression, "")
    }

    /// Shows words and colours instead of numbers, in a table's last column or in the whole panel.
    pub(super) fn words(mut self, mappings: Value) -> Self {
        match self
            .overrides
            .last_mut()
            .filter(|_| self.kind == "table")
            .and_then(|last| last["properties"].as_array_mut())
        {
            Some(properties) => {
                properties.push(json!({"id": "mappings", "value": mappings}));
                properties.push(json!({"id": "custom.cellOptions", "value": {"type": "color-background"}}));
            }
            None => self.defaults["mappings"] = mappings,
        }
        self
    }

    /// Hides columns.
    pub(super) fn hiding(mut self, columns: &[&str]) -> Self {
        let hidden: serde_json::Map<String, Value> =
            columns.iter().map(|name| ((*name).to_string(), json!(true))).collect();
        self.transformations.push(json!({"id": "organize", "options": {"excludeByName": hidden}}));
        self
    }

    /// Links of a table's column: (title, address).
    pub(super) fn links(mut self, column: &str, links: &[(&str, &str)]) -> Self {
        let links: Vec<Value> = links.iter().map(|(title, url)| json!({"title": title, "url": url})).collect();
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": column},
            "properties": [{"id": "links", "value": links}],
        }));
        self
    }

    /// A logarithmic axis.
    pub(super) fn log(mut self) -> Self {
        self.defaults["custom"]["scaleDistribution"] = json!({"type": "log", "log": 10});
        self
    }

    /// The axis covers at least this range.
    pub(super) fn spanning(mut self, least: f64, greatest: f64) -> Self {
        self.defaults["custom"]["axisSoftMin"] = json!(least);
        self.defaults["custom"]["axisSoftMax"] = json!(greatest);
        self
    }

    /// The width, of 24 columns.
    pub(super) fn wide(mut self, columns: u32) -> Self {
        self.width = columns;
        self
    }

    /// The height.
    pub(super) fn high(mut self, height: u32) -> Self {
        self.height = height;
        self
    }

    /// Its queries.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter_map(|target| target["expr"].as_str())
    }

    fn next_id(&self) -> String {
        char::from(b'A' + self.targets.len() as u8).to_string()
    }

    fn json(self, id: u32, x: u32, y: u32) -> Value {
        let mut panel = json!({
            "id": id, "type": self.kind, "title": self.title, "description": self.description,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": source(), "options": self.options, "targets": self.targets,
            "fieldConfig": {"defaults": self.defaults, "overrides": self.overrides},
        });
        if !self.transformations.is_empty() {
            panel["transformations"] = json!(self.transformations);
        }
        panel
    }
}

/// Every row with its panels, numbered and placed.
pub(super) fn placed(rows: Vec<Row>) -> Vec<Value> {
    let (mut all, mut id, mut y) = (Vec::new(), 0, 0);
    for row in rows {
        id += 1;
        let mut heading = json!({
            "id": id, "type": "row", "title": row.title, "collapsed": row.collapsed, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        });
        y += 1;
        let (mut x, mut tallest, mut panels) = (0, 0, Vec::new());
        for panel in row.panels {
            if x + panel.width > WIDTH {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            id += 1;
            tallest = tallest.max(panel.height);
            let width = panel.width;
            panels.push(panel.json(id, x, y));
            x += width;
        }
        if row.collapsed {
            heading["panels"] = json!(panels);
            all.push(heading);
        } else {
            all.push(heading);
            all.extend(panels);
            y += tallest;
        }
    }
    all
}

/// The published state as a number, 0 the best: what timelines draw and tables sort by.
pub(super) fn state_number() -> String {
    let each = VerdictState::VARIANTS.iter().enumerate();
    let parts: Vec<String> =
        each.map(|(number, state)| format!("fullrank_verdict{{L,state=\"{}\"}} * {number}", state.word())).collect();
    format!("sum without (state) ({})", parts.join(" or "))
}

/// The words of [`state_number`].
pub(super) fn state_words() -> Value {
    let colours = ["blue", "text", "green", "orange", "red"];
    words(VerdictState::VARIANTS.iter().map(|state| state.word()).zip(colours))
}

/// A word and a colour for 0, 1, 2 and so on.
pub(super) fn words<'a>(named: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let mut options = serde_json::Map::new();
    for (number, (text, color)) in named.enumerate() {
        options.insert(number.to_string(), json!({"text": text, "color": color, "index": number}));
    }
    json!([{"type": "value", "options": options}])
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": DATASOURCE})
}
