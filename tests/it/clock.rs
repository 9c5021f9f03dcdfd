//! The passing of time, with made-up times: patience with missing workers, idle runs, time to live, drain.

use std::sync::Arc;

use bytes::Bytes;
use fullrank::analysis::decode::{Element, Tensor};
use fullrank::analysis::parameters::Parameters;
use fullrank::error::{Code, Refusal};
use fullrank::pipeline::restore::PipelineParts;
use fullrank::pipeline::{Accepted, Arrival, Pipeline, Push};
use fullrank::publish::{Board, Build, History, RunCollector, ServiceMetrics};
use jiff::{SignedDuration, Timestamp};
use kernels::cpu::Cpu;
use kernels::rows::Float;
use serde_json::Value;

use crate::harness::{Metrics, config, f32_bytes, gaussian};

/// A pipeline whose threads are run by hand, once, at the end.
struct ByHand {
    pipeline: Arc<Pipeline>,
    history: Arc<History>,
    metrics: Arc<ServiceMetrics>,
    board: Arc<Board>,
}

/// Seconds after a start that is no real time.
fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
}

impl ByHand {
    fn new() -> Self {
        let config = config(&["--window-patience-s", "60", "--run-ttl-s", "100", "--idle-finish-s", "1000"]);
        let about = Build { version: "0", revision: "test", backend: "cpu".to_string() };
        let metrics = ServiceMetrics::new(&about, config.pipeline.inbox_batches).unwrap();
        let (board, history) = (Arc::new(Board::default()), Arc::new(History::open(None).unwrap()));
        let collector = RunCollector::new(Arc::clone(&board), Arc::clone(&metrics), 10_000).unwrap();
        metrics.registry.register(Box::new(collector)).unwrap();
        let pipeline = Pipeline::new(PipelineParts {
            limits: config.pipeline,
            overrides: config.overrides,
            precision: config.precision,
            backend: Arc::new(Cpu::new(1).unwrap()),
            board: Arc::clone(&board),
            history: Arc::clone(&history),
            metrics: Arc::clone(&metrics),
        });
        Self { pipeline: Arc::new(pipeline.unwrap()), history, metrics, board }
    }

    fn try_push(&self, query: &str, now: i64) -> Result<Accepted, Refusal> {
        let mut parameters = Parameters::default();
        for (name, text) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            parameters.set(name, text).unwrap();
        }
        let bytes = f32_bytes(&gaussian(16, 4, now as u64));
        let decode = move || {
            let z = Tensor::new("z", Element::Float(Float::F32), vec![16, 4], Bytes::from(bytes))?;
            Ok((vec![z], parameters))
        };
        let (run, layer) = ("r".parse().unwrap(), "l".parse().unwrap());
        let arrival = Arrival { door: "http", run, layer, body: bytes::Bytes::new(), arrived: at(now) };
        self.pipeline.submit(Push { arrival, decode: Box::new(decode) })
    }

    fn push(&self, query: &str, now: i64) {
        assert!(!self.try_push(query, now).unwrap_or_else(|refusal| panic!("{query}: {refusal}")).duplicate);
    }

    fn tick(&self, now: i64) {
        self.pipeline.tick(at(now));
    }

    /// Numbers of the open windows.
    fn open(&self) -> Vec<u64> {
        self.pipeline
            .admission
            .open_windows("r")
            .iter()
            .flat_map(|(_, windows)| windows.iter().map(|open| open.window))
            .collect()
    }

    fn metrics(&self) -> Metrics {
        Metrics(prometheus::TextEncoder::new().encode_to_string(&self.metrics.registry.gather()).unwrap())
    }

    /// Does all the work there is, and reads the stored reports.
    fn work(&self) -> Vec<Value> {
        self.pipeline.accumulation.stop();
        self.pipeline.accumulate();
        self.pipeline.reports.stop();
        self.pipeline.report();
        let page = self.history.reports("r", "l", 0..=u64::MAX, 100).unwrap();
        page.reports.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
}

fn notes(report: &Value) -> String {
    report["notes"].to_string()
}

#[test]
fn a_missing_worker_is_waited_for_and_named() {
    let by_hand = ByHand::new();
    by_hand.push("window=0&worker=0&workers=3", 0);
    by_hand.push("window=0&worker=2&workers=3&last=1", 1);
    by_hand.tick(499);
    assert_eq!(by_hand.open(), [0], "nobody waits while no later window was pushed");
    by_hand.push("window=1&worker=0&workers=3", 500);
    by_hand.push("window=1&worker=2&workers=3", 550);
    by_hand.tick(559);
    assert_eq!(by_hand.open(), [0, 1]);
    by_hand.tick(560);
    assert_eq!(by_hand.open(), [1], "60 s after the first push of a later one");
    let refusal = by_hand.try_push("window=0&worker=1&workers=3", 561).err().unwrap();
    assert_eq!(refusal.code, Code::WindowClosed);
    by_hand.pipeline.drain(at(600));
    let reports = by_hand.work();
    assert_eq!((&reports[0]["complete"], &reports[0]["rows"]), (&false.into(), &32.into()));
    assert!(notes(&reports[0]).contains("no rows came from worker(s) 1\""), "{}", notes(&reports[0]));
    assert_eq!(reports[0]["closed_at"], at(560).to_string());
}

#[test]
fn a_worker_that_is_ahead_is_done() {
    let by_hand = ByHand::new();
    by_hand.push("window=5&worker=0&workers=2", 0);
    by_hand.push("window=4&worker=1&workers=2", 1);
    assert_eq!(by_hand.open(), [4, 5]);
    by_hand.push("window=4&worker=1&workers=2&last=1", 2);
    assert_eq!(by_hand.open(), [5], "worker 0 pushed a later window before this one was opened");
}

#[test]
fn a_restarted_trainer_is_not_hurried_by_its_past() {
    let by_hand = ByHand::new();
    by_hand.push("window=3&session=1&last=1", 0);
    by_hand.push("window=4&session=1", 10);
    by_hand.push("window=3&session=2", 20);
    by_hand.tick(500);
    assert_eq!(by_hand.open(), [3, 4], "the later window is the old session's");
    by_hand.push("window=3&session=2&last=1", 600);
    by_hand.push("window=4&session=2&last=1", 610);
    let reports = by_hand.work();
    let seen: Vec<String> =
        reports.iter().map(|r| format!("{} {} {} {}", r["window"], r["revision"], r["rows"], r["complete"])).collect();
    assert_eq!(seen, ["3 1 16 true", "3 2 32 true", "4 1 32 true"]);
}

#[test]
fn an_idle_run_is_finished() {
    let by_hand = ByHand::new();
    by_hand.push("window=0", 0);
    by_hand.tick(999);
    assert!(by_hand.board.run("r").unwrap().finished_at.is_none());
    by_hand.tick(1000);
    assert_eq!(by_hand.board.run("r").unwrap().finished_at, Some(at(1000)));
    assert!(by_hand.open().is_empty());
    by_hand.push("window=1", 1001);
    assert!(by_hand.board.run("r").unwrap().finished_at.is_none(), "a push reopens it");
    let reports = by_hand.work();
    assert_eq!((reports.len(), &reports[0]["complete"]), (1, &false.into()));
}

#[test]
fn a_finished_run_leaves_the_metrics_after_its_time() {
    let by_hand = ByHand::new();
    let finished = |metrics: &Metrics| metrics.get("fullrank_run_finished{run=\"r\"}");
    by_hand.push("window=0", 0);
    by_hand.pipeline.finish("r", at(10)).unwrap();
    by_hand.pipeline.finish("r", at(60)).unwrap();
    by_hand.tick(109);
    assert_eq!((finished(&by_hand.metrics()), by_hand.pipeline.admission.streams()), (Some(1.0), 1));
    by_hand.tick(110);
    assert_eq!((finished(&by_hand.metrics()), by_hand.pipeline.admission.streams()), (None, 0));
    assert!(by_hand.board.run("r").is_some(), "the history stays");
    by_hand.push("window=1", 200);
    assert_eq!((finished(&by_hand.metrics()), by_hand.pipeline.admission.streams()), (Some(0.0), 1));
}

#[test]
fn a_stopping_service_takes_nothing_and_loses_nothing() {
    let by_hand = ByHand::new();
    by_hand.push("window=0&seq=0&workers=2", 0);
    by_hand.push("window=1&seq=1&workers=2", 1);
    by_hand.pipeline.drain(at(2));
    let refusal = by_hand.try_push("window=1&seq=2&workers=2", 3).err().unwrap();
    assert_eq!((refusal.code, refusal.code.status()), (Code::Draining, 503));
    assert!(refusal.code.retry_after().is_some());
    assert_eq!(by_hand.pipeline.admission.has_room().unwrap_err().code, Code::Draining);
    let reports = by_hand.work();
    let seen: Vec<_> =
        reports.iter().map(|r| (r["window"].as_u64(), r["rows"].as_u64(), r["complete"].as_bool())).collect();
    assert_eq!(seen, [(Some(0), Some(16), Some(false)), (Some(1), Some(16), Some(false))]);
    assert!(notes(&reports[0]).contains("no rows came from worker(s) 1"));
}
