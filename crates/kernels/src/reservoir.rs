//! A mergeable sample of rows: the `capacity` distinct row contents with the smallest hashes, with how often each came.
//!
//! Guarantees: the same rows in any split and order give the same sample; nothing is lost up to `capacity` distinct
//! rows. Rows are chosen by the hash of their content, so the sample is uniform over the distinct contents, and the
//! threshold gives their number (bottom-k sketch: Cohen and Kaplan, PODC 2007; k minimum values: Bar-Yossef et al.
//! 2002). Must not: hold more than capacity + 1 rows.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::rows::Rows;

/// Rows kept: up to this many, uniformity and the unit covariance are exact.
pub const CAPACITY: usize = 4096;

#[derive(Clone, Debug)]
struct Kept {
    row: RowValues,
    times: u64,
}

/// f32 if that is exact, as for all but f64 input: half the memory.
#[derive(Clone, Debug)]
enum RowValues {
    Single(Box<[f32]>),
    Double(Box<[f64]>),
}

/// A uniform sample of the distinct rows.
#[derive(Clone, Debug)]
pub struct Reservoir {
    capacity: usize,
    total: u64,
    kept: BTreeMap<u64, Kept>,
    overflowed: bool,
}

impl Reservoir {
    /// An empty sample of at most `capacity` rows.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, total: 0, kept: BTreeMap::new(), overflowed: false }
    }

    /// A sample of an array of rows.
    pub fn from_rows(rows: &Rows, capacity: usize) -> Self {
        let mut sample = Self::new(capacity);
        let mut row = vec![0.0; rows.dim()];
        for index in 0..rows.len() {
            rows.read(index, 1, &mut row);
            sample.push(&row);
        }
        sample
    }

    /// Offers one row.
    pub fn push(&mut self, row: &[f64]) {
        self.total += 1;
        let hash = hash(row);
        if let Some(kept) = self.kept.get_mut(&hash) {
            kept.times += 1;
            return;
        }
        if self.kept.len() == self.capacity && self.kept.last_key_value().is_some_and(|(last, _)| hash > *last) {
            self.overflowed = true;
            return;
        }
        let exact_single = row.iter().all(|x| f64::from(*x as f32).to_bits() == x.to_bits());
        let values = if exact_single {
            RowValues::Single(row.iter().map(|x| *x as f32).collect())
        } else {
            RowValues::Double(row.into())
        };
        self.insert(hash, Kept { row: values, times: 1 });
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &Reservoir) {
        self.total += other.total;
        self.overflowed |= other.overflowed;
        for (hash, theirs) in &other.kept {
            match self.kept.get_mut(hash) {
                Some(mine) => mine.times += theirs.times,
                None => self.insert(*hash, theirs.clone()),
            }
        }
    }

    fn insert(&mut self, hash: u64, kept: Kept) {
        self.kept.insert(hash, kept);
        if self.kept.len() > self.capacity {
            self.kept.pop_last();
            self.overflowed = true;
        }
    }

    /// Rows offered.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether every row offered is still included.
    pub fn complete(&self) -> bool {
        !self.overflowed
    }

    /// Distinct contents kept.
    pub fn distinct_kept(&self) -> usize {
        self.kept.len()
    }

    /// Distinct contents offered: counted if complete, otherwise estimated as (k - 1) / (largest kept hash / 2^64).
    pub fn distinct(&self) -> f64 {
        match self.kept.last_key_value() {
            Some((last, _)) if self.overflowed => (self.kept.len() - 1) as f64 / (*last as f64 / 2f64.powi(64)),
            _ => self.kept.len() as f64,
        }
    }

    /// Rows that repeat an earlier row exactly; an estimate unless complete.
    pub fn duplicates(&self) -> f64 {
        let kept: u64 = self.kept.values().map(|kept| kept.times).sum();
        if self.complete() {
            return (kept - self.kept.len() as u64) as f64;
        }
        // The share of repeats among the kept contents is that among all: contents are kept by their hash alone.
        self.total as f64 * (1.0 - self.kept.len() as f64 / kept.max(1) as f64)
    }

    /// The kept contents in hash order: (row, how often it came).
    pub fn rows(&self) -> impl Iterator<Item = (Vec<f64>, u64)> + '_ {
        self.kept.values().map(|kept| {
            let row = match &kept.row {
                RowValues::Single(values) => values.iter().map(|x| f64::from(*x)).collect(),
                RowValues::Double(values) => values.to_vec(),
            };
            (row, kept.times)
        })
    }

    /// Every distinct row with its count, if none was dropped and there are fewer than `dim` of them: then a Gram
    /// matrix of the rows is smaller than the covariance.
    pub fn fewer_than(&self, dim: usize) -> Option<Vec<(Vec<f64>, f64)>> {
        let all_here = self.complete() && self.distinct_kept() < dim;
        all_here.then(|| self.rows().map(|(row, times)| (row, times as f64)).collect())
    }

    /// The most bytes that a sample of `rows` rows of dimension `dim` takes; `size` is 8 if any row is f64, because
    /// such rows may replace any other, otherwise 4.
    pub fn bytes(capacity: usize, rows: u64, dim: usize, size: usize) -> usize {
        rows.min(capacity as u64) as usize * (dim * size + ENTRY_BYTES)
    }
}

/// A map entry, the box's own header and the allocator's rounding.
const ENTRY_BYTES: usize = 96;

fn hash(row: &[f64]) -> u64 {
    let mut hasher = Xxh3::new();
    let mut bytes = [0u8; 1024];
    for block in row.chunks(128) {
        for (to, from) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(block) {
            // -0.0 and 0.0 are the same content.
            *to = (from + 0.0).to_bits().to_le_bytes();
        }
        hasher.update(&bytes[..block.len() * 8]);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(i: u64) -> Vec<f64> {
        vec![i as f64, (i * i) as f64]
    }

    #[test]
    fn any_split_gives_the_same_sample() {
        let mut whole = Reservoir::new(16);
        (0..100).for_each(|i| whole.push(&row(i % 60)));
        let mut left = Reservoir::new(16);
        let mut right = Reservoir::new(16);
        (0..50).rev().for_each(|i| right.push(&row(i % 60)));
        (50..100).for_each(|i| left.push(&row(i % 60)));
        left.merge(&right);
        let contents = |r: &Reservoir| r.rows().collect::<Vec<_>>();
        assert_eq!(contents(&left), contents(&whole));
        assert_eq!((left.total(), left.complete()), (100, false));
        assert!((left.distinct() - 60.0).abs() < 45.0, "{}", left.distinct());
    }

    #[test]
    fn complete_counts_duplicates_exactly() {
        let mut sample = Reservoir::new(16);
        (0..15).for_each(|i| sample.push(&row(i % 5)));
        assert_eq!((sample.distinct(), sample.duplicates(), sample.complete()), (5.0, 10.0, true));
        assert_eq!(Reservoir::bytes(16, 10, 2, 4), 10 * (8 + ENTRY_BYTES));
        assert_eq!(Reservoir::bytes(16, 100, 2, 8), 16 * (16 + ENTRY_BYTES));
    }
}
