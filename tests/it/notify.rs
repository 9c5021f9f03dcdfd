//! Alerts without Prometheus: what a webhook and Alertmanager get, when they fail, hang or come back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::safetensors;
use fullrank::analysis::parameters::Parameters;
use fullrank::analysis::report::{FullReport, Report};
use fullrank::analysis::verdict::VerdictState;
use fullrank::analyze;
use fullrank::pipeline::ThresholdOverrides;
use fullrank::publish::notify::{self, NotifyTarget};
use fullrank::publish::{Board, Build, ServiceMetrics};
use jiff::Timestamp;
use kernels::cpu::Cpu;
use serde_json::Value;

use crate::harness::{Server, f32_body, gaussian_body};

/// Only a test that fails waits that long.
const LATE: Duration = Duration::from_secs(60);

/// What a receiver was posted: the path, with every Authorization behind it, and the body.
type Posted = (String, Value);

/// How a receiver answers: with this status, or not at all.
type Answer = Option<u16>;

/// A receiver on a port of its own. Each request takes one answer from the channel, and the last one for ever after.
fn receiver(first: Answer) -> (String, Receiver<Posted>, Sender<Answer>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (posted, received) = channel();
    let (answers, next) = channel();
    std::thread::spawn(move || {
        let mut answer = first;
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some((path, body)) = request(&mut stream) else { continue };
            answer = next.try_iter().last().unwrap_or(answer);
            match answer {
                Some(status) => {
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes());
                }
                None => silent.push(stream),
            }
            if posted.send((path, body)).is_err() {
                return;
            }
        }
    });
    (format!("http://{address}"), received, answers)
}

fn request(stream: &mut std::net::TcpStream) -> Option<Posted> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut path = line.split(' ').nth(1)?.to_string();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if header.to_ascii_lowercase().starts_with("authorization:") {
            path = format!("{path} {}", header.split_once(':')?.1.trim());
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap()))
}

/// A healthy run, and windows on one point.
fn collapse(server: &Server, run: &str) {
    for window in 0..4 {
        server.report(&format!("{run}/l?window={window}&last=true&method=simsiam"), gaussian_body(128, 4, window));
    }
    for window in 4..10 {
        let body = f32_body(&[("z", 128, 4, &[1.0f32; 512])]);
        server.report(&format!("{run}/l?window={window}&last=true"), body);
    }
}

fn of<'a>(alerts: &'a Value, name: &str) -> Option<&'a Value> {
    alerts.as_array().unwrap().iter().find(|alert| alert["labels"]["alertname"] == name)
}

/// The first post that has an alert of that name, status and severity.
fn wait_for(posts: &Receiver<Posted>, name: &str, status: &str) -> (Value, Value) {
    loop {
        let (path, body) = posts.recv_timeout(LATE).unwrap();
        assert_eq!(path, "/hook?token=secret");
        let alerts = body["alerts"].as_array().unwrap();
        let found = alerts.iter().find(|alert| {
            (&alert["labels"]["alertname"], &alert["labels"]["severity"], &alert["status"])
                == (&name.into(), &"critical".into(), &status.into())
        });
        if let Some(alert) = found {
            return (body.clone(), alert.clone());
        }
    }
}

#[test]
fn a_webhook_is_told_of_a_collapse_with_the_evidence_and_of_its_end() {
    let (url, posts, _answers) = receiver(Some(200));
    let hook = format!("{url}/hook?token=secret");
    let server = Server::start(&["--webhook", &hook, "--external-url", "https://ssl.example/fullrank/"]);
    server.report("quiet/l?window=0&last=true", gaussian_body(128, 4, 7));
    collapse(&server, "r");
    let (body, alert) = wait_for(&posts, "FullrankCompleteCollapse", "firing");
    assert_eq!(
        (&body["version"], &body["status"], &body["receiver"]),
        (&"4".into(), &"firing".into(), &"fullrank".into())
    );
    assert_eq!((&body["groupLabels"]["run"], &body["commonLabels"]["run"]), (&"r".into(), &"r".into()));
    assert_eq!(alert["labels"]["layer"], "l");
    let annotation = |name: &str| alert["annotations"][name].as_str().unwrap().to_string();
    assert!(annotation("summary").starts_with("complete collapse in run r, layer l, since window "));
    assert!(annotation("description").contains("cause constant: "), "{}", annotation("description"));
    assert!(annotation("description").contains("(threshold "), "{}", annotation("description"));
    assert_eq!(annotation("dashboard_url"), "https://ssl.example/fullrank/#run=r");
    let evidence = &alert["evidence"];
    assert!(evidence["first_bad_window"].as_u64().unwrap() >= 4);
    assert_eq!((&evidence["rows"], &evidence["dim"]), (&128.into(), &4.into()));
    assert_eq!(evidence["verdict"]["cause"], "constant");
    assert!(evidence["measures"]["total_variance"].is_number() && evidence["thresholds"].is_object());
    assert_eq!(evidence["spectrum"]["eigenvalues"].as_array().unwrap().len(), 4);
    let fingerprint = alert["fingerprint"].as_str().unwrap().to_string();
    assert_eq!((fingerprint.len(), &alert["endsAt"]), (16, &"0001-01-01T00:00:00Z".into()));
    // Finished: it fires on. Acknowledged, once healthy: it has ended.
    server.post("/v1/runs/r/finish").send().unwrap();
    for window in 10..22 {
        server.report(&format!("r/l?window={window}&last=true"), gaussian_body(128, 4, window));
    }
    server.post("/v1/runs/r/acknowledge").send().unwrap();
    let (_, ended) = wait_for(&posts, "FullrankCompleteCollapse", "resolved");
    assert_eq!(ended["fingerprint"], fingerprint.as_str());
    assert_eq!(ended["startsAt"], alert["startsAt"]);
    assert!(ended["endsAt"].as_str().unwrap() > ended["startsAt"].as_str().unwrap());
    let sent = "fullrank_notifications_total{outcome=\"sent\",receiver=\"webhook\"}";
    assert!(server.metrics().get(sent).is_some_and(|count| count >= 1.0));
    server.stop();
    assert!(posts.try_iter().all(|(_, body)| body["groupLabels"]["run"] == "r"), "the healthy run alerts nobody");
}

#[test]
fn alertmanager_gets_all_that_fires() {
    let (url, posts, _answers) = receiver(Some(200));
    let server = Server::start(&["--alertmanager", &format!("{url}/prefix/")]);
    collapse(&server, "a");
    let (path, alerts) = loop {
        let (path, alerts) = posts.recv_timeout(LATE).unwrap();
        if of(&alerts, "FullrankCompleteCollapse").is_some_and(|alert| alert["labels"]["severity"] == "critical") {
            break (path, alerts);
        }
    };
    assert_eq!(path, "/prefix/api/v2/alerts");
    let alert = of(&alerts, "FullrankCompleteCollapse").unwrap();
    let evidence: Value = serde_json::from_str(alert["annotations"]["evidence"].as_str().unwrap()).unwrap();
    assert_eq!(evidence["verdict"]["state"], "collapsed");
    assert!(alert["endsAt"].as_str().unwrap() > alert["startsAt"].as_str().unwrap());
    assert!(alert["generatorURL"].as_str().unwrap().ends_with("/#run=a"));
}

/// Seconds that a test has let pass.
static PASSED: AtomicI64 = AtomicI64::new(0);

fn test_time() -> Timestamp {
    Timestamp::from_second(1_800_000_000 + PASSED.load(Ordering::Acquire)).unwrap()
}

/// It resolves what it does not hear of for some minutes, however much happens meanwhile.
#[test]
fn alertmanager_is_told_again_while_the_board_is_busy() {
    let (url, posts, _answers) = receiver(Some(200));
    let z = f32_body(&[("z", 64, 4, &[1.0f32; 256])]);
    let (tensors, parameters) = safetensors::decode(&z.into(), Parameters::default()).unwrap();
    let batch = EmbeddingBatch::new(tensors, parameters).unwrap();
    let measured = analyze::report(Arc::new(Cpu::new(1).unwrap()), batch, "l", &ThresholdOverrides::default()).unwrap();
    let report = Report { run: "r".to_string(), ..measured.report.clone() };
    assert_eq!(report.verdict.state, VerdictState::Collapsed);
    let board = Arc::new(Board::default());
    board.publish(&[Arc::new(FullReport { report, spectrum: None })]);
    let build = Build { version: "0", revision: "0", backend: "cpu".to_string() };
    let target = NotifyTarget {
        receiver: notify::Receiver::Alertmanager,
        url: url.parse().unwrap(),
        external_url: String::new(),
        timeout: LATE,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let service = ServiceMetrics::new(&build, 1).unwrap();
    let task = runtime.spawn(notify::run(target, Arc::clone(&board), service, test_time, stopped));
    let started = |(_, alerts): Posted| alerts[0]["startsAt"].as_str().unwrap().to_string();
    let first = started(posts.recv_timeout(LATE).unwrap());
    // 61 seconds, and changes that are none of an alert.
    PASSED.store(61, Ordering::Release);
    let again = (0..600).find_map(|_| {
        board.changed();
        posts.recv_timeout(Duration::from_millis(100)).ok()
    });
    assert_eq!(again.map(started), Some(first));
    stop.send(true).unwrap();
    runtime.block_on(task).unwrap();
}

#[test]
fn what_fails_or_hangs_is_told_again_and_costs_nobody() {
    for broken in [Some(503), Some(302), None] {
        let (url, posts, answers) = receiver(broken);
        let server = Server::start(&["--webhook", &format!("{url}/hook?token=secret"), "--notify-timeout-s", "1"]);
        // Reports come and go while the receiver does not answer.
        collapse(&server, "r");
        wait_for(&posts, "FullrankCompleteCollapse", "firing");
        let failed = "fullrank_notifications_total{outcome=\"failed\",receiver=\"webhook\"}";
        let mut metrics = server.metrics();
        // Counted once the answer is in or the time over; the next attempt comes after that.
        if metrics.get(failed) == Some(0.0) {
            posts.recv_timeout(LATE).unwrap();
            metrics = server.metrics();
        }
        assert!(metrics.get(failed).is_some_and(|count| count >= 1.0), "{broken:?}");
        answers.send(Some(204)).unwrap();
        let sent = "fullrank_notifications_total{outcome=\"sent\",receiver=\"webhook\"}";
        // The post that is answered well is counted a moment later, and none comes after it.
        let began = std::time::Instant::now();
        while server.metrics().get(sent) == Some(0.0) {
            assert!(began.elapsed() < LATE, "{broken:?}: it is not sent again");
        }
    }
}

#[test]
fn a_run_that_is_refused_holds_up_no_other() {
    let (url, posts, _answers) = receiver(Some(400));
    let (user, host) = ("u:p%40ss@", url.strip_prefix("http://").unwrap());
    let server = Server::start(&["--webhook", &format!("http://{user}{host}/hook")]);
    collapse(&server, "a");
    collapse(&server, "b");
    loop {
        let (path, body) = posts.recv_timeout(LATE).unwrap();
        // u:p@ss, once.
        assert_eq!(path, "/hook Basic dTpwQHNz");
        if body["groupLabels"]["run"] == "b" {
            break;
        }
    }
}

#[test]
fn a_service_that_stops_says_the_last_word() {
    let (url, posts, answers) = receiver(Some(500));
    let server = Server::start(&["--webhook", &format!("{url}/hook?token=secret")]);
    collapse(&server, "r");
    wait_for(&posts, "FullrankCompleteCollapse", "firing");
    answers.send(Some(200)).unwrap();
    server.stop();
    wait_for(&posts, "FullrankCompleteCollapse", "firing");
}

#[test]
fn a_url_that_is_none_stops_the_start() {
    for (url, says) in [("hooks/secret", "relative URL without a base"), ("ftp://host/secret", "its scheme is ftp")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fullrank"))
            .args(["serve", "--listen=127.0.0.1:0", "--webhook", url])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(said.contains(says) && said.contains("http://host:port"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
