//! Taints of nodes and tolerations of pods, as in `k8s.io/api/core/v1/toleration.go`.
//!
//! Invariant: taints that others put on a node are never changed, except that `NoExecute` gets the time it was first seen.

use quorate_proto::{
    k8s::api::core::v1::{Taint, Toleration},
    object::Object,
    world::{Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::edit::{items, view};

/// The node is not heard.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node says that it cannot run pods.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node is cordoned.
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is short of room on disk.
pub(crate) const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// The node is short of memory.
pub(crate) const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// The node is short of process ids.
pub(crate) const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// The node has no network for pods.
pub(crate) const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// No new pods.
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
/// No new pods if others can take them.
pub(crate) const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// No pods.
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// A node's taints; those that cannot be read count for nothing.
pub(crate) fn taints(node: &Object) -> Vec<Taint> {
    view(node, &["spec", "taints"]).unwrap_or_default()
}

/// A pod's tolerations; those that cannot be read count for nothing.
pub(crate) fn tolerations(pod: &Object) -> Vec<Toleration> {
    view(pod, &["spec", "tolerations"]).unwrap_or_default()
}

/// Whether a toleration accepts a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == found)
    };
    same(&toleration.effect, &taint.effect)
        && same(&toleration.key, &taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => {
                toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            Some(_) => false,
        }
}

/// Whether a node's failing was already acted on: its pods are being evicted because of it.
pub(crate) fn ends_pods_of_failed_node(node: &Object) -> bool {
    [UNREACHABLE, NOT_READY].iter().any(|key| find(node, key, NO_EXECUTE).is_some())
}

/// The taint of a key and an effect.
pub(crate) fn find<'a>(node: &'a Object, key: &str, effect: &str) -> Option<&'a Value> {
    items(node, &["spec", "taints"]).iter().find(|taint| is(taint, key, effect))
}

/// Adds a taint, if it is not there.
pub(crate) fn add(node: &mut Object, key: &str, effect: &str, wall: Timestamp) {
    if find(node, key, effect).is_none() {
        let mut taints = items(node, &["spec", "taints"]).to_vec();
        taints.push(json!({"key": key, "effect": effect, "timeAdded": rfc3339(wall)}));
        node.set(&["spec", "taints"], taints);
    }
}

/// Removes a taint, if it is there.
pub(crate) fn remove(node: &mut Object, key: &str, effect: &str) {
    if find(node, key, effect).is_some() {
        let mut taints = items(node, &["spec", "taints"]).to_vec();
        taints.retain(|taint| !is(taint, key, effect));
        if taints.is_empty() {
            node.unset(&["spec", "taints"]);
        } else {
            node.set(&["spec", "taints"], taints);
        }
    }
}

/// Gives every `NoExecute` taint the time from which `tolerationSeconds` are counted.
pub(crate) fn stamp(node: &mut Object, wall: Timestamp) {
    let mut taints = items(node, &["spec", "taints"]).to_vec();
    let mut stamped = false;
    for taint in &mut taints {
        if taint.get("effect").and_then(Value::as_str) == Some(NO_EXECUTE) && taint.get("timeAdded").is_none() {
            taint["timeAdded"] = rfc3339(wall).into();
            stamped = true;
        }
    }
    if stamped {
        node.set(&["spec", "taints"], taints);
    }
}

fn is(taint: &Value, key: &str, effect: &str) -> bool {
    let text = |field: &str| taint.get(field).and_then(Value::as_str);
    text("key") == Some(key) && text("effect") == Some(effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_accepts_what_it_accepts_in_kubernetes() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "disk", "value": "slow", "effect": "NoExecute"})).unwrap();
        let accepts = |toleration: Value| tolerates(&serde_json::from_value(toleration).unwrap(), &taint);
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"key": "disk", "operator": "Exists"}),
            json!({"key": "disk", "value": "slow"}),
            json!({"key": "disk", "operator": "Equal", "value": "slow", "effect": "NoExecute"}),
        ] {
            assert!(accepts(toleration.clone()), "{toleration}");
        }
        for toleration in [
            json!({"key": "disk"}),
            json!({"key": "disk", "value": "quick"}),
            json!({"key": "other", "operator": "Exists"}),
            json!({"key": "disk", "operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": "disk", "operator": "Perhaps"}),
        ] {
            assert!(!accepts(toleration.clone()), "{toleration}");
        }
    }
}
