//! The table of measures: each one's exported name and help, and the values with what qualifies them.
//!
//! A new measure is a row here, a file that fills it, and a value in `tests/golden`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::alpha::AlphaFit;

macro_rules! measures {
    ($($name:ident: $help:literal,)*) => {
        /// Scalar measures of one window by their exported names. `None` is undefined.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(default)]
        pub struct Measures {
            $(#[doc = $help] pub $name: Option<f64>,)*
            /// Least number of leading eigenvalues that hold a share of the variance (C9).
            pub components_for_variance: ComponentsForVariance,
        }

        /// Every scalar measure: (name, help).
        pub const TABLE: &[(&str, &str)] = &[$((stringify!($name), $help),)*];

        impl Measures {
            /// The scalars by name, in the order of [`TABLE`].
            pub fn by_name(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
                TABLE.iter().map(|(name, _)| *name).zip(self.scalars())
            }

            /// The scalars, in the order of [`TABLE`].
            pub fn scalars(&self) -> Vec<Option<f64>> {
                vec![$(self.$name,)*]
            }
        }
    };
}

/// Least number of leading eigenvalues that hold each share of the variance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ComponentsForVariance {
    /// Half of it.
    #[serde(rename = "0.5")]
    pub half: Option<f64>,
    /// Nine tenths.
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
    /// Of each share, by `count`.
    pub(super) fn by(count: impl Fn(f64) -> Option<f64>) -> Self {
        Self { half: count(0.5), nine_tenths: count(0.9), ninety_five: count(0.95), ninety_nine: count(0.99) }
    }

    /// Each share's label with its count.
    pub fn labelled(&self) -> [(&'static str, Option<f64>); 4] {
        [("0.5", self.half), ("0.9", self.nine_tenths), ("0.95", self.ninety_five), ("0.99", self.ninety_nine)]
    }
}

measures! {
    total_variance: "Trace of the covariance Sigma = M2 / N, in squared units of the embedding",
    relative_variance: "tr Sigma / (tr Sigma + |mu|^2) on the rows as sent; towards 0 is complete collapse",
    center_norm: "Norm |s| of the mean unit row; 1 is complete collapse, 1/sqrt(N) the null",
    mean_cosine: "Mean cosine of different samples, (N |s|^2 - 1)/(N - 1), corrected for views",
    residual_norm: "sqrt(1 - |s|^2): what of the unit rows is not the centre",
    view_mean_norm: "Mean norm of a sample's view mean, on unit rows",
    scaled_std: "sqrt(d) times the mean per-coordinate standard deviation of unit rows (SimSiam); 1 isotropic, 0 collapsed",
    stable_rank: "(tr Sigma)^2 / |Sigma|_F^2, the participation ratio",
    stable_rank_corrected: "Participation ratio from unbiased estimates for Gaussian rows",
    stable_rank_null: "Stable rank of isotropic rows at this N and d: n d / (n + d)",
    entropy_rank: "exp of the entropy of the normalised eigenvalues",
    entropy_rank_null: "Entropy rank of isotropic rows at this N and d: r exp(-r / (2 m))",
    diagonal_entropy_rank: "exp of the entropy of the normalised coordinate variances: an upper bound of the entropy rank",
    intrinsic_dimension: "tr Sigma / lambda_1",
    numerical_rank: "Number of eigenvalues above the noise floor",
    rankme: "RankMe (Garrido et al. 2023), by default of the uncentred rows with epsilon 1e-7",
    effective_rows: "n of the nulls: degrees of freedom, corrected for dependent views",
    view_correlation: "rho: tr Cov(z_i, z_j) / tr Sigma, averaged over pairs of views",
    log10_top_to_last: "Decades from lambda_1 to lambda_r, r = min(N - 1, d)",
    log10_top_to_median: "Decades from lambda_1 to lambda_ceil(r/2)",
    log10_top_to_tenth: "Decades from lambda_1 to lambda_10",
    ln_first_to_last: "ln(lambda_1 / lambda_d), only if N > d",
    cumulative_variance_area: "Area under the cumulative explained variance; 0.5 flat, towards 1 collapsed",
    alpha: "Power-law exponent of the eigenvalues, ranks 11 to 100 (alpha-ReQ)",
    dead_dims: "Coordinates with variance at most 1e-6 of the mean variance",
    duplicate_dims: "Live coordinates that copy an earlier one, |correlation| above 0.99",
    duplicate_rows: "Rows that repeat an earlier row exactly",
    zero_rows: "Rows of norm 0",
    row_norm_min: "Least row norm",
    row_norm_mean: "Mean row norm",
    row_norm_max: "Greatest row norm",
    correlation_energy: "Mean squared off-diagonal correlation of the live coordinates; null 1/n",
    uniformity: "ln mean exp(-2 |u_i - u_j|^2) over pairs of unit rows (Wang and Isola 2020); 0 is all identical",
    w2_uniformity: "Wasserstein-2 distance of the unit rows from the uniform null (Fang et al. 2024); sqrt 2 is complete collapse",
    noise_floor: "The larger of the two noise floors, in units of the eigenvalues",
    input_noise_floor: "Noise floor from the rounding of the rows to their own type",
    numeric_noise_floor: "Noise floor from the arithmetic of the kernel and the solver",
    alignment: "Mean |u_1 - u_2|^2 over pairs of views (Wang and Isola 2020)",
    positive_cosine: "Mean cosine of two views of one sample",
    signal_gap: "positive_cosine - mean_cosine",
    cross_correlation_diagonal: "Mean diagonal of Barlow Twins' cross-correlation of the first two views",
    cross_correlation_off_diagonal: "Mean square off the diagonal of the cross-correlation; null 1/N",
}

/// Measures with what qualifies them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The values.
    pub measures: Measures,
    /// 95 % confidence intervals, or bounds by the noise floor, by measure.
    pub intervals: BTreeMap<String, (f64, f64)>,
    /// Measures that are estimates, because the spectrum was too large to be solved.
    pub estimated: Vec<String>,
    /// Over what alpha was fitted.
    pub alpha_fit: Option<AlphaFit>,
    /// Whether a measure comes from the sample of rows.
    pub sampled: bool,
}
