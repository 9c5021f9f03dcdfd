//! What survives a stop, and what a kill leaves: history, verdicts, claims, numbers.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fullrank::app::{self, Listeners};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Server, config, f32_body, gaussian, gaussian_body, problem, steady};

/// A service on this data directory.
fn start(directory: &Path) -> Server {
    Server::start(&["--data-dir", directory.to_str().unwrap()])
}

/// Why a service on this data directory does not start.
fn refusal(directory: &Path) -> String {
    let config = config(&["--data-dir", directory.to_str().unwrap()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Should it start after all, it stops at once.
        let (_, stopped) = tokio::sync::oneshot::channel();
        app::run(config, Listeners { main, metrics: None }, stopped).await.unwrap_err().to_string()
    })
}

/// Healthy at first, in fewer and fewer dimensions later: baseline, hysteresis and latch all have their say.
fn window_body(window: u64) -> Vec<u8> {
    let mut values = gaussian(64, 12, window);
    let shrink = if window < 7 { 1.0 } else { 0.02 };
    for row in values.chunks_mut(12) {
        row[2..].iter_mut().for_each(|x| *x *= shrink);
    }
    f32_body(&[("z1", 64, 12, &values), ("z2", 64, 12, &values), ("teacher1", 64, 12, &values)])
}

/// Pushes windows to the run, and says what was answered.
fn play(server: &Server, run: &str, windows: std::ops::Range<u64>) -> Vec<Value> {
    let query = |window| {
        format!("window={window}&seq={window}&session=5&step={}&loss=0.{window}&method=byol&last=1", 100 * window)
    };
    windows.map(|window| steady(&server.report(&format!("{run}/l?{}", query(window)), window_body(window)))).collect()
}

fn listed(server: &Server, layer: &str) -> Vec<Value> {
    let listed = server.json(&format!("/v1/runs/r/layers/{layer}/reports"));
    listed["reports"].as_array().unwrap().clone()
}

#[test]
fn a_restart_changes_nothing() {
    let unbroken = Server::start(&[]);
    let expected = play(&unbroken, "r", 0..14);
    let states: Vec<&str> = expected.iter().map(|r| r["verdict"]["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"healthy") && states.ends_with(&["collapsed"]), "{states:?}");
    let directory = tempfile::tempdir().unwrap();
    let mut got = Vec::new();
    for part in [0..2, 2..6, 6..9, 9..13, 13..14] {
        let server = start(directory.path());
        got.extend(play(&server, "r", part));
        server.stop();
    }
    for (window, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(got, expected, "window {window}");
    }
    let server = start(directory.path());
    for layer in ["l", "l:teacher"] {
        let steadied = |server: &Server| listed(server, layer).iter().map(steady).collect::<Vec<_>>();
        assert_eq!(steadied(&server), steadied(&unbroken), "{layer}");
        let spectrum = format!("/v1/runs/r/layers/{layer}/spectrum?window=3");
        assert_eq!(server.json(&spectrum), unbroken.json(&spectrum));
    }
    assert_eq!(server.json("/v1/runs/r/verdict"), unbroken.json("/v1/runs/r/verdict"));
    let gauges = |server: &Server| {
        let mut lines: Vec<String> =
            server.metrics().0.lines().filter(|l| l.contains("run=\"r\"")).map(str::to_string).collect();
        lines.retain(|line| !line.contains("last_push"));
        lines
    };
    assert_eq!(gauges(&server), gauges(&unbroken));
}

#[test]
fn the_latch_survives_and_its_end_too() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    play(&server, "r", 0..11);
    for window in 11..14 {
        server.report(&format!("?window={window}&last=1"), gaussian_body(64, 12, window));
    }
    let before = server.json("/v1/runs/r/verdict");
    assert_eq!((&before["state"], &before["latched"]), (&"collapsed".into(), &true.into()));
    server.stop();
    let server = start(directory.path());
    assert_eq!(server.json("/v1/runs/r/verdict"), before);
    let seen: Value = server.post("/v1/runs/r/acknowledge").send().unwrap().json().unwrap();
    server.stop();
    let server = start(directory.path());
    let after = server.json("/v1/runs/r/verdict");
    assert_eq!(after["latched"], seen["latched"]);
    assert_eq!(after["state"], seen["state"]);
}

#[test]
fn claims_and_closed_windows_survive() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let first = server.report("?window=0&session=1&seq=0&last=1", gaussian_body(16, 4, 1));
    server.report("arrivals/l", gaussian_body(16, 4, 1));
    server.report("arrivals/l", gaussian_body(16, 4, 2));
    server.post("/v1/runs/arrivals/finish").send().unwrap().error_for_status().unwrap();
    let runs = server.json("/v1/runs");
    server.stop();
    let server = start(directory.path());
    assert_eq!(server.json("/v1/runs"), runs);
    let mut again = server.report("?window=0&session=1&seq=0&last=1", gaussian_body(16, 4, 1));
    assert_eq!(again["duplicate"], true);
    again.as_object_mut().unwrap().remove("duplicate");
    assert_eq!(again, first);
    assert_eq!(problem(server.push("?window=0&session=1&seq=1", gaussian_body(16, 4, 2))).1, "window_closed");
    assert_eq!(problem(server.push("?window=1&session=1&seq=1", gaussian_body(16, 5, 2))).1, "dimension_mismatch");
    assert_eq!(server.report("?window=0&session=2&seq=0&last=1", gaussian_body(16, 4, 2))["revision"], 2);
    assert_eq!(server.report("arrivals/l", gaussian_body(16, 4, 3))["window"], 2);
    assert_eq!(server.json("/v1/runs/arrivals")["finished"], false);
    server.client.delete(server.url("/v1/runs/r")).send().unwrap().error_for_status().unwrap();
    server.stop();
    let server = start(directory.path());
    assert_eq!(server.json("/v1/runs")["runs"].as_array().unwrap().len(), 1);
    assert_eq!(server.report("?window=0&session=1&seq=0&last=1", gaussian_body(16, 4, 1))["revision"], 1);
}

#[test]
fn a_drain_publishes_what_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let mut rows = 0;
    for batch in 0..60 {
        let place = format!("?window={}&worker={}&workers=4&seq={batch}", batch / 20, batch % 3);
        server.push(&place, gaussian_body(20, 6, batch)).error_for_status().unwrap();
        rows += 20;
    }
    server.stop();
    let server = start(directory.path());
    let reports = listed(&server, "l");
    assert_eq!(reports.len(), 3);
    assert_eq!(reports.iter().map(|r| r["rows"].as_u64().unwrap()).sum::<u64>(), rows);
    for report in &reports {
        assert_eq!((&report["complete"], &report["closed"]), (&false.into(), &true.into()));
        assert!(report["notes"].to_string().contains("worker(s) 3"), "{}", report["notes"]);
    }
    assert_eq!(server.json("/v1/runs")["runs"][0]["interrupted_windows"], json!([]));
}

#[test]
fn without_a_directory_nothing_is_kept() {
    let server = Server::start(&[]);
    server.report("?window=0&last=1", gaussian_body(16, 4, 1));
    server.stop();
    assert_eq!(Server::start(&[]).json("/v1/runs")["runs"], json!([]));
}

#[test]
fn one_directory_one_service() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    // An answer means that it has its directory.
    server.json("/v1/runs");
    let complaint = refusal(directory.path());
    assert!(complaint.contains("in use by another fullrank"), "{complaint}");
    server.report("?window=0&last=1", gaussian_body(16, 4, 1));
    server.stop();
    start(directory.path());
}

#[test]
fn another_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).stop();
    let file = rusqlite::Connection::open(directory.path().join("fullrank.sqlite3")).unwrap();
    let version: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    file.pragma_update(None, "user_version", version + 1).unwrap();
    let complaint = refusal(directory.path());
    assert!(complaint.contains(&format!("schema version {}", version + 1)), "{complaint}");
    assert!(complaint.contains("--data-dir"), "{complaint}");
    let kept: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(kept, version + 1);
    std::fs::write(directory.path().join("fullrank.sqlite3"), "no database, but long enough to be taken for one")
        .unwrap();
    assert!(refusal(directory.path()).contains("history"));
}

#[test]
fn sqlite_reads_it_while_the_service_runs() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let report = server.report("?window=3&last=1", gaussian_body(16, 4, 1));
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = rusqlite::Connection::open_with_flags(directory.path().join("fullrank.sqlite3"), flags).unwrap();
    let row = "SELECT window, rows, dim, state, report, length(eigenvalues) FROM reports NATURAL JOIN spectra";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, String>(3)?,
            row.get::<_, String>(4)?,
            row.get::<_, i64>(5)?,
        ))
    };
    let (window, rows, dim, state, text, bytes) = file.query_row(row, [], read).unwrap();
    assert_eq!((window, rows, dim, bytes), (3, 16, 4, 32));
    assert_eq!(report["verdict"]["state"], state.as_str());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), report);
    server.report("?window=4&last=1", gaussian_body(16, 4, 2));
    assert_eq!(file.query_row("SELECT count(*) FROM reports", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

/// The program itself, to be killed.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fullrank"))
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "2", "--log-json", "--data-dir"])
            .arg(directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Nobody reads the log after that, which must not trouble the service.
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| {
            let line: Value = serde_json::from_str(&line).unwrap();
            line["fields"]["address"].as_str().map(str::to_string)
        });
        Self { child, url: format!("http://{}", address.unwrap()) }
    }

    /// A push that waits for its report, after which its window is marked as open.
    fn push(&self, place: &str, seed: u64) -> Value {
        let (names, query) = place.split_once('?').unwrap();
        let url = format!("{}/v1/runs/{}/batches?{query}&wait=1", self.url, names.replace('/', "/layers/"));
        let request = reqwest::blocking::Client::new().post(url).header("content-type", "application/x-safetensors");
        request.body(gaussian_body(16, 4, seed)).send().unwrap().error_for_status().unwrap().json().unwrap()
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_killed_service_says_what_it_lost() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::start(directory.path());
    assert_eq!(program.push("r/l?window=0&seq=0&last=1", 1)["closed"], true);
    assert_eq!(program.push("r/l?window=1&seq=1", 2)["closed"], false);
    assert_eq!(program.push("young/l?window=0&seq=0", 3)["closed"], false);
    program.kill();
    let server = start(directory.path());
    let runs = server.json("/v1/runs")["runs"].clone();
    assert_eq!(runs[0]["interrupted_windows"], json!([{"layer": "l", "window": 1}]));
    assert_eq!(runs[1]["interrupted_windows"], json!([{"layer": "l", "window": 0}]));
    assert_eq!((&runs[1]["run"], &runs[1]["finished"]), (&"young".into(), &false.into()));
    assert!(runs[1]["last_push_at"].as_str().unwrap() > "2000", "{}", runs[1]["last_push_at"]);
    assert_eq!(server.report("?window=0&seq=0&last=1", gaussian_body(16, 4, 1))["duplicate"], true);
    // Sent again, it is no duplicate: its rows were lost.
    let report = server.report("?window=1&seq=1&last=1", gaussian_body(16, 4, 2));
    assert_eq!((&report["closed"], &report["complete"], &report["rows"]), (&true.into(), &false.into(), &16.into()));
    assert_eq!(report["duplicate"], Value::Null);
    assert!(report["notes"].to_string().contains("are lost"), "{}", report["notes"]);
    assert_eq!(server.json("/v1/runs")["runs"][0]["interrupted_windows"], json!([]));
    let next = server.report("?window=2&seq=2&last=1", gaussian_body(16, 4, 3));
    assert_eq!(next["complete"], true);
    server.stop();
    let runs = start(directory.path()).json("/v1/runs")["runs"].clone();
    assert_eq!(runs[0]["interrupted_windows"], json!([]));
    assert_eq!(runs[1]["interrupted_windows"], json!([{"layer": "l", "window": 0}]));
}

/// `tests/fixtures/history-0.1.0.sqlite3` was written by version 0.1.0, which was then killed; the answers beside it are
/// what that version gave when it had started on the file again. Revisions, latches, undefined measures, several roles,
/// scores without rows and a window that was cut off are all in it.
#[test]
fn what_version_0_1_0_stored_is_read_as_it_was() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures.join("history-0.1.0.sqlite3"), directory.path().join("fullrank.sqlite3")).unwrap();
    // Its runs are old: nothing of them may run out.
    let flags = ["--data-dir", directory.path().to_str().unwrap(), "--idle-finish-s", "4000000000"];
    let server = Server::start(&[&flags[..], &["--run-ttl-s", "4000000000"]].concat());
    let answers = std::fs::read(fixtures.join("history-0.1.0.json")).unwrap();
    let answers: serde_json::Map<String, Value> = serde_json::from_slice(&answers).unwrap();
    assert_eq!(answers.len(), 32);
    for (path, expected) in &answers {
        assert_eq!(server.json(path), *expected, "{path}");
    }
    // The verdict's memory goes on where it was: a recovery takes its five windows.
    let body = || f32_body(&[("z", 64, 4, &gaussian(64, 4, 3))]);
    for window in 8..13 {
        let report =
            server.report(&format!("simsiam-1/projector?window={window}&session=3&seq={window}&last=1"), body());
        let state = if window < 12 { "collapsed" } else { "healthy" };
        assert_eq!(report["verdict"]["state"], state, "window {window}");
    }
    assert_eq!(server.json("/v1/runs/simsiam-1/verdict")["state"], "collapsed", "the latch holds");
    let again = server.push("simsiam-1/projector?window=4&session=3&seq=4", body()).json::<Value>().unwrap();
    assert_eq!(again["duplicate"], true, "its seqs are still claimed");
}
