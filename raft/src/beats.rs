//! How long each lease has left: known to the leader alone, in memory.
//!
//! Invariant: a lease never ends early. A node that comes to lead gives every lease its full time again, since it cannot know what its
//! predecessor had promised; whoever keeps a lease alive is believed from the moment of asking, confirmed by a majority after it; and once
//! a lease is being ended, nobody is told that it lives.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::lease::LeaseId;
use tokio::time::Instant;

use crate::{rpc::Left, watch::Leases};

/// What the leader remembers of leases. Empty on a node that does not lead.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    /// The term that is led; `None` on a node that does not lead.
    term: Option<u64>,
    leases: BTreeMap<LeaseId, Beat>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    granted: u64,
    ttl: Duration,
    ends: Instant,
    /// It is being ended.
    ending: bool,
}

/// What came of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Left(Left),
    /// It was never granted, or has ended.
    NoLease,
    /// Only the leader knows.
    NotLeading,
}

impl Beats {
    /// Takes note of the term that is led, if any, and of the leases there are.
    pub(crate) fn note(&mut self, now: Instant, term: Option<u64>, leases: &Leases) {
        if self.term != term {
            self.term = term;
            self.leases.clear();
        }
        if term.is_none() {
            return;
        }
        self.leases.retain(|lease, beat| leases.get(lease).is_some_and(|row| row.granted == beat.granted));
        for (lease, row) in leases {
            let ttl = Duration::from_secs(row.ttl_seconds);
            let beat = Beat { granted: row.granted, ttl, ends: now + ttl, ending: false };
            self.leases.entry(*lease).or_insert(beat);
        }
    }

    /// What a lease has left; kept alive since `asked`, if that is given.
    pub(crate) fn ask(&mut self, now: Instant, lease: LeaseId, asked: Option<Instant>) -> Asked {
        if self.term.is_none() {
            return Asked::NotLeading;
        }
        match self.leases.get_mut(&lease) {
            Some(beat) if !beat.ending => {
                if let Some(asked) = asked {
                    beat.ends = beat.ends.max(asked + beat.ttl);
                }
                let remaining = beat.ends.saturating_duration_since(now);
                let remaining_millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
                Asked::Left(Left { ttl_seconds: beat.ttl.as_secs(), remaining_millis })
            }
            _ => Asked::NoLease,
        }
    }

    /// When the next lease ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.leases.values().map(|beat| beat.ends).min()
    }

    /// Begins to end the leases whose time is over, if `term` is still the one that is led: which, and the entries that granted them.
    pub(crate) fn end(&mut self, now: Instant, term: u64) -> Vec<(LeaseId, u64)> {
        if self.term != Some(term) {
            return Vec::new();
        }
        let over = self.leases.iter_mut().filter(|(_, beat)| beat.ends <= now);
        over.map(|(lease, beat)| {
            beat.ending = true;
            (*lease, beat.granted)
        })
        .collect()
    }

    /// The term that is led.
    pub(crate) const fn term(&self) -> Option<u64> {
        self.term
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::LeaseRow;

    const TTL: Duration = Duration::from_secs(10);

    fn lease(number: u64) -> LeaseId {
        LeaseId::new(number).unwrap()
    }

    fn granted(granted: u64) -> Leases {
        [(lease(1), LeaseRow { ttl_seconds: 10, granted, keys: 0 })].into()
    }

    fn left(asked: Asked) -> Duration {
        match asked {
            Asked::Left(left) => Duration::from_millis(left.remaining_millis),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_kept_alive_gets_its_full_time_from_when_that_was_asked() {
        let (mut beats, start) = (Beats::default(), Instant::now());
        beats.note(start, Some(1), &granted(7));
        let asked = start + Duration::from_secs(9);
        let answered = asked + Duration::from_secs(3);
        assert_eq!(left(beats.ask(answered, lease(1), Some(asked))), Duration::from_secs(7));
        assert!(beats.end(asked + TTL - Duration::from_millis(1), 1).is_empty(), "not early");
        assert_eq!(beats.end(asked + TTL, 1), [(lease(1), 7)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_to_lead_gives_every_lease_its_full_time_again() {
        let (mut beats, start) = (Beats::default(), Instant::now());
        beats.note(start, Some(1), &granted(7));
        let later = start + TTL;
        beats.note(later, Some(2), &granted(7));
        assert!(beats.end(later, 2).is_empty());
        assert_eq!(beats.next(), Some(later + TTL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_lead_ends_nothing_and_knows_nothing() {
        let (mut beats, start) = (Beats::default(), Instant::now());
        beats.note(start, Some(1), &granted(7));
        beats.note(start, None, &granted(7));
        assert_eq!((beats.next(), beats.ask(start, lease(1), None)), (None, Asked::NotLeading));
        assert!(beats.end(start + TTL, 1).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_told_that_a_lease_lives_which_is_being_ended() {
        let (mut beats, start) = (Beats::default(), Instant::now());
        beats.note(start, Some(1), &granted(7));
        assert_eq!(beats.end(start + TTL, 1).len(), 1);
        assert_eq!(beats.ask(start + TTL, lease(1), Some(start + TTL)), Asked::NoLease);
        assert_eq!(beats.end(start + TTL, 1).len(), 1, "tried again until it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_granted_anew_under_its_old_number_is_another_one() {
        let (mut beats, start) = (Beats::default(), Instant::now());
        beats.note(start, Some(1), &granted(7));
        beats.end(start + TTL, 1);
        beats.note(start + TTL, Some(1), &granted(8));
        assert_eq!(left(beats.ask(start + TTL, lease(1), None)), TTL);
    }
}
