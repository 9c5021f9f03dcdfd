//! The diagnostics of every method, one closed row per group, generated from the table of diagnostics.
//!
//! Guarantees: every diagnostic of the table is in a panel, with its help.

use super::panel::{Panel, Row};
use fullrank::analysis::methods::TABLE;

/// How a group is read: (group, healthy, trouble).
pub(super) const READINGS: [(&str, &str, &str); 15] = [
    (
        "teacher",
        "a cosine that rises towards 1; a rank ratio near 1; similar spectra (distance near 0); a centre gap near 0.",
        "BYOL: the teacher's rank falls first (ratio under 1). MoCo: a growing spectrum distance means a stale queue.",
    ),
    (
        "prototypes",
        "much information (marginal_entropy well above entropy), usage near 1, no dead prototypes, divergence above 0.",
        "one prototype: entropy and marginal entropy fall to 0, the largest share rises to 1. Uniform: entropy rises to ln K, information falls to 0.",
    ),
    (
        "prototype_targets",
        "much information: targets sharp (entropy low) and spread (usage near 1).",
        "one prototype: marginal entropy falls to 0. Uniform: entropy rises to ln K; a target that is uniform on each row teaches nothing.",
    ),
    (
        "predictor",
        "a rank ratio near 1; a cosine that rises; the predictor aligned with F (alignment to 1, commutator to 0).",
        "linear_r2 at 1: nothing is left to learn; at 0: the views share nothing. Modes of F die one by one as alignment is lost.",
    ),
    (
        "batch_norm",
        "pre_std above pre_std_limit (dashed); a post_variance_share near 1.",
        "masked collapse: pre_std below its limit with pre_mean_cosine near 1, and the share after batch norm still high.",
    ),
    (
        "loss",
        "a loss that leaves its constant; a distance above 0.005. For SimSiam (-1) and BYOL (0) the constant is the optimum.",
        "the loss is stuck at its constant (dashed): nothing is learned; if the constant is the optimum, scaled_std shows whether it collapsed.",
    ),
    (
        "lidar",
        "level or rising. Compare only at the same delta, ids and rows_per_id.",
        "dimensional collapse: falls to 1.",
    ),
    (
        "mutual_information",
        "rising, with N at least 10 d; a mean correlation between 0 and 1.",
        "falls: the views share less. For copies (a correlation of 1) it is undefined and has no series.",
    ),
    (
        "graph",
        "low Dirichlet energy, a rank at its cap (dashed), an overlap near 1.",
        "energy outside the graph's top eigenspace (the share falls), or a rank below its cap. An energy of 2 means unrelated rows.",
    ),
    (
        "simplex",
        "mean_cosine at its null (dashed), -1/(N - 1), with a small spread.",
        "complete collapse: mean_cosine rises to 1 with a spread of 0.",
    ),
    ("labels", "rising.", "falls: the classes become harder to separate."),
    ("neighbors", "most neighbours are different: near 100 %.", "hubs: few neighbours serve all rows."),
    (
        "triplet",
        "negative_distance above positive_distance by the margin: a gap that grows.",
        "both distances near 0 (complete collapse), or a gap of 0.",
    ),
    (
        "vicreg",
        "invariance falls while variance stays near 0 (standard deviations near gamma) and covariance is small.",
        "constant: variance near gamma, the others 0. The variance term does not detect a line: see covariance and the ranks.",
    ),
    (
        "barlow",
        "both terms fall.",
        "constant: invariance is d. Copies of one coordinate: redundancy is lambda d (d - 1).",
    ),
];

/// Diagnostics shown together: (group, title, names in the report, names to compare with).
const TOGETHER: [(&str, &str, &[&str], &[&str]); 8] = [
    ("prototypes", "entropies", &["entropy", "marginal_entropy", "information"], &[]),
    ("prototype_targets", "entropies", &["entropy", "marginal_entropy", "information"], &[]),
    ("batch_norm", "standard deviation before batch norm", &["pre_std"], &["pre_std_limit"]),
    ("batch_norm", "centre norms", &["pre_center_norm", "post_center_norm"], &[]),
    ("loss", "value against its constant", &["value"], &["constant"]),
    ("graph", "rank against its cap", &["rank"], &["rank_cap"]),
    ("simplex", "mean cosine against its null", &["mean_cosine"], &["null"]),
    ("triplet", "distances", &["positive_distance", "negative_distance"], &[]),
];

/// One closed row per group.
pub(super) fn rows() -> Vec<Row> {
    let row = |(group, names): &(&'static str, &[(&'static str, &'static str, &'static str)])| {
        let read =
            READINGS.iter().find(|(of, ..)| of == group).map_or(("", ""), |(_, healthy, trouble)| (*healthy, *trouble));
        let mut panels: Vec<Panel> = Vec::new();
        let mut done: Vec<&str> = Vec::new();
        for (_, title, shown, compared) in TOGETHER.iter().filter(|(of, ..)| of == group) {
            let find = |name: &&str| names.iter().find(|(known, ..)| known == name);
            let (shown, compared) = (
                shown.iter().filter_map(find).collect::<Vec<_>>(),
                compared.iter().filter_map(find).collect::<Vec<_>>(),
            );
            done.extend(shown.iter().chain(&compared).map(|(name, ..)| *name));
            panels.push(panel(&format!("{group}: {title}"), &shown, &compared, read));
        }
        for one in names.iter().filter(|(name, ..)| !done.contains(name)) {
            panels.push(panel(&format!("{group}: {}", one.0), &[one], &[], read));
        }
        Row { title: format!("Diagnostics: {group}"), collapsed: true, panels }
    };
    TABLE.iter().map(row).collect()
}

type Diagnostic = (&'static str, &'static str, &'static str);

fn panel(title: &str, shown: &[&Diagnostic], compared: &[&Diagnostic], read: (&str, &str)) -> Panel {
    let share = |name: &str| name.ends_with("share") || name.starts_with("usage");
    let unit = if shown.iter().all(|(name, ..)| share(name)) { "percentunit" } else { "short" };
    let several = shown.len() + compared.len() > 1;
    let legend =
        |name: &str| format!("{{{{run}}}} {{{{layer}}}}{}", if several { format!(" {name}") } else { String::new() });
    let what: Vec<String> = shown
        .iter()
        .chain(compared)
        .map(|(name, exported, help)| {
            if several {
                format!("`{name}` (`fullrank_{exported}`): {help}.")
            } else {
                format!("{help}. `fullrank_{exported}`.")
            }
        })
        .collect();
    let panel = Panel::lines(title, unit).reads(&what.join("\n"), read.0, read.1);
    let panel = shown
        .iter()
        .fold(panel, |panel, (name, exported, _)| panel.query(&format!("fullrank_{exported}{{L}}"), &legend(name)));
    compared
        .iter()
        .fold(panel, |panel, (name, exported, _)| panel.compare(&format!("fullrank_{exported}{{L}}"), &legend(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_says_how_it_is_read_and_nothing_else_does() {
        let groups: Vec<&str> = TABLE.iter().map(|(group, _)| *group).collect();
        assert_eq!(READINGS.map(|(group, ..)| group).to_vec(), groups);
        for (group, _, shown, compared) in TOGETHER {
            let (_, names) = TABLE.iter().find(|(known, _)| *known == group).unwrap();
            for name in shown.iter().chain(compared) {
                assert!(names.iter().any(|(known, ..)| known == name), "{group} has no {name}");
            }
        }
    }
}
