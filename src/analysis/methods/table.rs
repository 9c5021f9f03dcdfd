//! The table of the methods' diagnostics: groups by the inputs they need, with names and help.
//!
//! To add a diagnostic: a row here, the file of its group, and a value in `tests/golden`.

macro_rules! diagnostics {
    ($($group:ident: $type:ident, $what:literal: { $($name:ident: $help:literal,)* } $(+ $text:ident: $text_type:ty)?)*) => {
        $(
            #[doc = $what]
            #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
            #[serde(default)]
            pub struct $type {
                $(#[doc = $help] pub $name: Option<f64>,)*
                $(#[serde(flatten)] #[allow(missing_docs)] pub $text: $text_type,)?
            }
        )*

        /// Diagnostics of one window by group. A group is `None` if its inputs were not sent.
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        #[serde(default)]
        pub struct Diagnostics {
            $(#[doc = $what] pub $group: Option<$type>,)*
        }

        /// Every group with its diagnostics: (group, [(name in the report, exported name, help)]).
        pub const TABLE: &[(&str, &[(&str, &str, &str)])] = &[
            $((stringify!($group), &[$((stringify!($name), exported!($group, $name), $help),)*]),)*
        ];

        impl Diagnostics {
            /// The values, group by group in the order of [`TABLE`]; `None` for a group without its inputs.
            pub(crate) fn groups(&self) -> Vec<Option<Vec<Option<f64>>>> {
                vec![$(self.$group.as_ref().map(|values| vec![$(values.$name,)*]),)*]
            }

            /// Removes values that are not finite: values near the ends of f64 overflow in products.
            pub(crate) fn finite(&mut self) {
                $(if let Some(values) = &mut self.$group {
                    $(values.$name = values.$name.filter(|value| value.is_finite());)*
                })*
            }
        }
    };
}

/// `lidar_delta` for `delta` of `lidar`; a group's main `value` is exported under the group's own name.
macro_rules! exported {
    ($group:ident, value) => {
        stringify!($group)
    };
    ($group:ident, $name:ident) => {
        concat!(stringify!($group), "_", stringify!($name))
    };
}

diagnostics! {
    teacher: TeacherDiagnostics, "Teacher against student (P1); needs z and teacher": {
        cosine: "Mean cosine of a student row and its teacher row",
        entropy_rank_ratio: "Entropy rank of the teacher over that of the student",
        spectrum_distance: "Total variation distance between the normalised eigenvalues of teacher and student; 0 if equal, 1 if disjoint",
        center_norm_gap: "Centre norm of the teacher minus that of the student",
    }
    prototypes: PrototypesDiagnostics, "Assignments of the student over K prototypes (P2, P3); needs logits and temperature": {
        count: "K, the number of prototypes",
        entropy: "h: mean entropy of a row's probabilities, in nats; 0 if each row has one prototype, ln K if uniform",
        marginal_entropy: "Entropy of the mean probabilities, in nats",
        information: "marginal_entropy - entropy: mutual information of sample and prototype, in nats",
        divergence: "Mean KL(target || student) in nats; the target is the teacher or the codes",
        largest_share: "Largest mean probability of any prototype",
        usage: "Perplexity of the mean probabilities over K; 1 if all are used evenly",
        usage_share: "Perplexity of the mean probabilities over min(K, rows exp(entropy)), the most that this many rows can use",
        dead_share: "Share of prototypes whose mean probability is below 0.1 / K",
        weight_entropy_rank: "Entropy rank of the prototype matrix, of its squared singular values; needs prototype_weight",
    }
    prototype_targets: PrototypeTargetsDiagnostics, "What the student's assignments are trained towards (P2): the teacher's probabilities, or the codes": {
        count: "K, the number of prototypes",
        entropy: "Mean entropy of a row's probabilities, in nats",
        marginal_entropy: "Entropy of the mean probabilities, in nats",
        information: "marginal_entropy - entropy, in nats",
        largest_share: "Largest mean probability of any prototype",
        usage: "Perplexity of the mean probabilities over K",
        dead_share: "Share of prototypes whose mean probability is below 0.1 / K",
    }
    predictor: PredictorDiagnostics, "The predictor (P4); needs predictions, two views, or predictor_weight": {
        entropy_rank_ratio: "Entropy rank of the predictions over that of z",
        cosine: "Mean cosine of a prediction and its target: the teacher, or the other view",
        linear_r2: "R^2 of the best linear map from view 1 to view 2, over the variance of view 2; 1 if the predictor has nothing left to learn, 0 if the views share nothing",
        eigenvector_alignment: "Mean |cos(W v, v)| over the eigenvectors v of F = E[z z^T] above the noise floor",
        commutator: "|W F - F W| / (|W| |F|), Frobenius norms; 0 if aligned",
    }
    batch_norm: BatchNormDiagnostics, "The same layer before and after batch norm (P5); needs pre_bn and z, bn_eps and bn_gamma": {
        pre_std: "Root mean square over coordinates of the standard deviation before batch norm",
        pre_std_limit: "10 sqrt(bn_eps): below it epsilon dominates batch norm",
        pre_mean_cosine: "Mean cosine of different samples before batch norm",
        post_variance_share: "Mean variance after batch norm over bn_gamma^2",
        stiffness: "Mean over coordinates of bn_gamma / sqrt(variance + bn_eps)",
        pre_center_norm: "Centre norm before batch norm",
        post_center_norm: "Centre norm after batch norm",
    }
    loss: LossDiagnostics, "The loss against its method's constant (P6); needs loss, the method, and what its constant is made of": {
        value: "The newest loss pushed",
        constant: "The nearest constant at which the loss shows that nothing was learned",
        distance: "|loss - constant| / max(1, |constant|); below 0.005 the loss counts as stuck there",
    } + text: Option<crate::analysis::methods::loss_constant::LossText>
    lidar: LidarDiagnostics, "LiDAR (T4, Thilak et al. 2023); needs ids": {
        value: "exp of the entropy of the eigenvalues of W^(-1/2) B W^(-1/2)",
        delta: "The ridge on the within-id covariance",
        ids: "Ids with at least two rows",
        rows_per_id: "Mean number of rows of these ids",
    }
    mutual_information: MutualInformationDiagnostics, "Gaussian mutual information of two views by canonical correlation (T5); needs two views and N >= 10 d": {
        value: "-1/2 sum ln(1 - rho_k^2), in nats",
        mean_correlation: "Mean canonical correlation",
        top_correlation: "Largest canonical correlation",
    }
    graph: GraphDiagnostics, "Embeddings against their relation graph (T6): edges, ids, or the views of a sample": {
        dirichlet_energy: "Normalised Dirichlet energy: mean squared distance of related rows over tr Sigma; 0 if aligned, 2 if unrelated",
        top_energy_share: "Share of the centred rows' energy in the top eigenspace of the graph",
        rank: "Numerical rank of the embeddings",
        rank_cap: "min(d, rank(G + I) - 1)",
        subspace_overlap: "|U_G^T U_Z|^2 / k: overlap of the graph's top eigenspace with the rows' own k leading directions",
    }
    simplex: SimplexDiagnostics, "Cosines of different rows of one batch against the regular simplex (T7)": {
        mean_cosine: "Mean cosine of different rows in the window's first batch (at most 512 rows)",
        cosine_spread: "Standard deviation of those cosines; 0 on a simplex",
        null: "-1 / (N - 1) of that batch",
    }
    labels: LabelsDiagnostics, "Linear fit of labels (T8); needs labels and N >= 10 d": {
        r2: "R^2 of the ridge regression from z to one-hot labels",
        top_energy_share: "Share of the label indicators' energy in the leading classes - 1 left singular vectors of the centred rows",
        classes: "Number of distinct labels",
    }
    neighbors: NeighborsDiagnostics, "Nearest neighbours in the support set (NNCLR); needs neighbors": {
        unique_share: "Distinct neighbours over rows, averaged over batches; low if a few rows are everyone's neighbour",
    }
    triplet: TripletDiagnostics, "Distances of triplets; needs z1, z2 and negative1": {
        positive_distance: "Mean distance of anchor and positive",
        negative_distance: "Mean distance of anchor and negative",
        distance_gap: "negative_distance - positive_distance",
    }
    vicreg: VicregDiagnostics, "Terms of VICReg's loss, unweighted, from the whole window; needs two views and gamma": {
        invariance: "Mean squared difference of the views, over coordinates",
        variance: "Mean over coordinates and views of max(0, gamma - sqrt(Var + 1e-4))",
        covariance: "Sum of squared off-diagonal covariances over d, mean over views",
    }
    barlow: BarlowDiagnostics, "Terms of Barlow Twins' loss from the whole window; needs two views and lambda": {
        invariance: "sum_k (1 - C_kk)^2",
        redundancy: "lambda sum_{k != l} C_kl^2",
    }
}
