//! The rows for the table of measures: related measures share a panel, with the null (the value for isotropic noise) to
//! compare with.
//!
//! Guarantees: a measure without a panel here gets its own in a last row.

use super::panel::{Panel, Row};
use fullrank::analysis::measures::TABLE;

/// The legend of a panel with one series per layer.
const ONE: &str = "{{run}} {{layer}}";

/// Open rows, then closed ones.
pub(super) fn rows() -> Vec<Row> {
    let row = |title: &str, collapsed, panels| Row { title: title.to_string(), collapsed, panels };
    let mut rows = vec![
        row("Ranks against their nulls: dimensional collapse", false, ranks()),
        row("Scale: complete collapse", false, scale()),
        row("Spectrum", false, spectrum()),
        row("Uniformity, and views of one sample", false, uniformity()),
        row("Coordinates, rows and noise floors", true, rows_and_floors()),
    ];
    let text: String = rows.iter().flat_map(|row| &row.panels).flat_map(Panel::expressions).collect();
    let named = |name: &str| text.contains(&format!("fullrank_{name}{{"));
    let rest: Vec<Panel> =
        TABLE.iter().filter(|(name, _)| !named(name)).map(|(name, help)| other(name, help)).collect();
    if !rest.is_empty() {
        rows.push(row("Other measures", true, rest));
    }
    rows
}

fn other(name: &str, help: &str) -> Panel {
    let read = "docs/metrics.md has its definition, its null and its pitfalls.";
    lines(name, "short", &[name]).reads(help, read, "compare with a healthy run.")
}

/// Measures over time, with their names if there are several.
fn lines(title: &str, unit: &str, measures: &[&str]) -> Panel {
    measures.iter().fold(Panel::lines(title, unit), |panel, name| {
        let legend = if measures.len() == 1 { ONE.to_string() } else { format!("{ONE} {name}") };
        panel.query(&format!("fullrank_{name}{{L}}"), &legend)
    })
}

fn ranks() -> Vec<Panel> {
    vec![
        lines("Entropy rank against its null", "short", &["entropy_rank", "diagonal_entropy_rank"])
            .compare("fullrank_entropy_rank_null{L}", "{{run}} {{layer}} null")
            .reads(
                "exp of the entropy of the eigenvalue shares: how many directions hold the variance. \
                 `diagonal_entropy_rank` is an upper bound that needs no eigenvalues. Null: `entropy_rank_null`, dashed, the \
                 value for isotropic noise at this N and d.",
                "level or rising; a part of the null is enough.",
                "dimensional collapse: falls to 1. Complete collapse does not show: the noise left around a point has a rank too.",
            ),
        Panel::lines("Rank over its null", "percentunit")
            .spanning(0.0, 1.0)
            .query("(fullrank_entropy_rank{L} - 1) / (fullrank_entropy_rank_null{L} - 1)", ONE)
            .reads(
                "(entropy_rank - 1) / (entropy_rank_null - 1). Null: 100 %.",
                "level or rising.",
                "dimensional collapse: falls to 0. The verdict's thresholds are in `computed.thresholds` of each report.",
            ),
        lines("Stable rank against its null", "short", &["stable_rank", "stable_rank_corrected"])
            .compare("fullrank_stable_rank_null{L}", "{{run}} {{layer}} null")
            .reads(
                "Participation ratio; `stable_rank_corrected` removes its bias for few rows. Null: `stable_rank_null`, dashed; \
                 d for the corrected one.",
                "level or rising.",
                "dimensional collapse: falls to 1. It reacts to the largest eigenvalues before the entropy rank does.",
            ),
        lines("RankMe", "short", &["rankme"]).reads(
            "RankMe (Garrido et al. 2023), uncentred, epsilon 1e-7. Null: a little under min(N, d).",
            "level or rising.",
            "dimensional collapse: falls. Complete collapse: falls to 1, because it is uncentred.",
        ),
        lines("Intrinsic dimension and numerical rank", "short", &["intrinsic_dimension", "numerical_rank"]).reads(
            "Trace over the largest eigenvalue; eigenvalues above the noise floor. Nulls: a large part of d; min(N - 1, d).",
            "level. The numerical rank falls late: it may be full in a collapsing run.",
            "dimensional collapse: falls to 1; the numerical rank follows.",
        ),
        lines("Rows behind the nulls", "short", &["effective_rows"])
            .query("fullrank_report_rows{L}", "{{run}} {{layer}} rows")
            .query("fullrank_approximate{L}", "{{run}} {{layer}} approximate")
            .reads(
                "Degrees of freedom of the nulls (N - 1 for one view), and pooled rows of the newest window. `approximate` is 1 \
                 if ranks are estimates, because the spectrum was too large to solve.",
                "well above d; the same in every window.",
                "with fewer than 16 samples the dimension axis is not judged. If the number changes, the ranks change with their null.",
            ),
    ]
}

fn scale() -> Vec<Panel> {
    vec![
        lines("scaled_std", "short", &["scaled_std"]).spanning(0.0, 1.0).reads(
            "Spread of unit rows by coordinate, times sqrt(d). Null: 1.",
            "near 1; healthy SimSiam 0.65 to 0.8.",
            "complete collapse: falls to 0. A rotated low rank does not show.",
        ),
        lines("Mean cosine of different samples", "short", &["mean_cosine"]).spanning(0.0, 1.0).reads(
            "Null: 0; values below are possible. After a ReLU a healthy layer lies in a cone.",
            "near 0. An untrained network begins near 1 and leaves it.",
            "complete collapse: rises to 1.",
        ),
        lines("Centre and residual of unit rows", "short", &["center_norm", "residual_norm"])
            .spanning(0.0, 1.0)
            .compare("1 / sqrt(fullrank_effective_rows{L} + 1)", "{{run}} {{layer}} center_norm null")
            .reads(
                "Length of the mean unit row, and sqrt(1 - its square). Nulls: 1/sqrt(N), dashed; 1.",
                "the centre near its null, the residual near 1.",
                "complete collapse: the centre rises to 1, the residual falls to 0.",
            ),
        lines("Relative variance", "short", &["relative_variance"]).spanning(0.0, 1.0).reads(
            "Variance over variance plus squared mean, rows as sent. Null: 1.",
            "level, far from 0.",
            "complete collapse: falls to 0.",
        ),
        lines("Total variance against the noise floor", "short", &["total_variance"])
            .log()
            .compare("fullrank_noise_floor{L}", "{{run}} {{layer}} noise floor")
            .reads(
                "Trace of the covariance, in squared units of the embedding, and the floor below which variance is rounding.",
                "level, at the scale of your embeddings.",
                "complete collapse: falls to the floor. If only the scale shrinks, it may be weight decay: see scaled_std.",
            ),
        lines("Length of a sample's view mean", "short", &["view_mean_norm"]).spanning(0.0, 1.0).reads(
            "Mean norm of the mean of a sample's unit views; needs two views or more.",
            "rises as views align: 1 is full agreement.",
            "1 together with a mean cosine of 1: all samples agree, not only views of one sample.",
        ),
    ]
}

fn spectrum() -> Vec<Panel> {
    vec![
        lines("Eigenvalues by component", "short", &[])
            .wide(16)
            .high(12)
            .log()
            .query("fullrank_eigenvalue{L} > 0", "{{run}} {{layer}} {{component}}")
            .compare("fullrank_noise_floor{L}", "{{run}} {{layer}} noise floor")
            .reads(
                "Eigenvalues of the covariance, components 1 to 8 and then two per octave; choose one run and layer. Null: all \
                 nearly equal for many rows. Dashed: the floor below which they are rounding.",
                "the lines stay together, at most a few decades apart.",
                "dimensional collapse: the lines spread, and the lower ones fall to the floor. Complete collapse: all fall together.",
            ),
        Panel::lines("Components that hold the variance", "short")
            .high(12)
            .query("fullrank_components_for_variance{L}", "{{run}} {{layer}} {{share}}")
            .reads(
                "Least number of leading eigenvalues that hold 50, 90, 95 and 99 % of the variance.",
                "level or rising.",
                "dimensional collapse: falls to 1, the 50 % first.",
            ),
        lines("Tail: decades from the first eigenvalue", "short", &[
            "log10_top_to_median",
            "log10_top_to_last",
            "log10_top_to_tenth",
        ])
        .reads(
            "Decades from the first to the median, the last and the tenth eigenvalue. Null of the median: 0.4 at N = 256, d = 64.",
            "to the median up to 3.7 in healthy runs, and level.",
            "dimensional collapse: it grows. Three dead units are enough to move the value for the last eigenvalue: trust the median.",
        ),
        lines("ln of the first over the last eigenvalue", "short", &["ln_first_to_last"]).reads(
            "Defined if N > d.",
            "level.",
            "grows, even if only a single unit is dead: compare with the median in the panel next to it.",
        ),
        lines("alpha", "short", &["alpha"]).reads(
            "Power-law exponent of eigenvalues 11 to 100 (alpha-ReQ). Null: 0 for many rows, 0.8 at N = 256, d = 64.",
            "level; values near 1 are often good in trained networks.",
            "dimensional collapse: grows.",
        ),
        lines("Area under the explained variance", "short", &["cumulative_variance_area"]).spanning(0.5, 1.0).reads(
            "Null: 0.5, a flat spectrum.",
            "level.",
            "dimensional collapse: rises to 1.",
        ),
    ]
}

fn uniformity() -> Vec<Panel> {
    vec![
        lines("Uniformity", "short", &["uniformity"]).reads(
            "ln of the mean Gaussian potential of unit rows (Wang and Isola 2020). Null: about -4 + 8/d.",
            "near its null.",
            "complete collapse: rises to 0. It hardly moves in a dimensional collapse: see the ranks.",
        ),
        lines("Distance from uniform (W2)", "short", &["w2_uniformity"]).reads(
            "Wasserstein-2 distance of unit rows from uniform (Fang et al. 2024). Null: 0, more if N < d.",
            "level; healthy BYOL and SimSiam near 1.2.",
            "complete collapse: rises to 1.41.",
        ),
        lines("Views against other samples", "short", &["positive_cosine", "signal_gap"])
            .compare("fullrank_mean_cosine{L}", "{{run}} {{layer}} mean_cosine")
            .reads(
                "Mean cosine of two views of one sample, of different samples (dashed), and the gap between them.",
                "a gap well above 0.",
                "no alignment: the gap is 0 and both cosines are low. Complete collapse: the gap is 0 and both are 1.",
            ),
        lines("Alignment", "short", &["alignment"]).reads(
            "Mean squared distance of two views of one sample. Null: 2.",
            "falls, while mean_cosine stays low.",
            "0 with a mean cosine of 1: the views agree because all samples do.",
        ),
        lines("Correlation of the views", "short", &["view_correlation", "cross_correlation_diagonal"])
            .spanning(0.0, 1.0)
            .reads(
                "Dependence of two views, and the mean diagonal of Barlow Twins' cross-correlation. Null: 0.",
                "towards 1.",
                "0: the views share nothing. 1 does not rule out a collapse.",
            ),
        lines("Redundancy", "short", &["correlation_energy", "cross_correlation_off_diagonal"])
            .compare("1 / fullrank_effective_rows{L}", "{{run}} {{layer}} null")
            .reads(
                "Mean squared correlation of different coordinates, of one view and across two. Null: 1/N, dashed.",
                "near the null.",
                "coordinates copy each other: rises to 1.",
            ),
    ]
}

fn rows_and_floors() -> Vec<Panel> {
    vec![
        lines("Dead and duplicate coordinates", "short", &["dead_dims", "duplicate_dims"]).reads(
            "Coordinates that do not vary, and live ones that copy an earlier one.",
            "0.",
            "a large part of d: the causes `dead_units` and `duplicate_units`.",
        ),
        lines("Rows of norm 0 and duplicate rows", "short", &["zero_rows", "duplicate_rows"]).reads(
            "Rows of norm 0, and rows that repeat an earlier one exactly.",
            "0.",
            "padding, a sample drawn twice, or a complete collapse down to the last bit.",
        ),
        lines("Norms of the rows", "short", &["row_norm_min", "row_norm_mean", "row_norm_max"]).log().reads(
            "Smallest, mean and largest, for the rows as sent.",
            "level, close together.",
            "a largest norm that keeps growing: outliers or divergence. All near 0: the scale is lost.",
        ),
        lines("Noise floors", "short", &["noise_floor", "input_noise_floor", "numeric_noise_floor"]).log().reads(
            "Below these an eigenvalue is rounding: of the rows' own type, of the arithmetic, and the larger of the two.",
            "far below the eigenvalues.",
            "near them: send f32 instead of bf16, or subtract a large mean before the push.",
        ),
    ]
}
