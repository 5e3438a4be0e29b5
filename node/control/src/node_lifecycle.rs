//! Decides when a node's readiness becomes unknown, and which taints follow from its readiness.
//!
//! The leader remembers when it last heard each node, in memory only: heartbeats are not state. `Ready` is the node's own to say; the
//! leader only says `Unknown` when it stops hearing it.
//!
//! Invariant: while most nodes fail at once (see `silence`), nothing is written that would end a pod.

use std::time::Duration;

use quorate_proto::{
    kinds::NODES,
    object::Object,
    txn::Txn,
    world::{Instant, Timestamp},
};
use serde_json::Value;

use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{Condition, of_condition, set_condition, update},
    silence::Silence,
    taint::{self, NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE},
};

/// Marks nodes that are silent or not ready, and unmarks them when they are well again.
pub(crate) fn watch_nodes(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let unknown_after = snapshot.settings.unknown_after;
    let silence = Silence::listen(snapshot, moment);
    for stored in snapshot.objects.list(&NODES) {
        let (name, mut node) = (stored.object.name(), stored.object.clone());
        taint::stamp(&mut node, moment.wall);
        if silence.is_silent(name) {
            let silent = silence.say(name);
            let held = silence.cut_off.as_ref().filter(|_| !taint::ends_pods_of_failed_node(&node));
            let message = held.map_or_else(|| silent.clone(), |reason| format!("{silent}; {reason}"));
            let unknown =
                Condition { kind: "Ready", status: "Unknown", reason: "NodeStatusUnknown", message: &message };
            set_condition(&mut node, unknown, moment.wall);
            if held.is_none() {
                mark_unreachable(&mut node, moment.wall);
            }
            decision.explain(&stored.key, message);
        } else {
            decision.wake_at(moment.now + unknown_after.saturating_sub(silence.of(name)));
            if of_condition(&node, "Ready", "status") == Some("False") {
                let wait = mark_not_ready(&mut node, unknown_after, silence.cut_off.is_some(), moment.wall);
                if let Some(reason) = silence.cut_off.as_ref().filter(|_| !taint::ends_pods_of_failed_node(&node)) {
                    decision.explain(&stored.key, reason);
                }
                if let Some(wait) = wait {
                    decision.wake_at(later(moment.now, wait));
                }
            } else if of_condition(&node, "Ready", "status") == Some("True") {
                // Not before it says so itself: a new leader has heard nobody yet, and knows only that it was lost before.
                for (key, effect) in [
                    (UNREACHABLE, NO_SCHEDULE),
                    (UNREACHABLE, NO_EXECUTE),
                    (NOT_READY, NO_SCHEDULE),
                    (NOT_READY, NO_EXECUTE),
                ] {
                    taint::remove(&mut node, key, effect);
                }
            }
        }
        decision.propose(update(Txn::new(), stored, &node));
    }
    decision
}

/// A deadline that lies a moment ahead even if rounding says it is now: wall times are written in whole seconds.
fn later(now: Instant, wait: Duration) -> Instant {
    now + wait.max(Duration::from_millis(100))
}

/// No new pods, and none that do not tolerate it.
fn mark_unreachable(node: &mut Object, wall: Timestamp) {
    for effect in [NO_SCHEDULE, NO_EXECUTE] {
        taint::remove(node, NOT_READY, effect);
        taint::add(node, UNREACHABLE, effect, wall);
    }
}

/// No new pods at once, no pods at all once it has lasted: a runtime that restarts is no reason to move everything. Says how long to wait.
fn mark_not_ready(node: &mut Object, unknown_after: Duration, cut_off: bool, wall: Timestamp) -> Option<Duration> {
    for effect in [NO_SCHEDULE, NO_EXECUTE] {
        taint::remove(node, UNREACHABLE, effect);
    }
    taint::add(node, NOT_READY, NO_SCHEDULE, wall);
    let since = taint::find(node, NOT_READY, NO_SCHEDULE)
        .and_then(|taint| taint.get("timeAdded"))
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<Timestamp>().ok());
    let lasted =
        since.map_or(unknown_after, |since| Duration::try_from(wall.duration_since(since)).unwrap_or_default());
    let ended = taint::find(node, NOT_READY, NO_EXECUTE).is_some();
    match unknown_after.checked_sub(lasted) {
        _ if ended || cut_off => None,
        Some(wait) if !wait.is_zero() => Some(wait),
        _ => {
            taint::add(node, NOT_READY, NO_EXECUTE, wall);
            None
        }
    }
}

#[cfg(test)]
mod tests;
