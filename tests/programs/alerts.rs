//! From a training to a pager: recordings of real trainings through the service, Prometheus and Alertmanager as Debian
//! has them, with the project's own rules and routes, to a receiver of webhooks.
//!
//! The rules are the real file, byte by byte (`programs`): what a collapse waits for is the verdict, not a `for:`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::files::read;
use crate::harness::Server;
use crate::program::{INTERVAL, PATIENCE, Program, changed, free_address};

/// How long one look at the receiver takes, between two looks at the rest.
const LOOK: Duration = Duration::from_millis(50);

/// One request of an Alertmanager; answered 200 and closed.
fn receive(listener: &TcpListener) -> Option<Value> {
    let mut stream = listener.accept().ok()?.0;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    serde_json::from_slice(&body).ok()
}

/// Everything between a training and a pager.
struct Chain {
    server: Server,
    prometheus: String,
    alertmanager: String,
    programs: Vec<Program>,
    webhooks: Receiver<(Instant, Value)>,
    heard: Vec<(Instant, Value)>,
    _folder: tempfile::TempDir,
}

impl Chain {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, path) = (Server::start(flags), folder.path());
        let alertmanager = free_address();
        let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = receiver.local_addr().unwrap().to_string();
        let (send, webhooks) = channel();
        std::thread::spawn(move || {
            // What is no webhook is passed over; a test that is over has nobody to send to.
            while receive(&receiver).is_none_or(|value| send.send((Instant::now(), value)).is_ok()) {}
        });
        let routes = changed(&read("dashboards/alertmanager/alertmanager.yaml"), &[("127.0.0.1:5001", at)]);
        std::fs::write(path.join("alertmanager.yaml"), routes).unwrap();
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        let file = |name: &str| path.join(name).display().to_string();
        let pager = Program::start(
            "prometheus-alertmanager",
            &[
                flag("config.file", &file("alertmanager.yaml")),
                flag("storage.path", &file("alertmanager")),
                flag("cluster.listen-address", ""),
                flag("web.listen-address", &alertmanager),
            ],
            path,
        );
        let (watcher, prometheus) = Program::prometheus(&server, &alertmanager, &[], path);
        let programs = vec![pager, watcher];
        let heard = Vec::new();
        Self { server, prometheus, alertmanager, programs, webhooks, heard, _folder: folder }
    }

    /// Asks until there is an answer, and takes webhooks meanwhile.
    fn until<T>(&mut self, what: &str, ask: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(Instant::now() < deadline, "never so: {what}\n{}", self.said());
            self.heard.extend(self.webhooks.recv_timeout(LOOK));
        }
    }

    fn said(&self) -> String {
        self.programs.iter().map(Program::said).collect()
    }

    /// GET, where somebody answers.
    fn ask(&self, address: &str, path: &str) -> Option<Value> {
        self.server.client.get(format!("http://{address}{path}")).send().ok()?.json().ok()
    }

    /// The first value of a query of Prometheus; none where it has no series.
    fn query(&self, query: &str) -> Option<f64> {
        let request = self.server.client.get(format!("http://{}/api/v1/query", self.prometheus));
        let answer: Value = request.query(&[("query", query)]).send().ok()?.json().ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// An alert as Alertmanager has it.
    fn alert(&self, name: &str, run: &str) -> Option<Value> {
        let all = self.ask(&self.alertmanager, "/api/v2/alerts")?;
        let is = |alert: &&Value| alert["labels"]["alertname"] == name && alert["labels"]["run"] == run;
        all.as_array()?.iter().find(is).cloned()
    }

    /// When the webhook came that first named this alert, and the alert in it.
    fn notified(&self, name: &str, run: &str) -> Option<(Instant, Value)> {
        self.heard.iter().find_map(|(at, webhook)| {
            let is = |alert: &&Value| alert["labels"]["alertname"] == name && alert["labels"]["run"] == run;
            Some((*at, webhook["alerts"].as_array()?.iter().find(is)?.clone()))
        })
    }

    /// Replays a recording, at most until its verdict is `collapsed`. Returns its state then.
    fn replay(&self, run: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/recordings/{run}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let windows: Value = serde_json::from_str(&header.metadata().clone().unwrap()["windows"]).unwrap();
        let mut state = String::new();
        for entry in windows.as_array().unwrap() {
            let (window, step, loss) = (entry["window"].as_u64().unwrap(), &entry["step"], &entry["loss"]);
            let view = |name: &str| (name.to_string(), tensors.tensor(&format!("{window:03}.{name}")).unwrap());
            let body = safetensors::serialize([view("z1"), view("z2")], None).unwrap();
            let place = format!("{run}/projector?window={window}&step={step}&loss={loss}&last=true&method=simsiam");
            state = self.server.report(&place, body)["verdict"]["state"].as_str().unwrap().to_string();
            if state == "collapsed" {
                break;
            }
        }
        state
    }
}

const ALERT: &str = "FullrankCompleteCollapse";

#[test]
fn a_collapse_reaches_the_receiver_and_stays_when_the_run_has_ended() {
    // Finished runs leave /metrics after a second, so that the test sees them gone.
    let mut chain = Chain::start(&["--run-ttl-s", "1"]);
    chain.until("Prometheus scrapes", |chain| chain.query("up{job=\"fullrank\"} == 1"));
    chain.until("Prometheus knows Alertmanager", |chain| {
        let known = chain.ask(&chain.prometheus, "/api/v1/alertmanagers")?;
        chain.ask(&chain.alertmanager, "/api/v2/status")?;
        known["data"]["activeAlertmanagers"].get(0).cloned()
    });

    assert_eq!(chain.replay("simsiam-healthy"), "healthy");
    let collapsing = ["simsiam-no-predictor", "simsiam-no-stop-gradient"];
    for run in collapsing {
        assert_eq!(chain.replay(run), "collapsed");
        let judged = Instant::now();
        let (at, alert) = chain.until("the webhook of the collapse", |chain| chain.notified(ALERT, run));
        let took = at.duration_since(judged);
        eprintln!("{run}: {took:?} from verdict to webhook; two scrapes and an evaluation are {:?}", 3 * INTERVAL);
        check_alert(&chain, run, &alert);
        let line = chain.until("the collapse onto a line, inhibited", |chain| {
            let line = chain.alert("FullrankDimensionalCollapse", run)?;
            (line["status"]["state"] == "suppressed").then_some(line)
        });
        assert_ne!(line["status"]["inhibitedBy"].as_array().unwrap().len(), 0, "{line}");
    }

    for run in collapsing {
        let finished = chain.server.post(&format!("/v1/runs/{run}/finish")).send().unwrap();
        assert_eq!(finished.status(), 200);
    }
    for run in collapsing {
        let gone = format!("absent(fullrank_verdict{{run=\"{run}\"}}) * time()");
        let since = chain.until("the finished run has left /metrics", |chain| chain.query(&gone));
        let firing = format!(
            "timestamp(ALERTS{{alertname=\"{ALERT}\",run=\"{run}\",alertstate=\"firing\"}}) > {}",
            since + 2.0 * INTERVAL.as_secs_f64()
        );
        chain.until("it fires two evaluations later", |chain| chain.query(&firing));
        let alert = chain.alert(ALERT, run).unwrap();
        assert_eq!(alert["status"]["state"], "active", "{alert}");
        let ends: jiff::Timestamp = alert["endsAt"].as_str().unwrap().parse().unwrap();
        assert!(ends > jiff::Timestamp::now(), "{alert}");
    }

    // By now the healthy run was judged by every rule, many times.
    assert_eq!(chain.query("fullrank_verdict{run=\"simsiam-healthy\",state=\"healthy\"}"), Some(1.0));
    let pending_or_firing = chain.ask(&chain.prometheus, "/api/v1/alerts").unwrap().to_string();
    assert!(pending_or_firing.contains(ALERT) && !pending_or_firing.contains("simsiam-healthy"), "{pending_or_firing}");
    for (_, webhook) in &chain.heard {
        assert!(webhook["status"] == "firing" && !webhook.to_string().contains("simsiam-healthy"), "{webhook}");
    }
    let said = chain.said();
    for complaint in ["Evaluating rule failed", "Expanding alert template failed"] {
        assert!(!said.contains(complaint), "{said}");
    }
}

/// Labels and annotations as the receiver gets them.
fn check_alert(chain: &Chain, run: &str, alert: &Value) {
    let instance = chain.server.address.to_string();
    let labels = [
        ("alarm", "complete_collapse"),
        ("severity", "critical"),
        ("job", "fullrank"),
        ("instance", &instance),
        ("run", run),
        ("layer", "projector"),
    ];
    for (label, value) in labels {
        assert_eq!(alert["labels"][label], value, "{label}: {alert}");
    }
    assert_eq!(alert["status"], "firing");
    let annotation = |name: &str| alert["annotations"][name].as_str().unwrap_or_else(|| panic!("{name}: {alert}"));
    assert!(annotation("summary").starts_with(&format!("{run}, layer projector is collapsed")), "{alert}");
    let description = annotation("description");
    assert!(description.starts_with("Cause: constant. scaled_std 0.0"), "{description}");
    assert!(description.contains("mean_cosine 0.99") && description.contains("method simsiam"), "{description}");
    assert!(!description.contains("gone") && !description.contains("{{"), "{description}");
    assert!(annotation("dashboard_url").ends_with(&format!("?var-run={run}&var-layer=projector")), "{alert}");
    assert!(read(annotation("runbook_url")).starts_with("# FullrankCompleteCollapse"));
}
