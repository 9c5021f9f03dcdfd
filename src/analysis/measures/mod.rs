//! All measures of one window: one table of names, and the files that fill it.
//!
//! Guarantees: an undefined value is `None`, never NaN and never 0. Must not: judge.

mod alpha;
mod dims;
mod estimated;
mod evidence;
mod live;
mod noise;
mod rank;
mod rankme;
mod settings;
mod sphere;
mod table;

use super::window::Accumulator;
use evidence::Evidence;

pub use alpha::AlphaFit;
pub use evidence::Solved;
pub use rank::entropy_rank_null;
pub(super) use rank::{entropy, entropy_rank};
pub use settings::RankMe;
pub use table::{ComponentsForVariance, Measured, Measures, TABLE};

type Fill = fn(&Evidence<'_>, &mut Measured);

/// The functions that fill the table, in order: each may read what the ones before it filled.
const FILLS: [Fill; 7] = [live::fill, dims::fill, noise::fill, rank::fill, estimated::fill, rankme::fill, sphere::fill];

/// Fills the table.
pub fn measure(rows: &Accumulator, solved: &Solved, rankme: RankMe) -> Measured {
    let evidence = Evidence::new(rows, solved, rankme);
    let mut out = Measured::default();
    for fill in FILLS {
        fill(&evidence, &mut out);
    }
    out
}
