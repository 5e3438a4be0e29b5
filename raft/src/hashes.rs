//! The hashes of a state at its newest revisions, and what it means that other nodes have the same, or others (pure).
//!
//! Invariant: a node is taken to be wrong only if more than half of all members have one and the same other hash.

use std::collections::{BTreeMap, VecDeque};

use quorate_proto::txn::Revision;

/// So many revisions back a node still knows what its hash was: longer than nodes are apart that hear each other.
const KEPT: usize = 4096;

/// The hashes at the newest revisions, oldest first, without a gap.
#[derive(Debug)]
pub(crate) struct Hashes(VecDeque<(Revision, u32)>);

impl Hashes {
    /// Of a state as it was found: what was before is not known.
    pub(crate) fn found(revision: Revision, hash: u32) -> Self {
        Self(VecDeque::from([(revision, hash)]))
    }

    /// Adds what the next revisions made of it.
    pub(crate) fn add(&mut self, newer: impl IntoIterator<Item = (Revision, u32)>) {
        self.0.extend(newer);
        let old = self.0.len().saturating_sub(KEPT);
        self.0.drain(..old);
    }

    /// The newest revision, and its hash.
    pub(crate) fn newest(&self) -> Option<(Revision, u32)> {
        self.0.back().copied()
    }

    /// The hash at a revision, if it is known.
    pub(crate) fn at(&self, revision: Revision) -> Option<u32> {
        let (oldest, _) = self.0.front()?;
        let place = usize::try_from(revision.0.checked_sub(oldest.0)?).ok()?;
        self.0.get(place).map(|(_, hash)| *hash)
    }
}

/// What a comparison says of the node that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Too few have answered.
    Unknown,
    /// Most members have what it has, and nobody has anything else.
    Agreed,
    /// Most members agree on another hash: it is wrong.
    Wrong {
        /// Theirs.
        agreed: u32,
    },
    /// Somebody is wrong, and it is not known who.
    Split,
}

/// Judges a node by its own hash at a revision and those of the members that have answered, of so many `members` in all.
pub(crate) fn judge(own: u32, others: &[u32], members: usize) -> Verdict {
    let most = members / 2 + 1;
    let mut counts: BTreeMap<u32, usize> = BTreeMap::from([(own, 1)]);
    for hash in others {
        *counts.entry(*hash).or_default() += 1;
    }
    match counts.iter().find(|(_, count)| **count >= most) {
        Some((hash, _)) if *hash != own => Verdict::Wrong { agreed: *hash },
        _ if counts.len() > 1 => Verdict::Split,
        Some(_) => Verdict::Agreed,
        None => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_wrong_only_if_most_members_agree_against_it() {
        assert_eq!(judge(1, &[1, 1], 3), Verdict::Agreed);
        assert_eq!(judge(1, &[1], 3), Verdict::Agreed, "one does not answer");
        assert_eq!(judge(1, &[], 3), Verdict::Unknown);
        assert_eq!(judge(1, &[2, 2], 3), Verdict::Wrong { agreed: 2 });
        assert_eq!(judge(2, &[2, 1], 3), Verdict::Split, "another one is wrong, and says so itself");
        assert_eq!(judge(1, &[2], 2), Verdict::Split, "of two, either may be wrong");
        assert_eq!(judge(1, &[2, 3], 3), Verdict::Split);
        assert_eq!(judge(1, &[2, 2], 5), Verdict::Split, "two of five are not most");
        assert_eq!(judge(1, &[], 1), Verdict::Agreed);
    }

    #[test]
    fn hashes_are_known_for_the_newest_revisions() {
        let mut hashes = Hashes::found(Revision(7), 70);
        hashes.add((8..=9).map(|revision| (Revision(revision), revision as u32 * 10)));
        assert_eq!([6, 7, 9, 10].map(|revision| hashes.at(Revision(revision))), [None, Some(70), Some(90), None]);
        hashes.add((10..=20_000).map(|revision| (Revision(revision), 1)));
        assert_eq!(hashes.newest(), Some((Revision(20_000), 1)));
        assert_eq!(hashes.at(Revision(9)), None);
        assert_eq!(hashes.0.len(), KEPT);
    }
}
