//! When a window closes and what is counted in it: workers, numbers, duplicates, sessions, close, finish, delete.
//! What only time closes is in `clock`.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Server, gaussian_body, problem, steady};
use crate::odd_backend::Odd;

/// Window, rows and whether it was a duplicate, of a push that is taken.
fn taken(server: &Server, place: &str, seed: u64) -> (u64, u64, bool) {
    let response = server.push(place, gaussian_body(16, 4, seed));
    let status = response.status();
    let value: Value = response.json().unwrap();
    assert_eq!(status, 202, "{place}: {value}");
    (value["window"].as_u64().unwrap(), value["rows"].as_u64().unwrap(), value["duplicate"].as_bool().unwrap())
}

fn report(server: &Server, place: &str, seed: u64) -> Value {
    server.report(place, gaussian_body(16, 4, seed))
}

fn close(server: &Server, run: &str, window: u64) -> Vec<Value> {
    let answer = server.post(&format!("/v1/runs/{run}/windows/{window}/close")).send().unwrap();
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().unwrap()["reports"].as_array().unwrap().clone()
}

/// "window revision rows complete" of every stored report.
fn stored(server: &Server, run: &str) -> Vec<String> {
    let listed = server.json(&format!("/v1/runs/{run}/layers/l/reports"));
    let line = |r: &Value| format!("{} {} {} {}", r["window"], r["revision"], r["rows"], r["complete"]);
    listed["reports"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn a_window_closes_when_every_worker_is_done() {
    let server = Server::start(&[]);
    let so_far = report(&server, "?window=0&worker=0&workers=2&last=1", 1);
    assert_eq!((&so_far["closed"], &so_far["complete"], &so_far["rows"]), (&false.into(), &false.into(), &16.into()));
    assert_eq!(so_far["closed_at"], Value::Null);
    let closed = report(&server, "?window=0&worker=1&workers=2&last=1", 2);
    assert_eq!((&closed["closed"], &closed["complete"], &closed["rows"]), (&true.into(), &true.into(), &32.into()));
    assert!(closed["closed_at"].is_string());
    // A later window says it as well as `last`.
    taken(&server, "?window=1&worker=0&workers=2", 3);
    taken(&server, "?window=1&worker=1&workers=2", 4);
    taken(&server, "?window=2&worker=0&workers=2", 5);
    assert_eq!(server.json("/v1/runs/r")["layers"][0]["open_windows"].as_array().unwrap().len(), 2);
    taken(&server, "?window=2&worker=1&workers=2", 6);
    let open = json!([{"window": 2, "rows": 32}]);
    assert_eq!(server.json("/v1/runs/r")["layers"][0]["open_windows"], open);
    close(&server, "r", 1);
    assert_eq!(stored(&server, "r"), ["0 1 32 true", "1 1 32 true"]);
    assert_eq!(problem(server.push("?window=1&worker=1&workers=2", gaussian_body(16, 4, 7))).1, "window_closed");
}

#[test]
fn batches_without_a_window_are_numbered_by_step_or_arrival() {
    let server = Server::start(&[]);
    assert_eq!(taken(&server, "?", 1), (0, 16, false));
    assert_eq!(taken(&server, "?", 2), (1, 16, false));
    assert_eq!(taken(&server, "?step=100", 3), (100, 16, false));
    assert_eq!(taken(&server, "?", 4), (101, 16, false));
    assert_eq!(taken(&server, "?step=50", 5), (50, 16, false));
    assert_eq!(problem(server.push("?step=100", gaussian_body(16, 4, 6))).1, "window_closed");
    taken(&server, "?window=200", 7);
    assert_eq!(taken(&server, "?", 8), (201, 16, false), "which is later than the open one, and closes it");
    let closed = report(&server, "?", 9);
    assert_eq!((&closed["window"], &closed["closed"]), (&202.into(), &true.into()));
    assert_eq!(stored(&server, "r").len(), 8);
    taken(&server, "?window=9223372036854775807&last=1", 10);
    let (status, code, _) = problem(server.push("?", gaussian_body(16, 4, 11)));
    assert_eq!((status, code.as_str()), (400, "malformed"), "no number is left");
    assert_eq!(close(&server, "r", i64::MAX as u64)[0]["window"], i64::MAX as u64);
}

#[test]
fn a_report_so_far_moves_nothing() {
    let server = Server::start(&[]);
    // Two rows in one line: critical, and counted if it were to count.
    let flat = || {
        let values: Vec<f32> = (0..64).flat_map(|i| [i as f32 - 20.0, 2.0 * i as f32, 1.0, 3.0]).collect();
        crate::harness::f32_body(&[("z", 64, 4, &values)])
    };
    for window in 0..7 {
        for batch in 0..2 {
            let last = batch == 1;
            if !last {
                for run in ["asked", "not"] {
                    server
                        .push(&format!("{run}/l?window={window}&seq={}", 2 * window), flat())
                        .error_for_status()
                        .unwrap();
                }
                for _ in 0..3 {
                    let so_far = server.report(&format!("asked/l?window={window}&seq={}", 2 * window), flat());
                    assert_eq!(
                        (&so_far["closed"], &so_far["rows"], &so_far["duplicate"]),
                        (&false.into(), &64.into(), &true.into())
                    );
                }
                continue;
            }
            let place = |run: &str| format!("{run}/l?window={window}&seq={}&last=1", 2 * window + 1);
            let (asked, not) = (server.report(&place("asked"), flat()), server.report(&place("not"), flat()));
            assert_eq!(steady(&asked), steady(&not), "window {window}");
        }
    }
    assert_eq!(stored(&server, "asked").len(), 7);
    assert_eq!(server.json("/v1/runs/asked/verdict")["state"], "collapsed");
}

#[test]
fn a_batch_sent_twice_counts_once() {
    let server = Server::start(&[]);
    assert_eq!(taken(&server, "?window=0&session=7&seq=0", 1), (0, 16, false));
    assert_eq!(taken(&server, "?window=0&session=7&seq=0", 1), (0, 16, true));
    assert_eq!(taken(&server, "?window=3&session=7&seq=0", 1), (0, 16, true), "in whatever window it says it is");
    assert_eq!(taken(&server, "?window=0&session=8&seq=0", 2), (0, 32, false), "another session");
    assert_eq!(taken(&server, "?window=0&session=7&seq=0&worker=1&workers=2", 3), (0, 48, false), "another worker");
    assert_eq!(taken(&server, "?window=0&session=7", 1), (0, 64, false), "no seq is never a duplicate");
    let waited = report(&server, "?window=0&session=7&seq=0", 1);
    assert_eq!((&waited["closed"], &waited["duplicate"]), (&false.into(), &true.into()));
    assert!(waited["rows"].as_u64().unwrap() >= 48, "what this worker sent is in it: {}", waited["rows"]);
    let elsewhere = report(&server, "?window=9&session=7&seq=0", 1);
    assert_eq!((&elsewhere["window"], &elsewhere["duplicate"]), (&0.into(), &true.into()));
    let first = report(&server, "other/l?window=0&seq=0&last=1", 1);
    assert_eq!(first["duplicate"], Value::Null);
    assert_eq!(taken(&server, "other/l?window=0&seq=0&last=1", 1), (0, 16, true), "before window_closed");
    let mut again = report(&server, "other/l?window=0&seq=0&last=1", 1);
    assert_eq!(again["duplicate"], true);
    again.as_object_mut().unwrap().remove("duplicate");
    assert_eq!(again, first, "the stored report");
    // What it was stored in is no longer known; that it counts once is.
    let response = server.push("other/l?window=5&seq=0&wait=1", gaussian_body(16, 4, 1));
    assert_eq!(response.status(), 202);
    assert_eq!(response.json::<Value>().unwrap()["duplicate"], true);
    assert_eq!(server.metrics().get("fullrank_batches_duplicate_total{door=\"http\"}"), Some(7.0));
    assert_eq!(server.metrics().get("fullrank_rows_total"), Some(80.0));
    assert_eq!(stored(&server, "other"), ["0 1 16 true"]);
}

/// 1,000 pushes of one body on 16 HTTP/2 connections at once.
async fn push_at_once(server: &Server, body: Bytes) -> Vec<Value> {
    let mut connections = Vec::new();
    for _ in 0..16 {
        let stream = TokioIo::new(tokio::net::TcpStream::connect(server.address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        connections.push(sender);
    }
    let push = |index: usize| {
        let mut sender = connections[index % 16].clone();
        let request = http::Request::post(server.url("/v1/runs/r/layers/l/batches?window=0&session=1&seq=5&last=1"))
            .header("content-type", "application/x-safetensors")
            .body(Full::new(body.clone()))
            .unwrap();
        tokio::spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(status, 202, "{value}");
            value
        })
    };
    let pushes: Vec<_> = (0..1000).map(push).collect();
    let mut answers = Vec::new();
    for push in pushes {
        answers.push(push.await.unwrap());
    }
    answers
}

#[test]
fn a_thousand_at_once_count_once() {
    let server = Server::start(&[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Large enough to be decoded on many threads.
    let answers = runtime.block_on(push_at_once(&server, gaussian_body(70, 300, 1).into()));
    assert_eq!(answers.iter().filter(|answer| answer["duplicate"] == false).count(), 1);
    assert!(answers.iter().all(|answer| answer["window"] == 0));
    close(&server, "r", 0);
    assert_eq!(stored(&server, "r"), ["0 1 70 true"]);
    assert_eq!(server.metrics().get("fullrank_rows_total"), Some(70.0));
}

#[test]
fn a_new_session_opens_a_revision() {
    let server = Server::start(&[]);
    let first = report(&server, "?window=0&session=1&seq=0&last=1", 1);
    report(&server, "?window=1&session=1&seq=1&last=1", 2);
    assert_eq!(problem(server.push("?window=0&session=1&seq=9", gaussian_body(16, 4, 3))).1, "window_closed");
    let second = report(&server, "?window=0&session=2&seq=0&last=1", 4);
    assert_eq!((&second["revision"], &second["rows"], &second["closed"]), (&2.into(), &16.into(), &true.into()));
    for session in [1, 2] {
        let old = server.push(&format!("?window=0&session={session}&seq=7"), gaussian_body(16, 4, 3));
        assert_eq!(problem(old).1, "window_closed", "session {session}");
    }
    assert_eq!(stored(&server, "r"), ["0 1 16 true", "0 2 16 true", "1 1 16 true"]);
    let listed = server.json("/v1/runs/r/layers/l/reports?to=0");
    assert_eq!(listed["reports"], json!([first, second]));
    assert_eq!(server.json("/v1/runs/r/layers/l/spectrum?window=0")["revision"], 2);
    let third = report(&server, "?window=0&session=3&last=1", 5);
    assert_eq!(third["revision"], 3);
}

#[test]
fn close_finish_acknowledge_delete() {
    let server = Server::start(&[]);
    for layer in ["a", "b"] {
        taken(&server, &format!("r/{layer}?window=4"), 1);
    }
    assert_eq!(server.json("/v1/runs/r")["layers"][1]["open_windows"], json!([{"window": 4, "rows": 16}]));
    let reports = close(&server, "r", 4);
    assert_eq!(reports.iter().map(|r| r["layer"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(reports.iter().all(|r| r["complete"] == true && r["closed"] == true));
    assert_eq!(close(&server, "r", 4), reports, "again");
    taken(&server, "r/a?window=5&workers=2", 2);
    let finish = |run: &str| server.post(&format!("/v1/runs/{run}/finish")).send().unwrap().json::<Value>().unwrap();
    let finished = finish("r");
    assert_eq!(finished["reports"].as_array().unwrap().len(), 1, "{finished}");
    assert_eq!((&finished["reports"][0]["window"], &finished["reports"][0]["complete"]), (&5.into(), &false.into()));
    assert_eq!(server.json("/v1/runs")["runs"][0]["finished"], true);
    assert_eq!(finish("r")["reports"], json!([]), "again");
    taken(&server, "r/a?window=6", 3);
    assert_eq!(server.json("/v1/runs")["runs"][0]["finished"], false, "a push reopens it");
    let seen = server.post("/v1/runs/r/acknowledge").send().unwrap().json::<Value>().unwrap();
    assert_eq!((&seen["run"], &seen["latched"]), (&"r".into(), &false.into()));
    assert_eq!(server.client.delete(server.url("/v1/runs/r")).send().unwrap().status(), 204);
    assert_eq!(server.json("/v1/runs")["runs"], json!([]));
    assert!(!server.metrics().0.contains("run=\"r\""));
    let anew = report(&server, "r/a?window=4&last=1", 4);
    assert_eq!((&anew["revision"], &anew["rows"]), (&1.into(), &16.into()), "as if it had never been");
}

#[test]
fn close_and_finish_wait_for_what_is_being_measured() {
    let server = Server::start(&[]);
    // At d = 128 the solver takes a moment: the window is closed, and its report is not there yet.
    for window in 0..8 {
        server.push(&format!("?window={window}&last=1"), gaussian_body(160, 128, window)).error_for_status().unwrap();
        assert_eq!(close(&server, "r", window).len(), 1, "window {window}");
        let run = format!("f{window}");
        server.push(&format!("{run}/l?window=0&last=1"), gaussian_body(160, 128, window)).error_for_status().unwrap();
        server.post(&format!("/v1/runs/{run}/finish")).send().unwrap().error_for_status().unwrap();
        assert_eq!(server.json(&format!("/v1/runs/{run}/verdict"))["window"], 0, "{run}");
    }
}

#[test]
fn a_deleted_run_stays_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--threads", "1", "--data-dir", directory.path().to_str().unwrap()];
    let gate = Arc::new(Mutex::new(()));
    let server = Server::with_backend(&flags, Odd::gated(Arc::clone(&gate)));
    let shut = gate.lock().unwrap();
    // The one thread is held up by the first, so that the others' rows are merged when their runs are gone.
    for place in ["kept/l?window=0", "open/l?window=0", "closed/l?window=0&last=1"] {
        taken(&server, place, 1);
    }
    for run in ["open", "closed"] {
        let deleted = server.client.delete(server.url(&format!("/v1/runs/{run}"))).send().unwrap();
        assert_eq!(deleted.status(), 204);
    }
    drop(shut);
    let runs = |server: &Server| {
        let listed = server.json("/v1/runs");
        listed["runs"].as_array().unwrap().iter().map(|run| run["run"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(runs(&server), ["\"kept\""]);
    server.stop();
    assert_eq!(runs(&Server::start(&flags)), ["\"kept\""]);
}

#[test]
fn three_workers_in_any_order_give_the_same_bits() {
    let server = Server::start(&[]);
    // (worker, its batch): a worker's own batches keep their order, as they would on one connection.
    let mut turns: Vec<u64> = (0..12).map(|turn| turn % 3).collect();
    let mut random = StdRng::seed_from_u64(1);
    let mut reports = Vec::new();
    for run in 0..12 {
        let mut next = [0u64; 3];
        for worker in &turns {
            let batch = next[*worker as usize];
            next[*worker as usize] += 1;
            let query = format!("window=0&worker={worker}&workers=3&seq={batch}&last={}", batch == 3);
            let body = gaussian_body(40, 24, 100 * worker + batch);
            server.push(&format!("run{run}/l?{query}"), body).error_for_status().unwrap();
        }
        let report = close(&server, &format!("run{run}"), 0).remove(0);
        assert_eq!((&report["rows"], &report["complete"]), (&480.into(), &true.into()));
        let path = format!("/v1/runs/run{run}/layers/l/spectrum");
        reports.push((steady(&report), server.json(&path)["eigenvalues"].clone()));
        turns.shuffle(&mut random);
        if random.random_bool(0.2) {
            turns.sort_unstable();
        }
    }
    for report in &reports[1..] {
        assert_eq!(report, &reports[0]);
    }
}

#[test]
fn eigenvalues_on_a_cadence() {
    let server = Server::start(&[]);
    let without = report(&server, "?window=0&last=1&spectrum=false", 1);
    for measure in ["entropy_rank", "rankme", "numerical_rank", "w2_uniformity"] {
        assert_eq!(without["measures"][measure], Value::Null, "{measure}");
    }
    for measure in ["stable_rank", "stable_rank_corrected", "diagonal_entropy_rank", "scaled_std", "center_norm"] {
        assert!(without["measures"][measure].is_f64(), "{measure}");
    }
    assert!(without["notes"].to_string().contains("spectrum=false"), "{without}");
    assert_eq!((&without["computed"]["solver"], &without["computed"]["exact"]), (&"".into(), &false.into()));
    // One batch that wants them is enough.
    taken(&server, "?window=1&spectrum=false", 2);
    let with = report(&server, "?window=1&last=1", 3);
    assert!(with["measures"]["entropy_rank"].is_f64());
    assert_eq!(with["computed"]["solver"], "faer");
    // What nobody asked for was not skipped.
    assert_eq!(server.metrics().get("fullrank_spectra_skipped_total"), Some(0.0));
    let (low, high) = (&without["measures"]["stable_rank"], &without["measures"]["diagonal_entropy_rank"]);
    assert!(low.as_f64() <= high.as_f64(), "D2 <= D1 <= exp H(diag) is what a window without eigenvalues has");
}

#[test]
fn a_push_names_its_arithmetic() {
    // Spread out enough for a fast kernel: more than a handful of directions.
    let body = || gaussian_body(64, 16, 1);
    let server = Server::start(&[]);
    let report = |place: &str| server.report(place, body());
    assert_eq!(report("?window=0&last=1")["computed"]["kernel"], "f64");
    let fast = report("?window=1&last=1&precision=fast");
    assert_eq!(fast["computed"]["kernel"], "f32");
    let floors = |report: &Value| report["measures"]["numeric_noise_floor"].as_f64().unwrap();
    assert!(floors(&fast) > 1e3 * floors(&report("?window=2&last=1&precision=f64")));
    let refused = problem(server.push("?window=3&precision=single", gaussian_body(16, 4, 1)));
    let (status, code, detail) = (refused.0, &refused.2["code"], &refused.2["detail"]);
    assert_eq!((status, code.as_str()), (400, Some("malformed")));
    assert!(detail.as_str().unwrap().contains("auto, f64, fast"), "{detail}");
    // A server that is told to.
    let server = Server::start(&["--precision", "fast"]);
    assert_eq!(server.report("?window=0&last=1", body())["computed"]["kernel"], "f32");
}
