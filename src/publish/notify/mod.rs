//! Alerts without Prometheus: published verdicts sent to a webhook or to Alertmanager.
//!
//! Guarantees: what is due is sent again until it is accepted; whatever a receiver does costs only its own task and at
//! most 1000 alerts of memory; the state is read from the board at each attempt, so nothing queues up. After a restart
//! the alerts that still fire are sent once more. Must not: judge; an alert is an alarm of the published verdict.

mod alert;
mod ledger;
mod payload;
mod speak;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kernels::word::Word;
use reqwest::Url;
use reqwest::redirect::Policy;
use strum::IntoStaticStr;
use tokio::sync::watch;

use super::board::Board;
use super::service_metrics::ServiceMetrics;
use ledger::AlertLedger;

use alert::firing;

pub(crate) use speak::{caller, origin, plain};

/// The first pause after a failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often Alertmanager gets the firing alerts again (it resolves alerts it no longer hears of), and time is checked.
const RESEND: Duration = Duration::from_secs(60);

/// Alerts are some kilobytes each: servers in front of an Alertmanager accept at least a megabyte.
const ALERTS_A_POST: usize = 50;

/// How long after a change the board is read: hundreds of windows a second must not read every run hundreds of times.
const PACE: Duration = Duration::from_millis(250);

/// The kinds of receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Receiver {
    /// Any HTTP server, called like an Alertmanager webhook (payload version 4), once for each change of a run.
    Webhook,
    /// Alertmanager's own API (v2): all firing alerts at once, again every minute.
    Alertmanager,
}

/// One receiver, and how to reach it.
#[derive(Clone, Debug)]
pub struct NotifyTarget {
    /// The kind of receiver.
    pub receiver: Receiver,
    /// The address. It may hold a secret: only host and port are ever printed.
    pub url: Url,
    /// The address of this service for links in alerts.
    pub external_url: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Sends everything on the board to `target` until `stopped` is true; then tries once more.
pub async fn run(
    target: NotifyTarget,
    board: Arc<Board>,
    service: Arc<ServiceMetrics>,
    now: fn() -> Timestamp,
    mut stopped: watch::Receiver<bool>,
) {
    let client = match caller(&target.url, target.timeout).redirect(Policy::none()).build() {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "no alerts to {}: cannot set up TLS", target.receiver.word()),
    };
    let mut changes = board.changes();
    let mut ledger = AlertLedger::default();
    let (mut pause, mut told_at) = (None, None);
    loop {
        changes.borrow_and_update();
        let at = now();
        let dropped = ledger.observe(firing(&board), at);
        service.notified(target.receiver.word(), "dropped", dropped);
        // By the clock, not by what woke this task: on a busy board it is never time alone.
        let repeats = target.receiver == Receiver::Alertmanager && ledger.fires();
        let long_ago = told_at.is_some_and(|told: Timestamp| at.duration_since(told).unsigned_abs() >= RESEND);
        ledger.repeat(repeats && long_ago);
        let due = ledger.is_due();
        let told = tell(&client, &target, &mut ledger, at, &service).await;
        pause = match told {
            Ok(()) => {
                told_at = if due { Some(at) } else { told_at };
                None
            }
            Err(error) => {
                let pause = pause.map_or(FIRST_PAUSE, |pause: Duration| (2 * pause).min(LONGEST_PAUSE));
                service.notified(target.receiver.word(), "failed", 1);
                tracing::warn!(
                    receiver = target.receiver.word(), to = origin(&target.url), %error, pause_s = pause.as_secs(),
                    "could not deliver an alert; it will be sent again"
                );
                Some(pause)
            }
        };
        let again = pause.or((repeats || ledger.waits()).then_some(RESEND));
        // A failing receiver is not called more often because more happens.
        if wait(&mut changes, pause.is_none(), again, &mut stopped).await {
            break;
        }
    }
    let dropped = ledger.observe(firing(&board), now());
    service.notified(target.receiver.word(), "dropped", dropped);
    if let Err(error) = tell(&client, &target, &mut ledger, now(), &service).await {
        service.notified(target.receiver.word(), "failed", 1);
        tracing::error!(receiver = target.receiver.word(), to = origin(&target.url), %error, "could not deliver the last alerts");
    }
}

/// Waits until the board changes (if `listen`), time is up, or the task must stop (then it returns true).
async fn wait(
    changes: &mut watch::Receiver<u64>,
    listen: bool,
    again: Option<Duration>,
    stopped: &mut watch::Receiver<bool>,
) -> bool {
    let time = async {
        match again {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
    };
    let board = async {
        let gone = !listen || changes.changed().await.is_err();
        if gone {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(PACE).await;
    };
    tokio::select! {
        () = board => false,
        () = time => false,
        _ = stopped.wait_for(|stop| *stop) => true,
    }
}

struct Refused {
    why: String,
    /// Nobody answered: the next post would wait as long.
    silent: bool,
}

/// Sends what is due. Each accepted post is recorded immediately, and a slow post holds up no other.
async fn tell(
    client: &reqwest::Client,
    target: &NotifyTarget,
    ledger: &mut AlertLedger,
    now: Timestamp,
    service: &ServiceMetrics,
) -> Result<(), String> {
    let mut refused = None;
    match target.receiver {
        Receiver::Webhook => {
            for run in ledger.due_runs() {
                let alerts = ledger.of_run(&run);
                let body = payload::webhook(&run, &alerts, &target.external_url);
                match post(client, target.url.clone(), &body).await {
                    Ok(()) => {
                        service.notified(target.receiver.word(), "sent", 1);
                        ledger.delivered(Some(&run));
                    }
                    Err(Refused { why, silent: true }) => return Err(why),
                    Err(Refused { why, .. }) => refused = refused.or(Some(why)),
                }
            }
        }
        Receiver::Alertmanager if ledger.is_due() => {
            let mut url = target.url.clone();
            url.set_path(&format!("{}/api/v2/alerts", target.url.path().trim_end_matches('/')));
            // Four times as long as until the next repeat.
            let until = now.checked_add(4 * RESEND).unwrap_or(now);
            for alerts in ledger.all().chunks(ALERTS_A_POST) {
                let body = payload::alertmanager(alerts, until, &target.external_url);
                match post(client, url.clone(), &body).await {
                    Ok(()) => service.notified(target.receiver.word(), "sent", 1),
                    Err(Refused { why, silent: true }) => return Err(why),
                    Err(Refused { why, .. }) => refused = refused.or(Some(why)),
                }
            }
            if refused.is_none() {
                ledger.delivered(None);
            }
        }
        Receiver::Alertmanager => {}
    }
    refused.map_or(Ok(()), Err)
}

/// User and password in the address go into the header; reqwest does that.
async fn post(client: &reqwest::Client, url: Url, body: &serde_json::Value) -> Result<(), Refused> {
    let answer = client.post(url).json(body).send().await;
    let answer = answer.map_err(|error| Refused { why: plain(&error.without_url()), silent: true })?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(Refused { why: format!("it answered {status}"), silent: false }) }
}
