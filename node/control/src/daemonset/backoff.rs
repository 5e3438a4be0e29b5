//! How long a pod that failed is waited for before it is replaced: one second, doubling with each failure up to a quarter of an hour.
//!
//! The count goes with the pods: each says how many failed before it on its node. It begins anew with another template, and after a pod
//! that lasted as long as the longest wait.
//!
//! Invariant: the wait depends on what is stored alone, so that a new leader waits as long as the last one would have.

use std::time::Duration;

use quorate_proto::{snapshot::Stored, world::Timestamp};

use super::{new_pod::FAILURES, site::is_updated, wanted::Wanted};
use crate::{edit::time, pod::ended_at};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How many will have failed when this one is replaced, and how long to wait for that.
pub(super) fn after(failed: &Stored, wanted: &Wanted, wall: Timestamp) -> (u32, Duration) {
    if !is_updated(&failed.object, wanted) {
        return (0, Duration::ZERO);
    }
    let created = time(&failed.object, &["metadata", "creationTimestamp"]).unwrap_or(wall);
    let ended = ended_at(&failed.object).unwrap_or(created);
    let between = |from: Timestamp, to: Timestamp| Duration::try_from(to.duration_since(from)).unwrap_or_default();
    let before = failed.object.annotation(FAILURES).and_then(|count| count.parse::<u32>().ok()).unwrap_or_default();
    let before = if between(created, ended) >= LONGEST { 0 } else { before };
    let wait = FIRST.saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX)).min(LONGEST);
    (before.saturating_add(1), wait.saturating_sub(between(ended, wall)))
}
