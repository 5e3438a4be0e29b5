//! How fast elections may be, by what disk and network were measured to take.
//!
//! openraft takes its timing when a store is opened, so a pace is chosen at the daemon's start: from a probe of the disk, and from what
//! the last run saw. Nodes of one cluster may differ in it for a while: that costs elections, never agreement, since a node that asks too
//! early for votes is refused by those that still hear the leader.
//!
//! Invariant: a pace is taken up only with room to spare, and given up the moment it does not fit: it does not change to and fro.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Timing;

/// What a node has measured. Stored as JSON: fields may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// How long the slowest of the syncs took that are to count, in microseconds.
    pub sync_micros: u64,
    /// How long the way to another voter and back took, likewise.
    pub round_trip_micros: u64,
}

/// How fast elections are. The quickest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pace {
    /// Quick disks on a quick local network.
    Quick,
    /// A local network with ordinary disks.
    Lan,
    /// Slow disks, or a machine with much to do.
    Careful,
    /// Memory cards, and links with round trips up to 200 ms.
    Edge,
}

impl Measured {
    /// What a run has measured in place of what was known before, as far as it has.
    #[must_use]
    pub fn renewed(self, sync: Option<Duration>, round_trip: Option<Duration>) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            sync_micros: sync.map_or(self.sync_micros, micros),
            round_trip_micros: round_trip.map_or(self.round_trip_micros, micros),
        }
    }
}

impl Pace {
    const ALL: [Self; 4] = [Self::Quick, Self::Lan, Self::Careful, Self::Edge];

    /// The pace for what was measured; `before` is the pace until now, if there was one.
    #[must_use]
    pub fn fitting(measured: Measured, before: Option<Self>) -> Self {
        let slowest = *Self::ALL.iter().find(|pace| pace.fits(measured, 1)).unwrap_or(&Self::Edge);
        match before {
            // Quicker than before only with twice the room.
            Some(before) if slowest < before => {
                *Self::ALL.iter().find(|pace| pace.fits(measured, 2)).unwrap_or(&before).min(&before)
            }
            _ => slowest,
        }
    }

    /// Heartbeats and elections at this pace.
    #[must_use]
    pub const fn timing(self) -> Timing {
        match self {
            Self::Quick => Timing::QUICK,
            Self::Lan => Timing::LAN,
            Self::Careful => Timing::CAREFUL,
            Self::Edge => Timing::EDGE,
        }
    }

    /// Whether a heartbeat, which is answered after whatever is being synced, is sure to be in time; with so many times the room.
    fn fits(self, measured: Measured, room: u32) -> bool {
        let timing = self.timing();
        let way = Duration::from_micros(measured.round_trip_micros);
        let answer = Duration::from_micros(measured.sync_micros) + way;
        answer * room * 5 <= timing.heartbeat * 2 && way * room * 10 <= timing.election_min
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Quick => "quick",
            Self::Lan => "lan",
            Self::Careful => "careful",
            Self::Edge => "edge",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measured(sync_millis: u64, round_trip_millis: u64) -> Measured {
        Measured { sync_micros: sync_millis * 1000, round_trip_micros: round_trip_millis * 1000 }
    }

    #[test]
    fn disk_and_network_say_how_fast_elections_may_be() {
        let pace = |sync, way| Pace::fitting(measured(sync, way), None);
        assert_eq!([pace(4, 1), pace(29, 1), pace(30, 1)], [Pace::Quick, Pace::Quick, Pace::Lan]);
        assert_eq!([pace(60, 20), pace(90, 10), pace(900, 150)], [Pace::Careful, Pace::Careful, Pace::Edge]);
        assert_eq!(pace(2, 25), Pace::Lan, "the shortest election takes ten ways there and back");
    }

    #[test]
    fn a_node_becomes_careful_at_once_and_quick_again_only_with_room_to_spare() {
        let now = |sync, before| Pace::fitting(measured(sync, 1), Some(before));
        assert_eq!(now(40, Pace::Quick), Pace::Lan);
        assert_eq!(now(28, Pace::Lan), Pace::Lan);
        assert_eq!(now(14, Pace::Lan), Pace::Quick);
        assert_eq!(now(28, Pace::Edge), Pace::Lan, "as quick as there is room for");
    }

    proptest! {
        #[test]
        fn a_pace_fits_what_was_measured_and_is_chosen_again(sync in 0..2_000_000_u64, way in 0..400_000_u64, before in 0..5_usize) {
            let measured = Measured { sync_micros: sync, round_trip_micros: way };
            let before = Pace::ALL.get(before).copied();
            let pace = Pace::fitting(measured, before);
            prop_assert!(pace == Pace::Edge || pace.fits(measured, 1));
            prop_assert_eq!(Pace::fitting(measured, Some(pace)), pace);
        }
    }
}
