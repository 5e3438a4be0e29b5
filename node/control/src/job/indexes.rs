//! Sets of completion indexes as Kubernetes writes them: `0,2-4,7`.
//!
//! Invariant: ranges are in order, apart from each other, and as few as can be: equal sets have equal texts.

use std::fmt;

/// A set of indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads a set; what is no range is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut indexes = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
                && first <= last
            {
                indexes.add(first, last);
            }
        }
        indexes
    }

    /// Adds an index.
    pub(super) fn insert(&mut self, index: u32) {
        self.add(index, index);
    }

    fn add(&mut self, mut first: u32, mut last: u32) {
        self.0.retain(|range| {
            let touches = range.0 <= last.saturating_add(1) && first <= range.1.saturating_add(1);
            if touches {
                first = first.min(range.0);
                last = last.max(range.1);
            }
            !touches
        });
        let at = self.0.partition_point(|range| range.0 < first);
        self.0.insert(at, (first, last));
    }

    /// Whether an index is in the set.
    pub(super) fn contains(&self, index: u32) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }

    /// How many indexes there are.
    pub(super) fn len(&self) -> i64 {
        self.0.iter().map(|(first, last)| i64::from(*last) - i64::from(*first) + 1).sum()
    }

    /// The indexes below `end` that are not in the set, smallest first.
    pub(super) fn missing(&self, end: u32) -> impl Iterator<Item = u32> + '_ {
        let starts = std::iter::once(0).chain(self.0.iter().map(|(_, last)| last.saturating_add(1)));
        let ends = self.0.iter().map(|(first, _)| *first).chain([end]);
        starts.zip(ends).flat_map(move |(start, next)| start..next.min(end))
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            formatter.write_str(if place == 0 { "" } else { "," })?;
            match last - first {
                0 => write!(formatter, "{first}")?,
                1 => write!(formatter, "{first},{last}")?,
                _ => write!(formatter, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_are_written_as_in_kubernetes() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "0,2,4"] {
            assert_eq!(Indexes::parse(text).to_string(), text);
        }
        assert_eq!(Indexes::parse("4,1-2,x,3,9-7").to_string(), "1-4");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_set_holds_what_was_put_into_it(added in prop::collection::vec(0..40_u32, 0..60)) {
            let mut indexes = Indexes::default();
            for index in &added {
                indexes.insert(*index);
            }
            let set: BTreeSet<u32> = added.into_iter().collect();
            prop_assert_eq!(usize::try_from(indexes.len()).unwrap(), set.len());
            prop_assert!((0..40).all(|index| indexes.contains(index) == set.contains(&index)));
            let missing: Vec<u32> = (0..30).filter(|index| !set.contains(index)).collect();
            prop_assert_eq!(indexes.missing(30).collect::<Vec<_>>(), missing);
            prop_assert_eq!(Indexes::parse(&indexes.to_string()), indexes);
        }
    }
}
