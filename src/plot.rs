//! Draws the spectrum of a report: eigenvalues over components, both logarithmic, and the noise floor.
//!
//! Must not: compute; it draws what the report says.

use std::path::Path;

use kernels::word::Word;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::analysis::report::FullReport;

const SIZE: (u32, u32) = (960, 600);

/// DejaVu Sans, Latin letters only: texts are measured, and in bitmaps drawn, with our own font, so the machine needs
/// none. An SVG names sans-serif, and the viewer uses its own.
const FONT: &[u8] = include_bytes!("plot/dejavu-sans-latin.ttf");

/// Colours that are distinguishable without telling red from green (Okabe and Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Draws the spectra of `reports` into `path`, as .svg or .png by its extension.
///
/// # Errors
/// If the extension is another, no report has a spectrum, or the file cannot be written.
pub(crate) fn draw(path: &Path, reports: &[FullReport]) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("--plot {}: {error}", path.display());
    register_font("sans-serif", FontStyle::Normal, FONT).map_err(|_| fail(&"its font cannot be read"))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => {
            let mut text = String::new();
            on(SVGBackend::with_string(&mut text, SIZE).into_drawing_area(), reports).map_err(|error| fail(&error))?;
            std::fs::write(path, text).map_err(|error| fail(&error))
        }
        Some("png") => on(BitMapBackend::new(path, SIZE).into_drawing_area(), reports).map_err(|error| fail(&error)),
        _ => Err(fail(&"the file must end in .svg or .png")),
    }
}

/// Draws the whole picture on `area`.
fn on<B: DrawingBackend>(area: DrawingArea<B, Shift>, reports: &[FullReport]) -> Result<(), String> {
    let spectra: Vec<(&FullReport, Vec<(f64, f64)>)> = reports.iter().map(|report| (report, points(report))).collect();
    let all = || spectra.iter().flat_map(|(_, points)| points);
    let floors = reports.iter().filter_map(|report| report.report.measures.noise_floor).filter(|floor| *floor > 0.0);
    let lowest = all().map(|(_, value)| *value).chain(floors).fold(f64::INFINITY, f64::min);
    let (widest, highest) = all().fold((2.0f64, 0.0f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
    if highest == 0.0 {
        return Err("there is no spectrum to draw: every eigenvalue is zero or undefined".to_string());
    }
    let text = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
    area.fill(&WHITE).map_err(text)?;
    let title = match reports {
        [one] => {
            let verdict = &one.report.verdict;
            format!("{}: {}, cause {}", one.report.layer, verdict.state.word(), verdict.cause.word())
        }
        _ => format!("{} spectra", reports.len()),
    };
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((1.0..widest).log_scale(), (lowest / 2.0..highest * 2.0).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("component")
        .y_desc("eigenvalue of the covariance")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .label_style(("sans-serif", 14))
        .draw()
        .map_err(text)?;
    for ((report, points), colour) in spectra.iter().zip(COLOURS.iter().cycle()) {
        let label = format!("{} ({} x {})", report.report.layer, report.report.rows, report.report.dim);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
            .map_err(text)?
            .label(label)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        if let Some(floor) = report.report.measures.noise_floor.filter(|floor| *floor > 0.0) {
            let line = DashedLineSeries::new([(1.0, floor), (widest, floor)], 6, 4, colour.stroke_width(1));
            chart
                .draw_series(line)
                .map_err(text)?
                .label("noise floor")
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(1)));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(text)?;
    area.present().map_err(text)
}

/// (component, eigenvalue), those above zero.
fn points(report: &FullReport) -> Vec<(f64, f64)> {
    let values = report.eigenvalues().unwrap_or_default().iter().enumerate();
    values.filter(|(_, value)| **value > 0.0).map(|(k, value)| ((k + 1) as f64, *value)).collect()
}
