//! A loss that stays at the constant where its method has learned nothing, or has nothing left to learn (P6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::analysis::parameters::Method;

/// The loss sits at c if |loss - c| / max(1, |c|) is below this.
const TOLERANCE: f64 = 0.005;

/// The smallest constant that the tolerance can tell from 0.
const LEAST: f64 = 0.01;

/// A trainer may sum up to this many terms without taking their mean.
const MOST_TERMS: u32 = 18;

#[derive(Clone, Debug, PartialEq)]
pub struct LossConstant {
    /// c.
    pub value: f64,
    /// How c is composed, such as `ln 4096`.
    pub formula: String,
    pub meaning: &'static str,
    /// Whether it is also the method's optimum: then it is bad only if the scale axis collapsed.
    pub optimum: bool,
    /// |loss - c| / max(1, |c|).
    pub distance: f64,
}

/// How the constant is composed, and what it means if the loss sits at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LossText {
    /// The composition, such as `ln 4096`.
    pub formula: String,
    /// `None` unless the loss sits at the constant.
    pub meaning: Option<String>,
}

impl LossConstant {
    /// In words, for the report.
    pub(crate) fn text(&self) -> LossText {
        LossText { formula: self.formula.clone(), meaning: self.holds().then(|| self.meaning.to_string()) }
    }

    pub(crate) fn holds(&self) -> bool {
        self.distance < TOLERANCE
    }
}

const UNALIGNED: &str = "positives are no closer than negatives: nothing is aligned, or everything is one point";
const UNIFORM: &str = "the prototypes are uniform";

/// The constant of the method's loss that is nearest to `loss`; `None` if the method has none, or its ingredients were
/// not sent.
pub(crate) fn at_constant(loss: f64, method: Method, scalars: &BTreeMap<&'static str, f64>) -> Option<LossConstant> {
    let mut nearest: Option<LossConstant> = None;
    for (value, formula, meaning, optimum) in constants(method, scalars) {
        // A loss that may reach 0 in good training has no telling constant.
        if !optimum && value.abs() < LEAST {
            continue;
        }
        let distance = (loss - value).abs() / value.abs().max(1.0);
        if nearest.as_ref().is_none_or(|known| distance < known.distance) {
            nearest = Some(LossConstant { value, formula, meaning, optimum, distance });
        }
    }
    nearest
}

type Constant = (f64, String, &'static str, bool);

fn constants(method: Method, scalars: &BTreeMap<&'static str, f64>) -> Vec<Constant> {
    let scalar = |name: &str| scalars.get(name).copied();
    let log_of = |count: f64, meaning| (count.ln(), format!("ln {count}"), meaning, false);
    // With one candidate or none there is no choice, and the constant 0 means nothing.
    let one = |constant: Option<Constant>| constant.into_iter().filter(|c| c.0.is_finite() && c.0 > 0.0).collect();
    // Candidates: the positive and the negatives.
    let candidates = scalar("negatives").map(|negatives| negatives + 1.0);
    let batch = scalar("batch_size");
    match method {
        Method::Simclr => {
            one(candidates.or(batch.map(|batch| 2.0 * batch - 1.0)).map(|count| log_of(count, UNALIGNED)))
        }
        Method::Moco => {
            one(scalar("queue_size").map(|queue| queue + 1.0).or(candidates).map(|count| log_of(count, UNALIGNED)))
        }
        Method::Nnclr => one(candidates.or(batch).map(|count| log_of(count, UNALIGNED))),
        Method::Swav | Method::Dino => {
            let Some(count) = scalar("prototypes") else { return Vec::new() };
            let summed = |terms: u32| match terms {
                1 => log_of(count, UNIFORM),
                _ => (f64::from(terms) * count.ln(), format!("{terms} ln {count}"), UNIFORM, false),
            };
            (1..=MOST_TERMS).map(summed).collect()
        }
        Method::Simsiam => vec![(-1.0, "-1".to_string(), "the views agree fully", true)],
        Method::Byol => vec![(0.0, "0".to_string(), "the views agree fully", true)],
        Method::Triplet => {
            // Without a margin the loss is also 0 on satisfied triplets.
            let margin = scalar("margin").map(|margin| {
                let meaning = "anchor, positive and negative are equally far apart";
                (margin, format!("the margin {margin}"), meaning, margin <= 0.0)
            });
            let soft = (2f64.ln(), "ln 2 (soft margin)".to_string(), "positive and negative are equally far", false);
            // With a margin of its own the loss is a hinge; without one it must be the soft form.
            vec![margin.unwrap_or(soft)]
        }
        Method::Vicreg => {
            // VICReg's root reads sqrt(0 + 1e-4) = 0.01 on a constant.
            let at = |(weight, gamma): (f64, f64)| {
                let value = weight * (gamma - 0.01);
                (value, format!("{weight} ({gamma} - 0.01)"), "the variance term of a constant", false)
            };
            one(scalar("variance_weight").zip(scalar("gamma")).map(at))
        }
        Method::Barlow => {
            let Some(dim) = scalar("dim") else { return Vec::new() };
            let constant = (dim, format!("d = {dim}"), "the cross-correlation of a constant is zero", false);
            let copies = scalar("lambda").map(|lambda| {
                let value = lambda * dim * (dim - 1.0);
                (value, format!("{lambda} d (d - 1), d = {dim}"), "all coordinates are copies of one", false)
            });
            std::iter::once(constant).chain(copies).collect()
        }
        Method::Simple => one(scalar("lambda").map(|weight| {
            (weight / 2.0, format!("{weight} / 2"), "the centre vector has norm 1: all rows are one point", false)
        })),
        Method::Directpred | Method::Other => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_constants() {
        let check = |method, scalars: &[(&'static str, f64)], loss: f64, formula: &str| {
            let found = at_constant(loss, method, &scalars.iter().copied().collect()).unwrap();
            assert!(found.holds(), "{loss} is at {}: {found:?}", found.value);
            assert_eq!(found.formula, formula);
        };
        check(Method::Simclr, &[("batch_size", 256.0)], 6.2364, "ln 511");
        check(Method::Simclr, &[("batch_size", 512.0)], 6.9305, "ln 1023");
        check(Method::Simclr, &[("batch_size", 4096.0)], 9.0108, "ln 8191");
        check(Method::Moco, &[("queue_size", 65_536.0)], 11.0904, "ln 65537");
        check(Method::Swav, &[("prototypes", 512.0)], 6.2383, "ln 512");
        check(Method::Swav, &[("prototypes", 3000.0)], 2.0 * 8.0064, "2 ln 3000");
        check(Method::Dino, &[("prototypes", 4096.0)], 8.3178, "ln 4096");
        check(Method::Dino, &[("prototypes", 65_536.0)], 11.0904, "ln 65536");
        check(Method::Simsiam, &[], -0.999, "-1");
        check(Method::Byol, &[], 0.001, "0");
        check(Method::Triplet, &[("margin", 0.2)], 0.2001, "the margin 0.2");
        check(Method::Triplet, &[], 0.693, "ln 2 (soft margin)");
        check(Method::Vicreg, &[("variance_weight", 25.0), ("gamma", 1.0)], 24.75, "25 (1 - 0.01)");
        check(Method::Barlow, &[("dim", 64.0), ("lambda", 0.005)], 64.0, "d = 64");
        check(Method::Barlow, &[("dim", 64.0), ("lambda", 0.005)], 20.16, "0.005 d (d - 1), d = 64");
    }

    #[test]
    fn a_learning_loss_sits_at_no_constant() {
        let scalars = [("batch_size", 256.0), ("prototypes", 4096.0)].into_iter().collect();
        for (method, loss) in [(Method::Simclr, 4.7), (Method::Dino, 7.9), (Method::Simsiam, -0.9), (Method::Byol, 0.2)]
        {
            assert!(!at_constant(loss, method, &scalars).unwrap().holds());
        }
    }
}
