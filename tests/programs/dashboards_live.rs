//! Every query of the dashboards, as Grafana would send it, to a Prometheus that scraped the service: recordings of real
//! trainings, and pushes that bring every diagnostic. What Grafana itself does with the answers is not tested.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::make as dashboards;
use jiff::Timestamp;
use serde_json::Value;

use crate::dashboard_queries::{Asked, asked, variables};
use crate::files::read;
use crate::harness::Server;
use crate::program::{PATIENCE, Program, free_address};

/// Queries that have no series here: (file, panel, part of the query, why).
const EMPTY: [(&str, &str, &str, &str); 1] =
    [("service.json", "Alerts", "ALERTS", "no alert of the service fires while it is well")];

/// A run that no fullrank would have, from elsewhere: every character that ends a string or means something in PromQL or in
/// a regular expression, but for the backtick.
const HOSTILE: &str = "a\"b} or up{job=~\".*'\\d+(|[$^?*";

/// What Grafana makes of the values that a viewer chose: `${name:regex}` escapes each, and several become alternatives.
/// "All" is not escaped.
fn sent(expression: &str, chosen: &[(&str, &[&str])]) -> String {
    let escaped = |value: &str| -> String {
        value.chars().flat_map(|c| ["", "\\"][usize::from("\\^$*+?.()|[]{}/".contains(c))].chars().chain([c])).collect()
    };
    let mut text = expression.replace("$__rate_interval", "1m");
    for name in ["job", "instance", "run", "layer"] {
        let values = chosen.iter().find(|(of, _)| *of == name).map(|(_, values)| *values);
        let value = match values {
            None => ".+".to_string(),
            Some([one]) => escaped(one),
            Some(several) => format!("({})", several.iter().map(|one| escaped(one)).collect::<Vec<_>>().join("|")),
        };
        text = text.replace(&format!("${{{name}:regex}}"), &value);
    }
    text
}

/// An exporter from elsewhere; each scrape is told.
fn elsewhere() -> (String, Receiver<()>) {
    let quoted = HOSTILE.replace('\\', "\\\\").replace('"', "\\\"");
    let runs = [&quoted, "a.c", "abc", "a"];
    let series =
        |name: &str| -> String { runs.iter().map(|run| format!("{name}{{run=\"{run}\",layer=\"l\"}} 1\n")).collect() };
    let body = series("fullrank_scaled_std") + &series("fullrank_verdict_cause");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (send, scraped) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
            // Prometheus may be gone, and the test over.
            let _ = stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
            if send.send(()).is_err() {
                return;
            }
        }
    });
    (address, scraped)
}

struct Watched {
    server: Server,
    prometheus: String,
    program: Program,
    scraped: Receiver<()>,
    _folder: tempfile::TempDir,
}

impl Watched {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&[]);
        let (other, scraped) = elsewhere();
        let job = format!("  - job_name: elsewhere\n    static_configs:\n      - targets: [{other}]\n\nalerting:\n");
        // Nobody listens at the Alertmanager's address, and nobody need: Prometheus knows what fires.
        let more = [("\nalerting:\n", format!("\n{job}"))];
        let (program, prometheus) = Program::prometheus(&server, &free_address(), &more, folder.path());
        Self { server, prometheus, program, scraped, _folder: folder }
    }

    /// Asks until there is an answer, once a scrape.
    fn until<T>(&self, ask: impl Fn() -> Result<T, String>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wrong = match ask() {
                Ok(answer) => return answer,
                Err(wrong) => wrong,
            };
            assert!(Instant::now() < deadline, "{wrong}\n{}", self.program.said());
            // None comes while Prometheus starts; the deadline is the same.
            let _ = self.scraped.recv_timeout(PATIENCE);
        }
    }

    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let request = self.server.client.get(format!("http://{}/api/v1/{path}", self.prometheus)).query(parameters);
        let answer: Value =
            request.send().and_then(reqwest::blocking::Response::json).map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer.to_string()) }
    }

    /// The series of a query.
    fn series(&self, expression: &str, instant: bool) -> Result<Vec<Value>, String> {
        let now = Timestamp::now().as_second();
        let (start, end) = ((now - 30).to_string(), now.to_string());
        let data = if instant {
            self.api("query", &[("query", expression)])
        } else {
            self.api("query_range", &[("query", expression), ("start", &start), ("end", &end), ("step", "1")])
        };
        Ok(data?["result"].as_array().cloned().unwrap_or_default())
    }
}

/// Whether some value of some series is a number.
fn has_number(series: &[Value]) -> bool {
    let numbers = |one: &Value| {
        let pairs = one["values"].as_array().into_iter().flatten().chain([&one["value"]]);
        pairs.filter_map(|pair| pair[1].as_str()?.parse::<f64>().ok()).any(f64::is_finite)
    };
    series.iter().any(numbers)
}

fn push_everything(server: &Server) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/recordings/simsiam");
    let files = ["healthy", "no-predictor", "no-stop-gradient"].map(|name| format!("{folder}-{name}.safetensors"));
    let url = server.url("");
    let mut replay = Command::new(env!("CARGO_BIN_EXE_fullrank"));
    let said = replay.arg("replay").args(files).args(["--url", &url]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    // Between them they have every diagnostic: the test of their values (method_values) asks for that.
    let cases: Value = serde_json::from_str(&read("tests/golden/methods.json")).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let file = format!("{}/tests/golden/{}", env!("CARGO_MANIFEST_DIR"), case["file"].as_str().unwrap());
        server.report(&format!("{name}/l?window=0&last=true"), std::fs::read(file).unwrap());
    }
}

#[test]
fn every_query_of_the_dashboards_is_answered() {
    let watched = Watched::start();
    // Before the first push, so that rates see the counters rise.
    watched.until(|| {
        let up = watched.series("up{job=\"fullrank\"} == 1", true)?;
        if up.is_empty() { Err("Prometheus has not scraped".to_string()) } else { Ok(()) }
    });
    push_everything(&watched.server);
    let (mut empty, mut full): (Vec<Asked>, Vec<Asked>) = (Vec::new(), Vec::new());
    for asked in asked() {
        let is = |(file, title, part, _): &&(&str, &str, &str, &str)| {
            asked.file == *file && asked.title == *title && asked.expression.contains(part)
        };
        if EMPTY.iter().any(|one| is(&one)) { &mut empty } else { &mut full }.push(asked);
    }
    assert_eq!(empty.len(), EMPTY.len());
    watched.until(|| {
        let problem = |asked: &Asked| {
            let query = sent(&asked.expression, &[("job", &["fullrank"])]);
            let place = format!("{}, {}: {query}", asked.file, asked.title);
            match watched.series(&query, asked.instant) {
                Err(error) => panic!("{place}: {error}"),
                Ok(series) if !has_number(&series) => Some(format!("{place}: no data\n")),
                Ok(_) => None,
            }
        };
        let wrong: String = full.iter().filter_map(problem).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    });
    for asked in empty {
        let series = watched.series(&sent(&asked.expression, &[]), asked.instant).unwrap();
        assert!(series.is_empty(), "{}, {} is listed as empty and is not: {series:?}", asked.file, asked.title);
    }
    columns_join(&watched);
    what_is_chosen_is_what_is_shown(&watched);
    the_worst_is_first(&watched);
}

/// Grafana joins the columns of a table into lines by the labels that all of them have; any other must be in one column only,
/// or a line falls apart.
fn columns_join(watched: &Watched) {
    let mut tables: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
    for asked in asked().into_iter().filter(|asked| asked.column) {
        let series = watched.series(&sent(&asked.expression, &[("job", &["fullrank"])]), true).unwrap();
        let labels: BTreeSet<String> =
            series.iter().flat_map(|one| one["metric"].as_object().unwrap().keys().cloned()).collect();
        tables.entry(asked.file.to_string() + &asked.title).or_default().push(labels);
    }
    assert_eq!(tables.len(), 3);
    for (table, columns) in tables {
        for label in columns.iter().flatten() {
            let having = columns.iter().filter(|labels| labels.contains(label)).count();
            assert!(having == 1 || having == columns.len(), "{table}: {having} of {} have {label}", columns.len());
        }
    }
}

/// Names with a meaning in PromQL or in regular expressions are names and nothing else.
fn what_is_chosen_is_what_is_shown(watched: &Watched) {
    for run in [HOSTILE, "a.c", "a"] {
        for asked in asked() {
            let query = sent(&asked.expression, &[("run", &[run]), ("layer", &["l"])]);
            let series = watched.series(&query, asked.instant).unwrap_or_else(|error| panic!("{query}: {error}"));
            let other = series.iter().find(|one| one["metric"]["run"].as_str().is_some_and(|found| found != run));
            assert!(asked.file == "service.json" || other.is_none(), "{query}: {other:?}");
        }
        let shown = asked().into_iter().find(|asked| asked.title == "scaled_std").unwrap();
        let found = |runs: &[&str]| watched.series(&sent(&shown.expression, &[("run", runs)]), false).unwrap().len();
        assert_eq!((found(&[run]), found(&[run, "abc"]), found(&["nobody"])), (1, 2, 0), "{run}");
    }
    // Why the values stand in backticks: PromQL does not know the escape.
    assert!(watched.series("fullrank_scaled_std{run=~\"a\\.c\"}", true).is_err());
    // The values that a viewer is offered.
    for (_, dashboard) in dashboards::all() {
        for (name, query, _) in variables(&dashboard) {
            let inside = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            assert_eq!(label, name);
            let values = watched.api(&format!("label/{label}/values"), &[("match[]", &sent(selector, &[]))]).unwrap();
            assert!(!values.as_array().unwrap().is_empty(), "{query}");
        }
    }
}

/// The table's first column sorts as the verdicts are bad.
fn the_worst_is_first(watched: &Watched) {
    let verdicts = asked().into_iter().find(|asked| asked.title == "Layers, worst first").unwrap();
    let number = |run: &str| {
        let series = watched.series(&sent(&verdicts.expression, &[("run", &[run])]), true).unwrap();
        assert_eq!(series.len(), 1, "{series:?}");
        series[0]["value"][1].as_str().unwrap().parse::<f64>().unwrap()
    };
    assert!(number("simsiam-no-predictor") > number("simsiam-healthy"));
    assert_eq!(number("simsiam-no-predictor"), number("simsiam-no-stop-gradient"));
}
