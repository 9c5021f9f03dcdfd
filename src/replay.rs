//! `fullrank replay FILE`: pushes recorded embeddings over HTTP as a trainer would.
//!
//! A recording is a safetensors file of tensors named `WWW.z1` (WWW: the window's place, three digits or more), whose
//! metadata has `run`, `method`, `layer` and `windows`, a JSON list of {"window", "step", "loss"}. Any other .npy or
//! .safetensors file is one window.
//!
//! Guarantees: each window is judged before the next is sent. Must not: change what was recorded.

use std::path::Path;

use bytes::Bytes;
use kernels::word::Word;
use reqwest::Method;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::analysis::verdict::VerdictReason;
use crate::client::{Client, RequestParts};
use crate::wire::views::PublishedVerdict;

/// The layer of a recording that does not name one.
const LAYER: &str = "projector";

/// Parameters of a push that a recording may hold for each window.
const OF_WINDOW: [&str; 2] = ["step", "loss"];

/// The pushes of one run.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    /// The run to push to.
    pub run: String,
    /// The layer to push to.
    pub layer: String,
    /// One push per window, in order.
    pub pushes: Vec<RequestParts>,
}

/// Values from the command line, for recordings without their own.
#[derive(Clone, Debug, Default)]
pub struct ReplayOverrides {
    /// The run; by default the recording's, or the file's name.
    pub run: Option<String>,
    /// The layer; by default the recording's, or `projector`.
    pub layer: Option<String>,
    /// The method; by default the recording's.
    pub method: Option<String>,
}

/// Reads the recordings in files; files that hold one window each make one run together, in order.
///
/// # Errors
/// What is wrong with a file, which is named.
pub(crate) fn read(paths: &[impl AsRef<Path>], overrides: &ReplayOverrides) -> Result<Vec<Recording>, String> {
    let mut recordings: Vec<Recording> = Vec::new();
    let mut single: Option<Recording> = None;
    for path in paths {
        let path = path.as_ref();
        let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = Bytes::from(std::fs::read(path).map_err(|error| fail(&error))?);
        if let Some(recording) = recording(&bytes, overrides).map_err(|error| fail(&error))? {
            recordings.push(recording);
            continue;
        }
        let name = path.file_stem().map_or("replay".into(), |stem| stem.to_string_lossy().into_owned());
        let single = single.get_or_insert_with(|| Recording {
            run: overrides.run.clone().unwrap_or_else(|| named(&name)),
            layer: overrides.layer.clone().unwrap_or_else(|| LAYER.to_string()),
            pushes: Vec::new(),
        });
        let window = single.pushes.len().to_string();
        let mut query = vec![("window".to_string(), window)];
        query.extend(overrides.method.clone().map(|method| ("method".to_string(), method)));
        let kind = if bytes.starts_with(b"\x93NUMPY") { "application/x-npy" } else { "application/x-safetensors" };
        single.pushes.push(RequestParts { query, body: Some((kind, bytes)) });
    }
    recordings.extend(single);
    Ok(recordings)
}

fn named(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' }).take(128).collect()
}

/// A recording of several windows, if it is one.
pub(crate) fn recording(bytes: &[u8], overrides: &ReplayOverrides) -> Result<Option<Recording>, String> {
    if bytes.starts_with(b"\x93NUMPY") {
        return Ok(None);
    }
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| format!("expected npy or safetensors: {error}"))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let Some(windows) = metadata.get("windows") else { return Ok(None) };
    let windows: Vec<Value> =
        serde_json::from_str(windows).map_err(|error| format!("its metadata `windows`: {error}"))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let of = |given: &Option<String>, name: &str| given.clone().or_else(|| metadata.get(name).cloned());
    let run = of(&overrides.run, "run").ok_or("it names no run: give --run")?;
    let method = of(&overrides.method, "method");
    let mut pushes = Vec::new();
    for entry in &windows {
        let window = entry["window"].as_u64().ok_or_else(|| format!("a window without a number: {entry}"))?;
        let prefix = format!("{window:03}.");
        let mut own: Vec<_> =
            tensors.iter().filter_map(|(name, view)| Some((name.strip_prefix(&prefix)?.to_string(), view))).collect();
        own.sort_by(|a, b| a.0.cmp(&b.0));
        if own.is_empty() {
            return Err(format!("it lists window {window}, but has no tensor {prefix}z"));
        }
        let body = safetensors::serialize(own, None).map_err(|error| error.to_string())?;
        let mut query = vec![("window".to_string(), window.to_string())];
        query.extend(method.clone().map(|method| ("method".to_string(), method)));
        let numbers = OF_WINDOW.iter().filter(|name| entry[**name].is_number());
        query.extend(numbers.map(|name| ((*name).to_string(), entry[*name].to_string())));
        pushes.push(RequestParts { query, body: Some(("application/x-safetensors", body.into())) });
    }
    Ok(Some(Recording { run, layer: of(&overrides.layer, "layer").unwrap_or_else(|| LAYER.to_string()), pushes }))
}

/// Pushes the recording, window by window; `pushed` is called after each. Returns the run's verdict at the end.
///
/// # Errors
/// If the service cannot be reached or refuses a push.
pub(crate) async fn push(
    client: &Client,
    recording: &Recording,
    pushed: &dyn Fn(),
) -> Result<PublishedVerdict, String> {
    let (run, layer) = (recording.run.as_str(), recording.layer.as_str());
    for sent in &recording.pushes {
        let mut sent = sent.clone();
        sent.query.extend([("last", "true"), ("wait", "true")].map(|(name, value)| (name.into(), value.into())));
        client.call(Method::POST, &["v1", "runs", run, "layers", layer, "batches"], sent).await?;
        pushed();
    }
    client.get(&["v1", "runs", run, "verdict"], &[]).await
}

/// The verdict in one line.
pub(crate) fn sentence(published: &PublishedVerdict) -> String {
    let verdict = &published.verdict;
    let reason =
        |reason: &VerdictReason| format!("{} {:.3} (threshold {:.3})", reason.measure, reason.value, reason.threshold);
    let reasons: Vec<String> = verdict.reasons.iter().map(reason).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(", {}", reasons.join(", ")) };
    let (run, since) = (&published.run, published.since_window.unwrap_or(0));
    let (state, cause) = (verdict.state.word(), verdict.cause.word());
    format!("  {run:<26} {state:<10} since window {since}: cause {cause}{why}")
}
