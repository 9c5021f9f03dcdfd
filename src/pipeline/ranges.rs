//! A map from u64 to small values, kept as ranges: what a long run claims is mostly one range.
//!
//! Guarantees: neighbours with equal values are one range. Must not: hold a range twice.

use std::collections::BTreeMap;

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges<V> {
    /// First key to (last key, value).
    ranges: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for Ranges<V> {
    fn default() -> Self {
        Self { ranges: BTreeMap::new() }
    }
}

impl<V: Copy + PartialEq> Ranges<V> {
    /// The value at `key`.
    pub(super) fn get(&self, key: u64) -> Option<V> {
        let (_, (last, value)) = self.ranges.range(..=key).next_back()?;
        (key <= *last).then_some(*value)
    }

    /// Sets the value at `key`.
    pub(super) fn insert(&mut self, key: u64, value: V) {
        self.remove(key);
        let (mut first, mut last) = (key, key);
        if let Some((start, (end, v))) = self.ranges.range(..key).next_back().map(|(s, r)| (*s, *r))
            && end.checked_add(1) == Some(key)
            && v == value
        {
            self.ranges.remove(&start);
            first = start;
        }
        if let Some(next) = key.checked_add(1)
            && let Some((end, v)) = self.ranges.get(&next).copied()
            && v == value
        {
            self.ranges.remove(&next);
            last = end;
        }
        self.ranges.insert(first, (last, value));
    }

    fn remove(&mut self, key: u64) {
        let Some((first, (last, value))) = self.ranges.range(..=key).next_back().map(|(s, r)| (*s, *r)) else { return };
        if key > last {
            return;
        }
        self.ranges.remove(&first);
        if first < key {
            self.ranges.insert(first, (key - 1, value));
        }
        if key < last {
            self.ranges.insert(key + 1, (last, value));
        }
    }

    /// The greatest key.
    pub(super) fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, (last, _))| *last)
    }

    /// (first key, last key, value), ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, V)> + '_ {
        self.ranges.iter().map(|(first, (last, value))| (*first, *last, *value))
    }

    /// From what [`Ranges::iter`] gave.
    pub(super) fn from_parts(parts: impl IntoIterator<Item = (u64, u64, V)>) -> Self {
        Self { ranges: parts.into_iter().map(|(first, last, value)| (first, (last, value))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_map(keys in prop::collection::vec((0u64..40, 0u8..3), 0..80)) {
            let mut ranges = Ranges::default();
            let mut map = BTreeMap::new();
            for (key, value) in keys {
                ranges.insert(key, value);
                map.insert(key, value);
            }
            for key in 0..41 {
                prop_assert_eq!(ranges.get(key), map.get(&key).copied());
            }
            let parts: Vec<_> = ranges.iter().collect();
            prop_assert!(parts.windows(2).all(|p| p[0].1 + 1 < p[1].0 || p[0].2 != p[1].2));
            prop_assert_eq!(Ranges::from_parts(parts), ranges);
        }
    }

    #[test]
    fn the_greatest_key_does_not_overflow() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX, ());
        ranges.insert(u64::MAX - 1, ());
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(u64::MAX - 1, u64::MAX, ())]);
        assert_eq!(ranges.last(), Some(u64::MAX));
    }
}
