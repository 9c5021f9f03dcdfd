//! Alerts without Prometheus: published verdicts sent to a webhook or to Alertmanager.
//!
//! Guarantees: what is due is sent again until it is taken; whatever a receiver does costs its own task and at most
//! 1000 alerts of memory; the state is read from the board at each attempt, so nothing queues up. After a restart
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

pub use speak::{caller, origin, plain};

/// The first pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often Alertmanager is told again what still fires (it resolves what it no longer hears of), and time is looked at.
const RESEND: Duration = Duration::from_secs(60);

/// Some kilobytes each: servers before an Alertmanager take a megabyte at least.
const ALERTS_A_POST: usize = 50;

/// How long after a change the board is looked at: hundreds of windows a second must not be hundreds of looks at every run.
const PACE: Duration = Duration::from_millis(250);

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Receiver {
    /// Any HTTP server, as Alertmanager itself would call it (payload version 4), once for each change of a run.
    Webhook,
    /// Alertmanager's own interface (v2), all that fires at once, again every minute.
    Alertmanager,
}

/// One receiver, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct NotifyTarget {
    /// What it understands.
    pub receiver: Receiver,
    /// Where it is. May hold a secret: only host and port are ever printed.
    pub url: Url,
    /// Where people reach this service, for links.
    pub external_url: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Tells `target` of everything on the board until `stopped` says so; then tries once more.
pub async fn run(
    target: NotifyTarget,
    board: Arc<Board>,
    service: Arc<ServiceMetrics>,
    now: fn() -> Timestamp,
    mut stopped: watch::Receiver<bool>,
) {
    let client = match caller(&target.url, target.timeout).redirect(Policy::none()).build() {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "no {} is told: TLS cannot be set up", target.receiver.word()),
    };
    let mut changes = board.changes();
    let mut ledger = AlertLedger::default();
    let (mut pause, mut told_at) = (None, None);
    loop {
        changes.borrow_and_update();
        let at = now();
        let dropped = ledger.observe(firing(&board), at);
        service.notified(target.receiver.word(), "dropped", dropped);
        // By the clock, not by what woke this: on a busy board that is never time alone.
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
                    "an alert could not be delivered; it is sent again"
                );
                Some(pause)
            }
        };
        let again = pause.or((repeats || ledger.waits()).then_some(RESEND));
        // A receiver that fails is not asked more often because more happens.
        if wait(&mut changes, pause.is_none(), again, &mut stopped).await {
            break;
        }
    }
    let dropped = ledger.observe(firing(&board), now());
    service.notified(target.receiver.word(), "dropped", dropped);
    if let Err(error) = tell(&client, &target, &mut ledger, now(), &service).await {
        service.notified(target.receiver.word(), "failed", 1);
        tracing::error!(receiver = target.receiver.word(), to = origin(&target.url), %error, "the last alerts were not delivered");
    }
}

/// Until the board changes (if `listen`), time is over, or it is to stop, which is true.
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

/// Why a post was not taken.
struct Refused {
    why: String,
    /// Nobody answered: the next post would wait as long.
    silent: bool,
}

/// Sends what is due; what was taken is written down at once, and what one post holds up holds up no other.
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
            // Four times as long as until the next.
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

/// User and password in the address go into the header; reqwest sees to it.
async fn post(client: &reqwest::Client, url: Url, body: &serde_json::Value) -> Result<(), Refused> {
    let answer = client.post(url).json(body).send().await;
    let answer = answer.map_err(|error| Refused { why: plain(&error.without_url()), silent: true })?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(Refused { why: format!("it answered {status}"), silent: false }) }
}
