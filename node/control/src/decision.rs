//! What controllers decide on, what they decide, and the list of them.
//!
//! Invariant: in a merged decision a key is written by at most one transaction, and none compares a key that another writes before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_proto::{
    key::Key,
    snapshot,
    txn::{MAX_OPERATIONS, MAX_TXN, Txn},
    world::{Instant, Random, Timestamp},
};

use crate::{
    collect, cronjob, daemonset, deployment, evict, expire, job, namespace, node_lifecycle, replicaset, schedule,
};

/// What is known when deciding: the agreed objects, and what this leader heard itself.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The store, at one revision.
    pub objects: &'a snapshot::Snapshot,
    /// When each node, by name, was last heard; on the clock of [`Moment::now`].
    pub heard: &'a BTreeMap<String, Instant>,
    /// Since when this node leads. It cannot know what the last leader heard, and counts silence from here.
    pub leading_since: Instant,
    /// The cluster's bounds.
    pub settings: &'a Settings,
}

/// All that may differ between two decisions on one snapshot.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// Monotonic time, for silence and deadlines.
    pub now: Instant,
    /// Wall time, for what is written into objects and was read from them.
    pub wall: Timestamp,
    /// Names and uids of new objects.
    pub random: &'a dyn Random,
}

/// Bounds that a cluster may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A node that was silent this long is unknown, and its pods are replaced. On links that are often cut, 20 s.
    pub unknown_after: Duration,
    /// How long events are kept.
    pub event_lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { unknown_after: Duration::from_secs(6), event_lifetime: Duration::from_secs(60 * 60) }
    }
}

/// What should be done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// Each stands or falls by itself: one stale object does not hold up the rest. All within the store's limits.
    pub operations: Vec<Txn>,
    /// When to decide again even if nothing changes.
    pub wake_at: Option<Instant>,
    /// Why what waits is waiting, in a sentence for the user, by the key of what waits.
    pub reasons: BTreeMap<Key, String>,
}

impl Decision {
    /// Asks for another decision at `deadline`; the earliest such wish holds.
    pub(crate) fn wake_at(&mut self, deadline: Instant) {
        self.wake_at = Some(self.wake_at.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Adds a transaction, if it does anything.
    pub(crate) fn propose(&mut self, txn: Txn) {
        if !txn.writes.is_empty() {
            self.operations.push(txn);
        }
    }

    /// Says why something waits.
    pub(crate) fn explain(&mut self, key: &Key, reason: impl Into<String>) {
        self.reasons.insert(key.clone(), reason.into());
    }
}

/// Decides about one concern. It is not told what changed.
pub type Controller = fn(&Snapshot<'_>, &Moment<'_>) -> Decision;

/// All controllers. Where two want to write the same object, the earlier one does, and the later one decides anew on the outcome: what
/// ends objects goes before what makes them, and who owns before what is owned.
pub const CONTROLLERS: &[(&str, Controller)] = &[
    ("namespace", namespace::end_namespaces),
    ("collect", collect::collect),
    ("node_lifecycle", node_lifecycle::watch_nodes),
    ("evict", evict::evict),
    ("deployment", deployment::roll_out),
    ("replicaset", replicaset::keep_replicas),
    ("daemonset", daemonset::keep_daemons),
    ("cronjob", cronjob::run_schedules),
    ("job", job::run_jobs),
    ("schedule", schedule::schedule),
    ("expire", expire::expire),
];

/// Decides about everything.
#[must_use]
pub fn decide(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut merged = Decision::default();
    let mut written = BTreeSet::new();
    for (_, controller) in CONTROLLERS {
        let decision = controller(snapshot, moment);
        for txn in decision.operations {
            let stale = txn.compares.iter().map(|compare| &compare.key).any(|key| written.contains(key))
                || txn.writes.iter().any(|write| written.contains(write.key()));
            if stale {
                continue;
            }
            if txn.operations() > MAX_OPERATIONS || txn.size() > MAX_TXN {
                let reason = format!("what must be written together has {} bytes, more than {MAX_TXN}", txn.size());
                merged.reasons.extend(txn.writes.first().map(|write| (write.key().clone(), reason)));
            } else {
                written.extend(txn.writes.iter().map(|write| write.key().clone()));
                merged.operations.push(txn);
            }
        }
        if let Some(deadline) = decision.wake_at {
            merged.wake_at(deadline);
        }
        merged.reasons.extend(decision.reasons);
    }
    merged
}

#[cfg(test)]
mod tests;
