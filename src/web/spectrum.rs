//! A layer's spectrum as JSON, npy or csv, as the Accept header asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;

use super::api::{on_disk, unreadable};
use super::site::Site;
use crate::analysis::decode::npy;
use crate::analysis::report::FullReport;
use crate::error::{Code, Refusal};
use crate::wire::extract::{Fields, Segments};
use crate::wire::views::{self, SpectrumAnswer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpectrumQuery {
    window: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum SpectrumFormat {
    Json,
    Npy,
    Csv,
}

pub(crate) async fn spectrum(
    State(site): State<Site>,
    Segments((run, layer)): Segments<(String, String)>,
    Fields(which): Fields<SpectrumQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let form = form(&headers)?;
    let published = find(&site, &run, &layer, which.window).await?;
    match form {
        SpectrumFormat::Json => Ok(Json(SpectrumAnswer::from(&*published)).into_response()),
        SpectrumFormat::Csv => Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&published)).into_response()),
        SpectrumFormat::Npy => {
            Ok(([(CONTENT_TYPE, "application/x-npy")], npy::encode_vector(published.eigenvalues().unwrap_or_default()))
                .into_response())
        }
    }
}

pub(crate) async fn find(site: &Site, run: &str, layer: &str, window: Option<u64>) -> Result<Arc<FullReport>, Refusal> {
    views::known_layer(site.board(), run, layer)?;
    let (site, names) = (site.clone(), (run.to_string(), layer.to_string()));
    let found = on_disk(move || site.history().newest(&names.0, &names.1, window))
        .await?
        .map_err(|error| unreadable(&error))?;
    found.ok_or_else(|| {
        let which = window.map_or("no window".to_string(), |window| format!("no window {window}"));
        Refusal::new(Code::NotFound, format!("layer {layer} of run {run} has {which} that is closed"))
    })
}

fn csv(published: &FullReport) -> String {
    let mut text = String::from("component,eigenvalue,above_noise_floor\n");
    let floor = published.report.measures.noise_floor.unwrap_or(0.0);
    for (index, value) in published.eigenvalues().unwrap_or_default().iter().enumerate() {
        text.push_str(&format!("{},{value:e},{}\n", index + 1, u8::from(*value > floor)));
    }
    text
}

/// The first form that the client accepts, in its order of preference.
fn form(headers: &HeaderMap) -> Result<SpectrumFormat, Refusal> {
    let Some(accept) = headers.get(ACCEPT) else { return Ok(SpectrumFormat::Json) };
    let text = accept.to_str().unwrap_or("");
    let mut choices: Vec<(f32, &str)> = text
        .split(',')
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("");
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            (quality, kind)
        })
        .collect();
    choices.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, kind) in choices.iter().filter(|(quality, _)| *quality > 0.0) {
        match kind.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" | "" => return Ok(SpectrumFormat::Json),
            "application/x-npy" => return Ok(SpectrumFormat::Npy),
            "text/csv" | "text/*" => return Ok(SpectrumFormat::Csv),
            _ => {}
        }
    }
    Err(Refusal::new(
        Code::NotAcceptable,
        format!(
            "a spectrum cannot be sent as '{}': accept application/json, application/x-npy or text/csv",
            text.escape_debug()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            form(&headers).ok()
        };
        assert_eq!(of("text/csv"), Some(SpectrumFormat::Csv));
        assert_eq!(of("text/html;q=0.5, application/x-npy;q=0.9, */*;q=0.1"), Some(SpectrumFormat::Npy));
        assert_eq!(of("text/html, */*;q=0.8"), Some(SpectrumFormat::Json));
        assert_eq!(of("image/png"), None);
        assert_eq!(form(&HeaderMap::new()).ok(), Some(SpectrumFormat::Json));
    }
}
