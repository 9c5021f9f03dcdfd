//! The read side over gRPC: the same answers as over HTTP.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::api::{arrived, close_now, on_disk, unreadable};
use super::site::Site;
use super::spectrum;
use crate::analysis::report::{FullReport, Report};
use crate::error::{Code, Refusal};
use crate::wire::{proto, views};

/// How many reports are read from the history at a time.
const LISTED: usize = 100;
/// A client must accept a report within this time.
const STALL: Duration = Duration::from_secs(30);

fn messages(reports: &[Arc<FullReport>]) -> Vec<proto::Report> {
    reports.iter().map(|report| proto::Report::from(&**report)).collect()
}

pub(crate) async fn close_window(
    site: &Site,
    asked: proto::CloseWindowRequest,
) -> Result<proto::CloseWindowResponse, Refusal> {
    let reports = close_now(site, &asked.run, asked.window).await?;
    Ok(proto::CloseWindowResponse { reports: messages(&reports) })
}

/// Ends a run and waits for the reports of its open windows.
pub(crate) async fn finish_run(
    site: &Site,
    asked: proto::FinishRunRequest,
) -> Result<proto::FinishRunResponse, Refusal> {
    let pipeline = Arc::clone(&site.pipeline);
    let reports = on_disk(move || pipeline.finish(&asked.run, Timestamp::now())).await??;
    Ok(proto::FinishRunResponse { reports: messages(&arrived(reports).await) })
}

pub(crate) async fn acknowledge(site: &Site, asked: proto::AcknowledgeRequest) -> Result<proto::Verdict, Refusal> {
    let (pipeline, run) = (Arc::clone(&site.pipeline), asked.run.clone());
    on_disk(move || pipeline.acknowledge(&run)).await??;
    get_verdict(site, &asked.run)
}

pub(crate) fn list_runs(site: &Site) -> proto::ListRunsResponse {
    let runs = views::runs(site.board()).runs;
    proto::ListRunsResponse { runs: runs.into_iter().map(Into::into).collect() }
}

pub(crate) fn get_verdict(site: &Site, run: &str) -> Result<proto::Verdict, Refusal> {
    Ok(views::verdict(site.board(), run)?.into())
}

pub(crate) async fn get_spectrum(site: &Site, asked: proto::GetSpectrumRequest) -> Result<proto::Spectrum, Refusal> {
    let full = spectrum::find(site, &asked.run, &asked.layer, asked.window).await?;
    Ok(proto::Spectrum::from(&*full))
}

pub(crate) fn list_reports(
    site: &Site,
    asked: proto::ListReportsRequest,
) -> Result<ReceiverStream<Result<proto::Report, Status>>, Refusal> {
    views::known_layer(site.board(), &asked.run, &asked.layer)?;
    let (sender, receiver) = mpsc::channel(16);
    let windows = asked.from.unwrap_or(0)..=asked.to.unwrap_or(u64::MAX);
    let site = site.clone();
    tokio::spawn(async move {
        if let Err(refusal) = send_reports(&site, &asked.run, &asked.layer, windows, &sender).await {
            // The client may be gone; then nobody needs the error.
            let _ = sender.send(Err(refusal.into())).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Sends stored reports, page by page; ends if a client accepts none for a while, or when the service drains.
async fn send_reports(
    site: &Site,
    run: &str,
    layer: &str,
    windows: RangeInclusive<u64>,
    sender: &Sender<Result<proto::Report, Status>>,
) -> Result<(), Refusal> {
    let mut next = Some(*windows.start());
    while let Some(start) = next.filter(|_| !site.pipeline.admission.is_draining()) {
        let (history, range) = (Arc::clone(site.history()), start..=*windows.end());
        let (run, layer) = (run.to_string(), layer.to_string());
        let page =
            on_disk(move || history.reports(&run, &layer, range, LISTED)).await?.map_err(|error| unreadable(&error))?;
        for text in page.reports {
            let report: Report = serde_json::from_str(&text)
                .map_err(|error| Refusal::new(Code::Internal, format!("a stored report: {error}")))?;
            if sender.send_timeout(Ok(proto::Report::new(&report, text)), STALL).await.is_err() {
                return Ok(());
            }
        }
        next = page.next;
    }
    Ok(())
}

/// The verdict of a run now, and again whenever it changes; of every run if `run` is empty.
pub(crate) fn watch_verdicts(
    site: &Site,
    run: String,
) -> Result<ReceiverStream<Result<proto::Verdict, Status>>, Refusal> {
    if !run.is_empty() {
        views::run_view(site.board(), &run)?;
    }
    let (sender, receiver) = mpsc::channel(16);
    let site = site.clone();
    tokio::spawn(async move { send_verdicts(&site, &run, &sender).await });
    Ok(ReceiverStream::new(receiver))
}

async fn send_verdicts(site: &Site, run: &str, sender: &Sender<Result<proto::Verdict, Status>>) {
    let board = site.board();
    let mut changes = board.changes();
    let mut sent = HashMap::new();
    while !site.pipeline.admission.is_draining() {
        let runs = if run.is_empty() { board.runs().into_keys().collect() } else { vec![run.to_string()] };
        for name in runs {
            let Ok(verdict) = get_verdict(site, &name) else { continue };
            let key = (verdict.state.clone(), verdict.current_state.clone(), verdict.cause.clone());
            if sent.insert(name, key.clone()) != Some(key) && sender.send(Ok(verdict)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}
