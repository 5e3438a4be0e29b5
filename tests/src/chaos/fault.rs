//! Which fault strikes in which round: chosen by the seed. Pure.
//!
//! Invariant: a round depends on the seed, its number and the faults that were asked for, and on nothing that happened before.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, and a new start.
    Kill,
    /// Stopped, and told to go on.
    Pause,
    /// Nodes that do not hear each other.
    Partition,
    /// A disk without room.
    Disk,
    /// Files that are not as they were written.
    Damage,
    /// A sync that fails.
    Sync,
    /// A wall clock that jumps.
    Clock,
    /// Hardly any file descriptors.
    Files,
}

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Who leads then.
    Leader,
    /// One that does not.
    Follower,
    /// Two of the three.
    Two,
    /// All.
    All,
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Which, from 0.
    pub number: u64,
    /// What strikes.
    pub kind: Kind,
    /// Whom.
    pub who: Who,
    /// How long after the round has begun.
    pub phase: Duration,
    /// How long it lasts: from a tenth of a second to ten, as often below a second as above.
    pub lasts: Duration,
    /// What else has to be chosen.
    pub choice: u64,
}

/// All, as they are named and how often each comes. Those that take long come seldom.
const KINDS: [(Kind, &str, u32); 8] = [
    (Kind::Kill, "kill", 16),
    (Kind::Pause, "pause", 6),
    (Kind::Partition, "partition", 6),
    (Kind::Disk, "disk", 1),
    (Kind::Damage, "damage", 2),
    (Kind::Sync, "sync", 1),
    (Kind::Clock, "clock", 1),
    (Kind::Files, "files", 1),
];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = KINDS_ONLY;

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// The one of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known, _)| *known == name).map(|(kind, ..)| *kind)
    }

    /// Whether it can strike etcd as it strikes us: its members make no use of the C library, listen on several ports, and are not
    /// replaced by the others when their data is damaged.
    #[must_use]
    pub const fn fits_etcd(self) -> bool {
        matches!(self, Self::Kill | Self::Pause)
    }
}

const KINDS_ONLY: [Kind; 8] = {
    let mut kinds = [Kind::Kill; 8];
    let mut at = 0;
    while at < kinds.len() {
        kinds[at] = KINDS[at].0;
        at += 1;
    }
    kinds
};

impl Round {
    /// The round of a number, of these kinds.
    #[must_use]
    pub fn choose(seed: u64, number: u64, kinds: &[Kind]) -> Self {
        let mut random = random(seed, number);
        let weighed = || KINDS.iter().filter(|(kind, ..)| kinds.contains(kind));
        let mut at = random.random_range(0..weighed().map(|(.., weight)| weight).sum::<u32>().max(1));
        let found = weighed().find(|(.., weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let who = match random.random_range(0..100) {
            0..40 => Who::Leader,
            40..65 => Who::Follower,
            65..85 => Who::Two,
            _ => Who::All,
        };
        Self {
            number,
            kind: found.map_or(Kind::Kill, |(kind, ..)| *kind),
            who,
            phase: Duration::from_millis(random.random_range(0..600)),
            lasts: Duration::from_secs_f64(10_f64.powf(random.random_range(-1.0..1.0))),
            choice: random.random(),
        }
    }
}

/// Randomness of a seed for one purpose.
pub(super) fn random(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}

/// Which nodes are meant.
#[must_use]
pub fn targets(who: Who, leader: usize, choice: u64) -> Vec<usize> {
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let follower = if choice & 1 == 0 { one } else { other };
    match who {
        Who::Leader => vec![leader],
        Who::Follower => vec![follower],
        Who::Two if choice & 2 == 0 => vec![leader, follower],
        Who::Two => vec![one, other],
        Who::All => vec![0, 1, 2],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_chooses_the_same_rounds_again_and_another_seed_others() {
        let rounds = |seed| (0..50).map(|number| Round::choose(seed, number, &Kind::ALL)).collect::<Vec<_>>();
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
    }

    #[test]
    fn every_kind_comes_and_no_other_than_was_asked_for() {
        let kinds = |asked: &[Kind]| -> BTreeSet<Kind> {
            (0..500).map(|number| Round::choose(7, number, asked).kind).collect()
        };
        assert_eq!(kinds(&Kind::ALL), Kind::ALL.into());
        assert_eq!(kinds(&[Kind::Disk, Kind::Kill]), [Kind::Disk, Kind::Kill].into());
        let round = |number| Round::choose(7, number, &[Kind::Pause]);
        assert!((0..500).map(round).all(|round| round.lasts.as_secs_f64() >= 0.1 && round.lasts.as_secs_f64() <= 10.0));
    }

    #[test]
    fn who_is_meant_follows_the_leader() {
        assert_eq!(targets(Who::Leader, 2, 0), [2]);
        assert_eq!(targets(Who::Follower, 2, 0), [0]);
        assert_eq!(targets(Who::Follower, 2, 1), [1]);
        assert_eq!(targets(Who::Two, 0, 0), [0, 1]);
        assert_eq!(targets(Who::Two, 0, 2), [1, 2]);
        assert_eq!(targets(Who::All, 1, 0), [0, 1, 2]);
    }

    #[test]
    fn kinds_have_names() {
        assert!(Kind::ALL.into_iter().all(|kind| Kind::named(kind.name()) == Some(kind)));
        assert_eq!(Kind::named("whatever"), None);
    }
}
