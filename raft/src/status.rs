//! What a store knows of its cluster, for whoever waits for it to change.
//!
//! Invariant: a status is sent only when it differs from the one before; heartbeats alone change nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{Instant as _, ServerState, async_runtime::watch::WatchReceiver, type_config::alias::WatchReceiverOf};
use quorate_proto::{ids::NodeId, txn::Revision};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{LogLimits, Timing},
    delay::Delays,
    fault::{Fault, Fence},
    heard::Heard,
    log::Log,
    snapshot::Vault,
    space::Room,
    store::Raft,
    types::TypeConfig,
    voters::Health,
    watch::Progress,
};

pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// A healthy node's log is not further behind than this.
const MAX_LAG: u64 = 250;

/// How far the state and the peers have come is looked at this often at most: under load it changes thousands of times a second, and
/// whoever waits for the status would be woken each time.
const REST: Duration = Duration::from_millis(100);

/// A snapshot of so many bytes costs too little to be put off.
const SMALL: u64 = 8 << 20;

/// A log that has grown by so many bytes is cut whatever it costs: all of it is read and checked when a store is opened.
const LONGEST: u64 = 512 << 20;

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The leader, as far as this node knows. One that was not heard for some seconds is none, and this node is one only while it is `leading`.
    pub leader: Option<NodeId>,
    /// Whether this node leads, and a majority has confirmed it lately. A leader that is cut off does not lead.
    pub leading: bool,
    /// The Raft term.
    pub term: u64,
    /// The newest revision this node has applied, as of some milliseconds ago while it changes often.
    pub revision: Revision,
    /// A hash over all changes up to that revision, equal on all nodes.
    pub hash: u32,
    /// All members, by id.
    pub members: Vec<Member>,
    /// Whether the voters are being changed.
    pub changing: bool,
    /// Why the store takes no part any more, if it does not.
    pub fault: Option<Fault>,
    /// How much room this node's disk has.
    pub room: Room,
}

/// A member of the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Whether it votes.
    pub voter: bool,
}

/// Keeps the status, remembers since when peers are healthy, and asks for snapshots.
pub(crate) struct Keeper {
    pub(crate) node: NodeId,
    pub(crate) timing: Timing,
    pub(crate) limits: LogLimits,
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) vault: Vault,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) health: Arc<Mutex<HealthLog>>,
    pub(crate) fence: Fence,
    pub(crate) heard: Arc<Heard>,
    pub(crate) room: watch::Receiver<Room>,
}

/// Since when peers are healthy, and when they were last heard. Empty on a node that does not lead.
#[derive(Debug, Default)]
pub(crate) struct HealthLog(BTreeMap<NodeId, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    heard: Instant,
    healthy: Option<Instant>,
    lag: u64,
}

impl Keeper {
    /// Runs until the store stops.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (mut metrics, mut raised, mut room) = (self.raft.metrics(), self.fence.raised(), self.room.clone());
        // Who leads and who belongs to the cluster: what changes seldom, and is told at once.
        let mut server = self.raft.server_metrics();
        'running: loop {
            let seen = metrics.borrow_watched().clone();
            let lapses = self.refresh(&seen);
            self.housekeep(&seen).await;
            let (rest, mut rested) = (Instant::now() + REST, false);
            loop {
                let lapse = async {
                    match lapses {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = server.changed() => if changed.is_err() { break 'running } else { break },
                    changed = room.changed() => if changed.is_err() { break 'running } else { break },
                    _ = raised.wait_for(Option::is_some) => break 'running,
                    () = self.heard.news() => break,
                    () = lapse => break,
                    changed = metrics.changed(), if rested => if changed.is_err() { break 'running } else { break },
                    changed = self.progress.changed(), if rested => if changed.is_err() { break 'running } else { break },
                    () = sleep_until(rest), if !rested => rested = true,
                }
            }
        }
        // openraft has ended by itself, and its last word says why; or it is to end.
        if self.fence.fault().is_some() {
            self.refresh(&metrics.borrow_watched().clone());
            if let Err(error) = self.raft.shutdown().await {
                tracing::debug!(%error, "agreement had ended already");
            }
        }
        let seen = metrics.borrow_watched().clone();
        self.refresh(&seen);
        // One that broke down has none.
        self.status.send_if_modified(|status| {
            let silent = status.fault.is_none();
            status.fault.get_or_insert_with(|| Fault::Ended("it broke down; the log says where".to_owned()));
            silent
        });
    }

    /// Sends the status if it changed; when whoever leads counts no more, unless something is heard before: of a majority if it is this node.
    fn refresh(&self, metrics: &Metrics) -> Option<Instant> {
        let progress = *self.progress.borrow();
        let lapses = lapses(metrics, self.node, self.timing.election_max);
        let ended = metrics.running_state.as_ref().err().map(|error| Fault::Ended(error.to_string()));
        let fault = self.fence.fault().or(ended);
        let leading =
            fault.is_none() && metrics.state == ServerState::Leader && lapses.is_none_or(|at| at > Instant::now());
        // How long another one counts that led when it was last heard.
        let other = metrics.current_leader.filter(|leader| *leader != self.node);
        let trusted = other.and_then(|leader| self.heard.until(leader));
        let leader = if leading { Some(self.node) } else { other.filter(|_| trusted.is_some()) };
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let member = |(id, _): (&NodeId, &_)| Member { id: *id, voter: voters.contains(id) };
        let status = Status {
            leader,
            leading,
            term: metrics.current_term,
            revision: progress.revision,
            hash: progress.hash,
            members: membership.nodes().map(member).collect(),
            changing: membership.get_joint_config().len() > 1,
            fault,
            room: *self.room.borrow(),
        };
        self.health.lock().unwrap_or_else(PoisonError::into_inner).note(metrics, self.node, self.timing.heartbeat);
        self.status.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
        trusted.or(lapses.filter(|_| leading))
    }

    /// Asks for a snapshot when the log has grown enough.
    async fn housekeep(&self, metrics: &Metrics) {
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        let since = applied.saturating_sub(metrics.snapshot.map_or(0, |id| id.index));
        let growth = self.log.growth();
        let due = growth >= self.limits.bytes || since >= self.limits.entries;
        // A snapshot is as large as the state: it is made when there is room for it, and when it lets go of a log that is worth it.
        let due = due && since > 0 && is_worth(growth, self.vault.size());
        if due && self.room.borrow().short().is_none() {
            self.log.restart_growth();
            if let Err(error) = self.raft.trigger().snapshot().await {
                tracing::debug!(%error, "no snapshot: the store stops");
            }
        }
    }
}

/// Whether a log has grown enough for a snapshot, if the one before has so many bytes.
///
/// Writing a snapshot costs about as much as writing its bytes to the log did. Made whenever a fixed piece of log has come together, a
/// large state would be written over and over; made when the log has grown by as much as the state has, it costs what the log cost.
const fn is_worth(growth: u64, size: u64) -> bool {
    size <= SMALL || growth >= LONGEST || growth >= size.saturating_mul(2)
}

/// When leadership lapses; `None`: never, since there is no other voter, or this node does not lead.
fn lapses(metrics: &Metrics, node: NodeId, lease: Duration) -> Option<Instant> {
    let alone = metrics.membership_config.voter_ids().all(|voter| voter == node);
    if metrics.state != ServerState::Leader || alone {
        return None;
    }
    Some(metrics.last_quorum_acked.map_or_else(Instant::now, |at| instant(at.elapsed()) + lease))
}

/// The instant that is so long ago: openraft hides the one it wraps.
fn instant(ago: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}

impl HealthLog {
    fn note(&mut self, metrics: &Metrics, node: NodeId, heartbeat: Duration) {
        let (Some(heartbeats), Some(replication)) = (&metrics.heartbeat, &metrics.replication) else {
            self.0.clear();
            return;
        };
        let now = Instant::now();
        let last = metrics.last_log_index.unwrap_or(0);
        let peers = metrics.membership_config.nodes().map(|(peer, _)| *peer).filter(|peer| *peer != node);
        let mut next = BTreeMap::new();
        for peer in peers {
            let before = self.0.get(&peer);
            let acked = heartbeats.get(&peer).copied().flatten().map(|at| instant(at.elapsed()));
            // A new leader cannot know what the last one heard: it counts from its own first moment.
            let heard = acked.or(before.map(|seen| seen.heard)).unwrap_or(now);
            let lag = last.saturating_sub(replication.get(&peer).copied().flatten().map_or(0, |id| id.index));
            let healthy = acked.is_some() && now.duration_since(heard) <= heartbeat * 10 && lag <= MAX_LAG;
            let healthy = healthy.then(|| before.and_then(|seen| seen.healthy).unwrap_or(now));
            next.insert(peer, Seen { heard, healthy, lag });
        }
        self.0 = next;
    }

    /// What the planner is told.
    pub(crate) fn report(&self, delays: &Delays) -> BTreeMap<NodeId, Health> {
        let now = Instant::now();
        let health = |(peer, seen): (&NodeId, &Seen)| {
            let health = Health {
                healthy_for: seen.healthy.map(|since| now.duration_since(since)),
                silent_for: now.duration_since(seen.heard),
                lag: seen.lag,
                delay: delays.of(*peer),
            };
            (*peer, health)
        };
        self.0.iter().map(health).collect()
    }
}

/// openraft's receiver of its metrics.
pub(crate) type MetricsReceiver = WatchReceiverOf<TypeConfig, Metrics>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_is_written_again_only_when_the_log_has_grown_by_as_much() {
        assert!(is_worth(1, 0) && is_worth(1, SMALL));
        assert!(!is_worth(32 << 20, 100 << 20));
        assert!(is_worth(200 << 20, 100 << 20));
        assert!(is_worth(LONGEST, u64::MAX), "a log has an end");
    }
}
