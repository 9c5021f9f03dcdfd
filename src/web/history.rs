//! A layer's history in columns, and its spectra by window: only what a chart needs of a long run.
//!
//! Guarantees: the size of the answer does not grow with the history. Must not: judge, or average windows.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{on_disk, unreadable};
use super::site::Site;
use crate::analysis::{measures, methods};
use crate::error::{Code, Refusal};
use crate::publish::{HistoryPoint, HistoryPoints, PointsQuery};
use crate::wire::extract::{Fields, Segments};
use crate::wire::views;

/// Most windows of one history.
const MAX_POINTS: usize = 2000;
/// Most windows in one answer with spectra, and components of each.
const MAX_SPECTRA: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryQuery {
    from: Option<u64>,
    to: Option<u64>,
    points: Option<usize>,
    measures: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpectraQuery {
    from: Option<u64>,
    to: Option<u64>,
    points: Option<usize>,
    components: Option<usize>,
}

pub(crate) async fn history(
    State(site): State<Site>,
    Segments((run, layer)): Segments<(String, String)>,
    Fields(asked): Fields<HistoryQuery>,
) -> Result<Json<Value>, Refusal> {
    let names = names(asked.measures.as_deref())?;
    let most = within("points", asked.points.unwrap_or(400), MAX_POINTS)?;
    let query = PointsQuery { from: asked.from.unwrap_or(0), to: asked.to.unwrap_or(u64::MAX), most, spectra: false };
    let course = find(&site, &run, &layer, query).await?;
    let column = |pointer: &str| -> Value {
        course.windows.iter().map(|window| window.report.pointer(pointer).cloned().unwrap_or(Value::Null)).collect()
    };
    let columns: Map<String, Value> = names.into_iter().map(|(name, pointer)| (name, column(&pointer))).collect();
    Ok(Json(json!({
        "run": run, "layer": layer, "total": course.total,
        "windows": column("/window"), "revisions": column("/revision"), "steps": column("/step"), "rows": column("/rows"),
        "losses": column("/loss"), "states": column("/verdict/state"), "estimated": column("/computed/estimated"),
        "measures": columns,
    })))
}

pub(crate) async fn spectra(
    State(site): State<Site>,
    Segments((run, layer)): Segments<(String, String)>,
    Fields(asked): Fields<SpectraQuery>,
) -> Result<Json<Value>, Refusal> {
    let points = within("points", asked.points.unwrap_or(64), MAX_SPECTRA)?;
    let most = within("components", asked.components.unwrap_or(128), MAX_SPECTRA)?;
    let query =
        PointsQuery { from: asked.from.unwrap_or(0), to: asked.to.unwrap_or(u64::MAX), most: points, spectra: true };
    let course = find(&site, &run, &layer, query).await?;
    // Off the threads that serve sockets: 256 spectra of 16,384 values are 33 MB.
    on_disk(move || Json(spectra_value(&run, &layer, &course, most))).await
}

fn spectra_value(run: &str, layer: &str, course: &HistoryPoints, most: usize) -> Value {
    let of = |pointer: &str| -> Value {
        course.windows.iter().map(|window| window.report.pointer(pointer).cloned().unwrap_or(Value::Null)).collect()
    };
    let dim = course.windows.last().and_then(|window| window.report["dim"].as_u64()).unwrap_or(0) as usize;
    let components = components(dim, most);
    let pick = |values: Option<Vec<f64>>, digits: usize| -> Value {
        let Some(values) = values else { return Value::Null };
        components.iter().map(|c| values.get(c - 1).map(|v| rounded(*v, digits))).collect()
    };
    let eigenvalues: Value = course.windows.iter().map(|window| pick(window.eigenvalues.clone(), 4)).collect();
    let cumulative: Value = course.windows.iter().map(|window| pick(cumulative(window, dim), 5)).collect();
    json!({
        "run": run, "layer": layer, "dim": dim, "total": course.total, "windows": of("/window"),
        "revisions": of("/revision"), "states": of("/verdict/state"), "noise_floors": of("/measures/noise_floor"),
        "components": components, "eigenvalues": eigenvalues, "cumulative": cumulative,
    })
}

/// The share of the variance that the first eigenvalues hold. An estimated spectrum has only the first ones, so their
/// sum is not the variance.
fn cumulative(window: &HistoryPoint, dim: usize) -> Option<Vec<f64>> {
    let values = window.eigenvalues.as_ref()?;
    let total = match window.report["measures"]["total_variance"].as_f64() {
        Some(total) if values.len() < dim => total,
        _ => values.iter().map(|value| value.max(0.0)).sum(),
    };
    let mut sum = 0.0;
    let shares = values.iter().map(|value| {
        sum += value.max(0.0);
        sum / total
    });
    (total > 0.0).then(|| shares.collect())
}

/// All components, or `most` of them, denser at the start, where a spectrum has its shape.
fn components(dim: usize, most: usize) -> Vec<usize> {
    if dim <= most {
        return (1..=dim).collect();
    }
    let at = |i: usize| ((dim as f64).powf(i as f64 / (most - 1).max(1) as f64).round() as usize).clamp(1, dim);
    let mut chosen: Vec<usize> = (0..most).map(at).collect();
    chosen.dedup();
    chosen
}

/// Rounds to the digits that a chart can show.
fn rounded(value: f64, digits: usize) -> f64 {
    format!("{value:.*e}", digits - 1).parse().unwrap_or(value)
}

async fn find(site: &Site, run: &str, layer: &str, query: PointsQuery) -> Result<HistoryPoints, Refusal> {
    views::known_layer(site.board(), run, layer)?;
    let (site, run, layer) = (site.clone(), run.to_string(), layer.to_string());
    on_disk(move || site.history().points(&run, &layer, query)).await?.map_err(|error| unreadable(&error))
}

fn within(name: &str, value: usize, limit: usize) -> Result<usize, Refusal> {
    if (1..=limit).contains(&value) {
        return Ok(value);
    }
    Err(Refusal::over(Code::Malformed, format!("{name} is {value}: it must be 1 to {limit}"), limit as u64))
}

/// The requested names and their places in a report; without any, every scalar measure.
fn names(asked: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let Some(asked) = asked else {
        return Ok(measures::TABLE
            .iter()
            .map(|(name, _)| ((*name).to_string(), format!("/measures/{name}")))
            .collect());
    };
    let place = |name: &str| -> Option<String> {
        if measures::TABLE.iter().any(|(known, _)| *known == name) {
            return Some(format!("/measures/{name}"));
        }
        let (group, diagnostic) = name.split_once('.')?;
        let (_, known) = methods::TABLE.iter().find(|(known, _)| *known == group)?;
        known.iter().any(|(known, _, _)| *known == diagnostic).then(|| format!("/methods/{group}/{diagnostic}"))
    };
    let found = asked.split(',').map(|name| {
        let pointer = place(name).ok_or_else(|| {
            let what = format!("'{}' is not a measure or a group.diagnostic", name.escape_debug());
            Refusal::new(Code::Malformed, format!("{what}; /openapi.json lists the measures"))
        })?;
        Ok((name.to_string(), pointer))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_bounded_and_reach_the_ends() {
        for (dim, most) in [(0, 8), (1, 1), (64, 128), (16_384, 128), (129, 128), (500, 1)] {
            let chosen = components(dim, most);
            assert!(chosen.len() <= most.max(dim.min(most)), "{dim} {most}");
            assert!(chosen.iter().all(|c| (1..=dim).contains(c)));
            assert!(chosen.is_sorted());
        }
        assert_eq!(components(16_384, 128).last(), Some(&16_384));
        assert_eq!(rounded(1.234_56e-7, 4), 1.235e-7);
    }
}
