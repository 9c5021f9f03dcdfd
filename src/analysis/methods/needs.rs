//! What the trainer of each method sends and why: the notes that name missing inputs.

use std::collections::BTreeSet;

use crate::analysis::parameters::Method;

/// (any of these inputs, what for)
type Need = (&'static [&'static str], &'static str);

const VIEWS: Need = (&["z2"], "alignment, signal_gap and what the views have in common");
const LOSS: Need = (&["loss"], "detecting a loss that is stuck at its constant");
const CANDIDATES: Need = (&["batch_size", "negatives"], "the loss's constant, ln(candidates)");

fn wanted_by(method: Method) -> &'static [Need] {
    match method {
        Method::Simclr => &[VIEWS, CANDIDATES, LOSS],
        Method::Triplet => &[
            VIEWS,
            (&["negative1"], "the distances of triplets"),
            (&["margin"], "the loss's constant, unless the loss is the soft form"),
            LOSS,
        ],
        Method::Moco => &[
            (&["teacher1"], "the spectra of query and key, which drift apart when the queue is stale"),
            (&["queue_size"], "the loss's constant, ln(queue_size + 1)"),
            LOSS,
        ],
        Method::Nnclr => &[VIEWS, (&["neighbors"], "the share of different neighbours"), CANDIDATES, LOSS],
        Method::Byol => &[
            (&["prediction1"], "the predictor's rank and cosine"),
            (&["teacher1"], "the teacher's rank, which falls first"),
            LOSS,
        ],
        Method::Simsiam => &[
            VIEWS,
            (&["prediction1"], "the predictor's rank and cosine"),
            (&["pre_bn"], "detecting a collapse that batch norm hides"),
            LOSS,
        ],
        Method::Swav => &[
            (&["logits1"], "the use of the prototypes"),
            (&["codes1"], "the divergence of assignments from codes"),
            LOSS,
        ],
        Method::Dino => &[
            (&["logits1"], "the use of the prototypes"),
            (&["teacher_logits1"], "the divergence of student from teacher, which separates the two ways to collapse"),
            (&["center"], "the teacher's probabilities as it computes them: zero is assumed"),
            LOSS,
        ],
        Method::Barlow => &[VIEWS, (&["lambda"], "the redundancy term"), LOSS],
        Method::Vicreg => &[
            VIEWS,
            (&["gamma"], "the variance term"),
            (&["variance_weight"], "the loss's constant on a collapse"),
            LOSS,
        ],
        Method::Simple => &[VIEWS, (&["lambda"], "the loss's constant, half the weight of the centre penalty"), LOSS],
        Method::Directpred => &[(&["predictor_weight"], "the alignment of the predictor with F = E[z z^T]"), LOSS],
        Method::Other => &[],
    }
}

/// One note for each input that the method's trainers send and this window lacked.
pub(super) fn notes(method: Option<Method>, sent: &BTreeSet<&'static str>) -> Vec<String> {
    let mut notes = Vec::new();
    for (any, purpose) in method.map_or(&[][..], wanted_by) {
        if !any.iter().any(|input| sent.contains(input)) {
            notes.push(format!("send {} for {purpose}", any.join(" or ")));
        }
    }
    notes
}
