// words.js: explains the service's words in sentences.
// Guarantees: an unknown word is shown as the service sends it. Must not: judge: every number and state is the
// service's.

import { el, format, plain } from "./dom.js";

export const STATES = ["collapsed", "degrading", "healthy", "insufficient_rows", "warming_up"]; // worst first, as docs/api.md says
export const MARKS = { ok: "✓", warning: "!", critical: "✕", unknown: "?" };
export const AXES = { scale: "Is the cloud spread out?", dimension: "How many directions does it use?" };
export const SUMMARY = {
  healthy: "Both axes look healthy.",
  warming_up: "An untrained network looks collapsed, so it is not judged yet.",
};
export const CAUSES = {
  constant: "Every input is mapped to nearly the same point.",
  line: "The embeddings lie along one line.",
  low_rank: "The embeddings fill only a low-dimensional subspace.",
  dead_units: "Many dimensions hardly vary at all.",
  duplicate_units: "Several dimensions carry the same signal.",
  one_prototype: "Nearly every sample is assigned to one prototype.",
  uniform_prototypes: "Every sample is spread evenly over all prototypes: the assignments carry no information.",
  masked_by_batch_norm: "Collapsed before batch norm, which hides it from later layers.",
  no_alignment: "Views of one sample are no closer to each other than to other samples.",
  stale_queue: "The queue is stale: queries and keys no longer have the same spectrum.",
  insufficient_rows: "This window has too few rows to be judged.",
};
// The name of each measure, and how to read it; in the order of the table.
export const MEASURES = {
  entropy_rank_share: ["Entropy rank, as a share of noise", "0: a line; 1: like isotropic noise"],
  entropy_rank_to_null: ["Entropy rank over that of noise", "judged against the run's own best"],
  loss: ["Loss", "a loss stuck at its constant: nothing is learned, or the model has collapsed"],
  samples: ["Samples", "too few to judge"],
  entropy_rank: ["Entropy rank", "directions in use, by the entropy of the spectrum"],
  entropy_rank_null: ["Entropy rank of noise", "the value for isotropic noise with as many rows"],
  stable_rank: ["Stable rank", "directions in use, large ones counting more"],
  stable_rank_corrected: ["Stable rank, corrected", "stable rank without the bias of few rows"],
  numerical_rank: ["Numerical rank", "eigenvalues above the noise floor"],
  rankme: ["RankMe", "rank of the uncentred embeddings"],
  center_norm: ["Center norm", "0: the unit rows cancel out; 1: all point the same way"],
  scaled_std: ["Scaled std", "1: an even cloud; 0: a single point"],
  mean_cosine: ["Mean cosine", "between different samples; near 1 they form a cone"],
  total_variance: ["Total variance", "trace of the covariance, on the scale of the rows as sent"],
  relative_variance: ["Relative variance", "share of the energy that varies; 0: a single point"],
  log10_top_to_median: ["Spectrum tail", "decades from the first to the median eigenvalue"],
  uniformity: ["Uniformity", "0: all identical; near −4: even on the sphere"],
  alignment: ["Alignment", "squared distance between views of one sample"],
  signal_gap: ["Signal gap", "how much closer views of one sample are than different samples"],
  alpha: ["Alpha", "decay exponent of the spectrum"],
  dead_dims: ["Dead dimensions", "dimensions that hardly vary"],
  duplicate_rows: ["Duplicate rows", "rows exactly equal to an earlier one"],
};
const NO_SPECTRUM = "no eigenvalue above the noise floor, or no spectrum for this window";
const NO_VIEWS = "it needs two or more views of each sample";
export const UNDEFINED = {
  entropy_rank: NO_SPECTRUM, stable_rank: NO_SPECTRUM, intrinsic_dimension: NO_SPECTRUM, log10_top_to_median: NO_SPECTRUM,
  alignment: NO_VIEWS, signal_gap: NO_VIEWS, view_mean_norm: NO_VIEWS,
  stable_rank_corrected: "too few rows for an unbiased estimate", ln_first_to_last: "it needs more rows than dimensions",
  alpha: "fewer than ten eigenvalues above the noise floor to fit",
};


export const rank = (state) => (STATES.includes(state) ? STATES.indexOf(state) : STATES.length); // 0 is the worst
export const known = (state) => (STATES.includes(state) ? state : "unknown");
export const pill = (state) => el("span", { className: `pill ${known(state)}` }, plain(state));

// A reason of a verdict, as the parts of a sentence.
export function sentence({ measure, value, threshold }, brief = false) {
  const [name, reading] = MEASURES[measure] ?? [plain(measure), null];
  const side = measure === "loss" ? "next to" : value < threshold ? "below" : value > threshold ? "above" : "at";
  const limit = threshold === null || threshold === undefined ? "" : `, ${side} ${measure === "loss" ? "its constant" : "the threshold of"} ${format(threshold)}`;
  const said = value === null ? [" is undefined"] : [" is ", el("b", {}, format(value)), limit];
  return [el("b", {}, name), ...said, reading && !brief ? el("span", { className: "quiet" }, ` (${reading})`) : ""];
}
