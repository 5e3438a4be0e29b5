//! Which of a set's pods is missed least.
//!
//! Invariant: the order is the one Kubernetes documents for scaling down, and total: equal inputs end the same pods.

use std::{cmp::Reverse, collections::BTreeMap};

use quorate_proto::{snapshot::Stored, txn::Revision};
use serde_json::Value;

use crate::{
    edit::{items, of_condition},
    pod::{is_ready, node_name},
};

/// Sorts the pods to end first before the others (`ActivePodsWithRanks` in Kubernetes): not bound; not running; not ready; cheap to delete
/// by its annotation; crowded on its node; ready for a shorter time; restarted more often; newer.
pub(super) type Usefulness =
    (bool, u8, bool, i64, Reverse<usize>, Reverse<String>, Reverse<u64>, Reverse<Revision>, String);

pub(super) fn usefulness(pod: &Stored, per_node: &BTreeMap<String, usize>) -> Usefulness {
    let object = &pod.object;
    let phase = match object.text(&["status", "phase"]) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost = object.annotation("controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok());
    let crowd = node_name(object).and_then(|node| per_node.get(node)).copied().unwrap_or_default();
    let ready = is_ready(object);
    // Times in RFC 3339 with `Z` and whole seconds sort as texts.
    let since = of_condition(object, "Ready", "lastTransitionTime").filter(|_| ready).unwrap_or_default();
    let restarts = items(object, &["status", "containerStatuses"])
        .iter()
        .filter_map(|container| container.get("restartCount").and_then(Value::as_u64))
        .max()
        .unwrap_or_default();
    (
        node_name(object).is_some(),
        phase,
        ready,
        cost.unwrap_or_default(),
        Reverse(crowd),
        Reverse(since.to_owned()),
        Reverse(restarts),
        Reverse(pod.created),
        object.name().to_owned(),
    )
}
