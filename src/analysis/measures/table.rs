//! The table of measures: the exported name and help of each, the values, and what qualifies them.
//!
//! To add a measure: a row here, a file that fills it, and a value in `tests/golden`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::alpha::AlphaFit;

macro_rules! measures {
    ($($name:ident: $help:literal,)*) => {
        /// Scalar measures of one window by exported name. `None` is undefined.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(default)]
        pub struct Measures {
            $(#[doc = $help] pub $name: Option<f64>,)*
            /// The least number of leading eigenvalues that hold a share of the variance (C9).
            pub components_for_variance: ComponentsForVariance,
        }

        /// Every scalar measure: (name, help).
        pub const TABLE: &[(&str, &str)] = &[$((stringify!($name), $help),)*];

        impl Measures {
            /// The scalars by name, in the order of [`TABLE`].
            pub(crate) fn by_name(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
                TABLE.iter().map(|(name, _)| *name).zip(self.scalars())
            }

            /// The scalars, in the order of [`TABLE`].
            pub fn scalars(&self) -> Vec<Option<f64>> {
                vec![$(self.$name,)*]
            }
        }
    };
}

/// The least number of leading eigenvalues that hold each share of the variance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ComponentsForVariance {
    /// 50 %.
    #[serde(rename = "0.5")]
    pub half: Option<f64>,
    /// 90 %.
    #[serde(rename = "0.9")]
    pub nine_tenths: Option<f64>,
    /// 95 %.
    #[serde(rename = "0.95")]
    pub ninety_five: Option<f64>,
    /// 99 %.
    #[serde(rename = "0.99")]
    pub ninety_nine: Option<f64>,
}

impl ComponentsForVariance {
    pub(super) fn by(count: impl Fn(f64) -> Option<f64>) -> Self {
        Self { half: count(0.5), nine_tenths: count(0.9), ninety_five: count(0.95), ninety_nine: count(0.99) }
    }

    pub(crate) fn labelled(&self) -> [(&'static str, Option<f64>); 4] {
        [("0.5", self.half), ("0.9", self.nine_tenths), ("0.95", self.ninety_five), ("0.99", self.ninety_nine)]
    }
}

measures! {
    total_variance: "Trace of the covariance Sigma = M2 / N, in squared units of the embedding",
    relative_variance: "tr Sigma / (tr Sigma + |mu|^2) on the rows as sent; near 0 in a complete collapse",
    center_norm: "Norm |s| of the mean unit row; 1 in a complete collapse; 1/sqrt(N) for isotropic noise",
    mean_cosine: "Mean cosine of different samples, (N |s|^2 - 1)/(N - 1), corrected for views",
    residual_norm: "sqrt(1 - |s|^2): the part of the unit rows that is not the centre",
    view_mean_norm: "Mean norm of the average of a sample's views, on unit rows",
    scaled_std: "sqrt(d) times the mean per-coordinate standard deviation of unit rows (SimSiam); 1 if isotropic, 0 if collapsed",
    stable_rank: "(tr Sigma)^2 / |Sigma|_F^2, the participation ratio",
    stable_rank_corrected: "Participation ratio from unbiased estimates for Gaussian rows",
    stable_rank_null: "Null: stable rank of isotropic noise at this N and d: n d / (n + d)",
    entropy_rank: "exp of the entropy of the normalised eigenvalues",
    entropy_rank_null: "Null: entropy rank of isotropic noise at this N and d: r exp(-r / (2 m))",
    diagonal_entropy_rank: "exp of the entropy of the normalised coordinate variances: an upper bound on the entropy rank",
    intrinsic_dimension: "tr Sigma / lambda_1",
    numerical_rank: "Number of eigenvalues above the noise floor",
    rankme: "RankMe (Garrido et al. 2023), by default of the uncentred rows with epsilon 1e-7",
    effective_rows: "n in the nulls (values for isotropic noise): degrees of freedom, corrected for dependent views",
    view_correlation: "rho: tr Cov(z_i, z_j) / tr Sigma, averaged over pairs of views",
    log10_top_to_last: "Decades from lambda_1 to lambda_r, r = min(N - 1, d)",
    log10_top_to_median: "Decades from lambda_1 to lambda_ceil(r/2)",
    log10_top_to_tenth: "Decades from lambda_1 to lambda_10",
    ln_first_to_last: "ln(lambda_1 / lambda_d), defined if N > d",
    cumulative_variance_area: "Area under the cumulative explained variance; 0.5 for a flat spectrum, near 1 when collapsed",
    alpha: "Power-law exponent of the eigenvalues, ranks 11 to 100 (alpha-ReQ)",
    dead_dims: "Coordinates with variance at most 1e-6 of the mean variance",
    duplicate_dims: "Live coordinates that copy an earlier one, |correlation| above 0.99",
    duplicate_rows: "Rows that repeat an earlier row exactly",
    zero_rows: "Rows of norm 0",
    row_norm_min: "Smallest row norm",
    row_norm_mean: "Mean row norm",
    row_norm_max: "Largest row norm",
    correlation_energy: "Mean squared off-diagonal correlation of the live coordinates; 1/n for isotropic noise",
    uniformity: "ln mean exp(-2 |u_i - u_j|^2) over pairs of unit rows (Wang and Isola 2020); 0 if all rows are identical",
    w2_uniformity: "Wasserstein-2 distance of the unit rows from a uniform distribution (Fang et al. 2024); sqrt 2 in a complete collapse",
    noise_floor: "The larger of the two noise floors, in units of the eigenvalues",
    input_noise_floor: "Noise floor from the rounding of the rows to their own type",
    numeric_noise_floor: "Noise floor from the arithmetic of the kernel and the solver",
    alignment: "Mean |u_1 - u_2|^2 over pairs of views (Wang and Isola 2020)",
    positive_cosine: "Mean cosine of two views of one sample",
    signal_gap: "positive_cosine - mean_cosine",
    cross_correlation_diagonal: "Mean diagonal of Barlow Twins' cross-correlation of the first two views",
    cross_correlation_off_diagonal: "Mean square off the diagonal of the cross-correlation; 1/N for isotropic noise",
}

/// Measures and what qualifies them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The scalars; `None` is undefined.
    pub measures: Measures,
    /// By measure: 95 % confidence intervals, or bounds set by the noise floor.
    pub intervals: BTreeMap<String, (f64, f64)>,
    /// Measures that are estimates, because the spectrum was too large to solve.
    pub estimated: Vec<String>,
    pub(crate) alpha_fit: Option<AlphaFit>,
    /// Whether a measure was computed from the sample of rows.
    pub sampled: bool,
}
