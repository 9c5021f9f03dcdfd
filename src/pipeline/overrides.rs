//! Which thresholds apply to which run: the built-in ones of its method, then those of a file: the default, the
//! method's, the run's own.

use std::collections::BTreeMap;

use crate::analysis::parameters::Method;
use crate::analysis::verdict::Thresholds;

/// Overrides read from a file:
///
/// ```toml
/// [default]
/// scaled_std_warning = 0.45
/// [methods.simsiam]
/// rank_share_warning = 0.04
/// [runs."simsiam-7"]
/// warmup_windows = 10
/// ```
#[derive(Clone, Debug, Default)]
pub struct ThresholdOverrides {
    default: Overrides,
    methods: BTreeMap<Method, Overrides>,
    runs: BTreeMap<String, Overrides>,
}

type Overrides = BTreeMap<String, f64>;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OverridesFile {
    #[serde(default)]
    default: Overrides,
    #[serde(default)]
    methods: BTreeMap<String, Overrides>,
    #[serde(default)]
    runs: BTreeMap<String, Overrides>,
}

impl ThresholdOverrides {
    /// Parses and checks a whole file.
    ///
    /// # Errors
    /// Every error, one per line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: OverridesFile = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut complaints = Vec::new();
        let mut parsed = Self::default();
        apply(&mut Thresholds::default(), &file.default, &mut complaints);
        parsed.default = file.default;
        for (word, overrides) in file.methods {
            apply(&mut Thresholds::default(), &overrides, &mut complaints);
            match word.parse() {
                Ok(method) => drop(parsed.methods.insert(method, overrides)),
                Err(_) => complaints.push(format!("unknown method '{word}'")),
            }
        }
        for (run, overrides) in file.runs {
            apply(&mut Thresholds::default(), &overrides, &mut complaints);
            parsed.runs.insert(run, overrides);
        }
        if complaints.is_empty() { Ok(parsed) } else { Err(complaints.join("\n")) }
    }

    /// The thresholds that apply to a run.
    pub fn thresholds(&self, run: &str, method: Option<Method>) -> Thresholds {
        let mut thresholds = Thresholds::for_method(method);
        let of_method = method.and_then(|method| self.methods.get(&method));
        for overrides in std::iter::once(&self.default).chain(of_method).chain(self.runs.get(run)) {
            apply(&mut thresholds, overrides, &mut Vec::new());
        }
        thresholds
    }
}

fn apply(thresholds: &mut Thresholds, overrides: &Overrides, complaints: &mut Vec<String>) {
    for (name, value) in overrides {
        if let Err(complaint) = thresholds.set(name, *value) {
            complaints.push(complaint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_overrides_its_method_and_that_the_default() {
        let text = "[default]\nrank_share_warning = 0.06\n[methods.simsiam]\nrank_share_warning = 0.04\n\
                    [runs.a]\nrank_share_warning = 0.03\n";
        let overrides = ThresholdOverrides::parse(text).unwrap();
        let of = |run, method| overrides.thresholds(run, method).rank_share_warning;
        assert_eq!([of("a", Some(Method::Simsiam)), of("b", Some(Method::Simsiam)), of("b", None)], [0.03, 0.04, 0.06]);
    }

    #[test]
    fn every_complaint_at_once() {
        let text = "[default]\nnonsense = 1\nscaled_std_warning = 7\n[methods.sinclair]\n";
        let complaints = ThresholdOverrides::parse(text).unwrap_err();
        for part in ["nonsense", "scaled_std_warning is 7", "sinclair"] {
            assert!(complaints.contains(part), "{complaints}");
        }
    }
}
