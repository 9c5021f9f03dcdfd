//! Every threshold of the verdict: typed, named, checked, overridable.
//!
//! Guarantees: a [`Thresholds`] is within its ranges. Must not: be read outside this folder.

use std::collections::BTreeMap;

use crate::analysis::parameters::Method;

macro_rules! thresholds {
    ($($name:ident = $default:literal in $low:literal..=$high:literal, $side:ident: $help:literal,)*) => {
        /// Thresholds in force for a run.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Thresholds {
            $(#[doc = $help] pub $name: f64,)*
        }

        impl Default for Thresholds {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// Every threshold: (name, default, smallest, largest, help).
        pub(crate) const TABLE: &[(&str, f64, f64, f64, &str)] = &[$((stringify!($name), $default, $low, $high, $help),)*];

        impl Thresholds {
            pub(crate) fn by_name(&self) -> BTreeMap<String, f64> {
                BTreeMap::from([$((stringify!($name).to_string(), self.$name),)*])
            }

            /// Sets one threshold by name.
            ///
            /// # Errors
            /// If the name is unknown or the value is out of range; the text says what is allowed.
            pub fn set(&mut self, name: &str, value: f64) -> Result<(), String> {
                match name {
                    $(stringify!($name) => {
                        if !($low..=$high).contains(&value) {
                            return Err(format!("threshold {name} is {value}: it must be {} to {}", $low, $high));
                        }
                        self.$name = value;
                    })*
                    _ => {
                        let known: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
                        return Err(format!("unknown threshold '{name}': expected one of: {}", known.join(", ")));
                    }
                }
                Ok(())
            }

            /// Every threshold moved by `share` towards safety: what a window must clear to count towards recovery.
            pub(crate) fn stricter(&self, share: f64) -> Self {
                Self { $($name: Side::$side.stricter(self.$name, share),)* }
            }
        }
    };
}

/// Methods whose healthy trainings need other thresholds, measured on the trainings in `examples/zoo`. Embeddings
/// trained onto prototypes gather in as many directions as there are clusters, and in far fewer on the way there.
const BY_METHOD: &[(Method, &[(&str, f64)])] = &[
    (Method::Swav, &[("rank_share_warning", 0.02), ("rank_share_line", 0.01)]),
    (Method::Dino, &[("rank_share_warning", 0.02), ("rank_share_line", 0.01)]),
];

impl Thresholds {
    pub(crate) fn for_method(method: Option<Method>) -> Self {
        let mut thresholds = Self::default();
        for (_, values) in BY_METHOD.iter().filter(|(named, _)| Some(*named) == method) {
            for (name, value) in *values {
                // A test checks the names and ranges of this table.
                let _ = thresholds.set(name, *value);
            }
        }
        thresholds
    }
}

/// The side of a threshold on which values are bad.
enum Side {
    Below,
    Above,
    Fixed,
}

impl Side {
    fn stricter(self, value: f64, share: f64) -> f64 {
        match self {
            Side::Below => value * (1.0 + share),
            Side::Above => value * (1.0 - share),
            Side::Fixed => value,
        }
    }
}

thresholds! {
    scaled_std_warning = 0.5 in 0.0..=1.0, Below: "Complete collapse warns below this scaled_std (with mean_cosine)",
    scaled_std_critical = 0.3 in 0.0..=1.0, Below: "Complete collapse is critical below this scaled_std (with mean_cosine or relative_variance)",
    mean_cosine_warning = 0.5 in 0.0..=1.0, Above: "Complete collapse warns above this mean_cosine (with scaled_std)",
    mean_cosine_critical = 0.9 in 0.0..=1.0, Above: "Complete collapse is critical above this mean_cosine (with scaled_std)",
    relative_variance_warning = 0.25 in 0.0..=1.0, Below: "Warns below this relative_variance if moments came without unit fields (0.5 squared: for isotropic unit rows it is scaled_std squared)",
    relative_variance_critical = 0.05 in 0.0..=1.0, Below: "Complete collapse is critical below this relative_variance (with scaled_std, or alone if moments came without unit fields)",
    non_negative_spread_critical = 1e-3 in 0.0..=1.0, Below: "A layer without a negative entry is critical by itself when 1 - mean_cosine and relative_variance are both below this; otherwise only its own baseline counts",
    rank_share_warning = 0.05 in 0.0..=1.0, Below: "Dimensional collapse warns below this (entropy_rank - 1) / (null - 1); the null is the value for isotropic noise",
    rank_share_line = 0.02 in 0.0..=1.0, Below: "Dimensional collapse is critical (a line) below this (entropy_rank - 1) / (null - 1)",
    relative_rank_warning = 0.7 in 0.0..=1.0, Below: "Dimensional collapse warns below this share of the run's own baseline of entropy_rank / null",
    relative_rank_critical = 0.4 in 0.0..=1.0, Below: "Dimensional collapse is critical below this share of the run's own baseline of entropy_rank / null",
    tail_decades_warning = 1.0 in 0.1..=20.0, Above: "Warns when log10_top_to_median is this far above the run's own baseline",
    signal_gap_warning = 0.05 in 0.0..=1.0, Below: "No alignment: warns below this signal_gap when the run named its method and both axes are fine",
    prototype_usage_warning = 0.3 in 0.0..=1.0, Below: "Warns below this share of the perplexity of prototype use that the rows could reach (prototypes_usage_share)",
    prototype_divergence_critical = 1e-3 in 0.0..=1.0, Below: "A single prototype or uniform prototypes are critical below this KL(target || student), in nats",
    prototype_perplexity_one = 5.0 in 1.0..=1e6, Below: "One prototype: the perplexity of the target's mean row is below this, and its usage below prototype_usage_warning",
    prototype_entropy_one = 0.05 in 0.0..=1.0, Below: "and critical when its entropy is below this, in nats, with the divergence",
    prototype_entropy_uniform = 0.99 in 0.0..=1.0, Above: "Uniform prototypes: the target's entropy is above this share of ln K",
    masked_mean_cosine = 0.9 in 0.0..=1.0, Above: "Masked by batch norm: mean_cosine before it is above this, with a standard deviation below 10 sqrt(bn_eps)",
    masked_post_variance = 0.5 in 0.0..=1.0, Fixed: "and the variance after it is above this share of bn_gamma squared",
    stale_spectrum_distance = 0.4 in 0.0..=1.0, Above: "A queue is stale above this total variation distance between the spectra of key and query (MoCo)",
    loss_constant_windows = 5.0 in 1.0..=1000.0, Fixed: "The alarm fires after this many windows in a row at the loss's constant, since warm-up",
    cone_mean_cosine = 0.75 in 0.0..=1.0, Fixed: "A run has left the cone of an untrained network once mean_cosine is at most this in two windows",
    cone_narrowing = 0.25 in 0.0..=1.0, Fixed: "A run in warm-up has collapsed when 1 - mean_cosine is at most this share of its widest, critical, and not widening",
    baseline_steps = 150.0 in 0.0..=1e9, Fixed: "The baseline includes the run's first windows until this step, if steps are sent",
    warmup_windows = 5.0 in 1.0..=1000.0, Fixed: "A run that never leaves the cone is judged from this window on",
    warmup_steps = 500.0 in 0.0..=1e9, Fixed: "and from this step on, if steps are sent",
    collapse_windows = 3.0 in 1.0..=1000.0, Fixed: "Critical windows in a row that make a collapse",
    recovery_windows = 5.0 in 1.0..=1000.0, Fixed: "Windows in a row, clear by a tenth, that end it",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_methods_override_exists_and_is_in_range() {
        for (_, values) in BY_METHOD {
            for (name, value) in *values {
                Thresholds::default().set(name, *value).unwrap();
            }
        }
        assert!(
            Thresholds::for_method(Some(Method::Dino)).rank_share_line < Thresholds::for_method(None).rank_share_line
        );
    }
}
