//! How long a job waits before it replaces pods that failed: 10 seconds after the first, doubling up to six minutes.
//!
//! Invariant: the wait depends on the pods that are stored alone, so that a new leader waits as long as the last one would have. A pod
//! that succeeds ends the wait; one that was asked to end does not count, because it did not fail by itself.

use std::time::Duration;

use quorate_proto::{snapshot::Stored, world::Timestamp};

use crate::{
    edit::time,
    pod::{ended_at, is_finished, is_terminating},
};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(6 * 60);

/// How many pods failed since one last succeeded, and how long to wait before the next is made.
pub(super) fn wait(pods: &[&Stored], wall: Timestamp) -> (u32, Duration) {
    let finished = pods.iter().filter(|pod| is_finished(&pod.object) && !is_terminating(&pod.object)).map(|pod| {
        let ended = ended_at(&pod.object).or_else(|| time(&pod.object, &["metadata", "creationTimestamp"]));
        (ended.unwrap_or(wall), pod.object.text(&["status", "phase"]) == Some("Succeeded"))
    });
    let mut finished: Vec<_> = finished.collect();
    finished.sort_unstable();
    let (mut failures, mut last) = (0_u32, wall);
    for (ended, _) in finished.iter().rev().take_while(|(_, succeeded)| !succeeded) {
        if failures == 0 {
            last = *ended;
        }
        failures += 1;
    }
    let Some(doublings) = failures.checked_sub(1) else { return (0, Duration::ZERO) };
    let wait = FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST);
    (failures, wait.saturating_sub(Duration::try_from(wall.duration_since(last)).unwrap_or_default()))
}
