//! What controllers need to know of a pod, and how they end one.
//!
//! Invariant: a pod on a node is never removed by a controller while its node exists: it is asked to end, and its agent says when it
//! has.

use std::time::Duration;

use quorate_proto::{
    object::Object,
    snapshot::Stored,
    txn::Txn,
    world::{Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::edit::{delete, items, number, of_condition, update};

/// How long a pod may take to end, in seconds, if it does not say.
const GRACE: i64 = 30;

/// The node a pod is bound to.
pub(crate) fn node_name(pod: &Object) -> Option<&str> {
    pod.text(&["spec", "nodeName"]).filter(|name| !name.is_empty())
}

/// Whether a pod was asked to end.
pub(crate) fn is_terminating(pod: &Object) -> bool {
    pod.deletion_timestamp().is_some()
}

/// Whether all of a pod's containers have ended for good.
pub(crate) fn is_finished(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), Some("Succeeded" | "Failed"))
}

/// Whether nothing of a pod runs any more: its containers have ended for good, or its agent has said so, or it never had one.
pub(crate) fn has_ended(pod: &Object) -> bool {
    is_finished(pod)
        || is_terminating(pod)
            && (node_name(pod).is_none() || number(pod, &["metadata", "deletionGracePeriodSeconds"]) == Some(0))
}

/// When the last of a pod's containers ended; for want of that, when it was last known to be ready or not.
pub(crate) fn ended_at(pod: &Object) -> Option<Timestamp> {
    let ends = items(pod, &["status", "containerStatuses"]).iter().filter_map(|container| {
        let finished = container.pointer("/state/terminated/finishedAt").and_then(Value::as_str)?;
        finished.parse::<Timestamp>().ok()
    });
    ends.max().or_else(|| of_condition(pod, "Ready", "lastTransitionTime")?.parse().ok())
}

/// Whether a pod counts as a replica.
pub(crate) fn is_active(pod: &Object) -> bool {
    !is_terminating(pod) && !is_finished(pod)
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Object) -> bool {
    pod.is_true("Ready")
}

/// How long it takes until a pod is available, which is ready for at least `min_ready`: nothing if it is, `None` if it is not ready.
pub(crate) fn available_in(pod: &Object, min_ready: Duration, wall: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let since: Timestamp = of_condition(pod, "Ready", "lastTransitionTime")?.parse().ok()?;
    let ready_for = Duration::try_from(wall.duration_since(since)).unwrap_or_default();
    Some(min_ready.saturating_sub(ready_for))
}

/// Ends a pod: at once if no node has it, otherwise by asking its agent. Nothing if it was asked already.
pub(crate) fn end(txn: Txn, pod: &Stored, wall: Timestamp) -> Txn {
    if node_name(&pod.object).is_none() {
        return delete(txn, pod, wall);
    }
    let mut leaving = pod.object.clone();
    ask_to_end(&mut leaving, wall);
    update(txn, pod, &leaving)
}

/// Asks a pod that is on a node to end. Nothing if it was asked already. A grace of nothing would say that its containers are gone.
pub(crate) fn ask_to_end(pod: &mut Object, wall: Timestamp) {
    if is_terminating(pod) {
        return;
    }
    let grace = number(pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(GRACE).max(1);
    let gone = wall.checked_add(Duration::from_secs(grace.unsigned_abs())).unwrap_or(wall);
    pod.merge(&json!({"metadata": {"deletionTimestamp": rfc3339(gone), "deletionGracePeriodSeconds": grace}}));
}
