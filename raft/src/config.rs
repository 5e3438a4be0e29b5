//! How a store is set up: who it is, how fast elections are, when the log is cut.
//!
//! Invariant: a heartbeat is longer than the 99.9th percentile of an fsync and a round trip together, and the shortest election at
//! least two and a half heartbeats; otherwise leadership lapses under load. The profiles hold to that on the machines they name; `pace.rs` chooses.

use std::time::Duration;

use openraft::{SnapshotPolicy, StepDownPolicy};
use quorate_proto::ids::{ClusterId, NodeId};

use crate::store::Retention;

/// Who a store is and how it behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster. A directory of another cluster is refused.
    pub cluster: ClusterId,
    /// This node. A directory of another node is refused: an id is bound to its data (D5).
    pub node: NodeId,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// When the log is cut.
    pub log: LogLimits,
    /// How much of the past can be read and watched.
    pub retention: Retention,
}

impl Config {
    /// A configuration with the usual limits.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, timing: Timing) -> Self {
        Self { cluster, node, timing, log: LogLimits::default(), retention: Retention::default() }
    }
}

/// Heartbeats and elections. Failover takes about the longest election time plus one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// The shortest time without a leader before a node stands for election.
    pub election_min: Duration,
    /// The longest such time, and how long a follower trusts a silent leader.
    pub election_max: Duration,
}

impl Timing {
    /// A quick local network with quick disks: fails over in about 0.6 s.
    pub const QUICK: Self = Self::millis(75, 200, 350);
    /// A local network with ordinary disks: fails over in about a second and a half.
    pub const LAN: Self = Self::millis(150, 500, 900);
    /// The choice while nothing has been measured: fails over in about 2.5 s.
    pub const CAREFUL: Self = Self::millis(250, 750, 1500);
    /// Memory cards and links with round trips up to 200 ms: fails over in about 10 s.
    pub const EDGE: Self = Self::millis(1000, 3000, 6000);
    /// Simulated time, which costs nothing.
    pub const SIMULATED: Self = Self::millis(100, 400, 800);

    const fn millis(heartbeat: u64, election_min: u64, election_max: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
        }
    }

    /// How long a proposal or a read waits for a leader before it is refused: one whole failover.
    pub(crate) fn patience(&self) -> Duration {
        self.election_max * 4
    }
}

/// When a Raft snapshot is made and how much log stays behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// A snapshot is made after this many bytes of log.
    pub bytes: u64,
    /// A snapshot is made after this many entries at the latest.
    pub entries: u64,
    /// So many entries stay behind a snapshot: a node that was away for so long needs no snapshot.
    pub keep: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { bytes: 32 << 20, entries: 50_000, keep: 5_000 }
    }
}

/// openraft's own settings for this store.
pub(crate) fn openraft(config: &Config) -> Result<openraft::Config, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let Timing { heartbeat, election_min, election_max } = config.timing;
    openraft::Config {
        cluster_name: config.cluster.to_string(),
        heartbeat_interval: millis(heartbeat),
        election_timeout_min: millis(election_min),
        election_timeout_max: millis(election_max),
        enable_pre_vote: Some(true),
        // A restarted leader would lead on without an election, on a state that may lag behind what it had shown.
        enable_leader_restore: Some(false),
        // Else a leader that hears no quorum keeps, by its heartbeats, the others from electing one that does.
        quorum_loss_probe_interval: Some(millis(election_max * 2)),
        removed_leader_step_down: StepDownPolicy::After(millis(heartbeat.max(Duration::from_millis(150)))),
        // Snapshots follow the bytes of the log, which openraft does not count: see `housekeeping.rs`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.log.keep,
        replication_lag_threshold: config.log.keep.saturating_mul(2).max(1_000),
        purge_batch_size: config.log.keep.clamp(1, 256),
        max_payload_entries: 512,
        install_snapshot_timeout: 60_000,
        ..openraft::Config::default()
    }
    .validate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_one_that_openraft_accepts() {
        for timing in [Timing::QUICK, Timing::LAN, Timing::CAREFUL, Timing::EDGE, Timing::SIMULATED] {
            assert!(timing.election_min * 2 >= timing.heartbeat * 5, "{timing:?}");
            openraft(&Config::new(ClusterId(1), NodeId(1), timing)).unwrap();
        }
    }
}
