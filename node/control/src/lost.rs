//! What a pod on a node that is not heard says of itself, so that its user learns why it is as it is.
//!
//! The words are Kubernetes': `status.reason` is `NodeLost`, which `kubectl get pods` shows, with a message that says what becomes of the
//! pod; and `Ready` is `False` because of `NodeNotReady`, so that the pod gets no connections. Where most nodes vanished at once, `Ready`
//! stays as the node told it last: it may be the leader that is cut off. All of it is the agent's to overwrite when it is heard again.
//!
//! Invariant: what is said depends on what is stored alone, so that a node that stays silent has its pods written once.

use quorate_proto::{
    object::Object,
    world::{Timestamp, rfc3339},
};

use crate::{
    edit::{Condition, set_condition},
    ownership::controller_uid,
    pod::node_name,
};

/// What becomes of a pod on a failing node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// It was asked to end.
    Ends,
    /// It will be asked to end at this time.
    EndsAt(Timestamp),
    /// It tolerates its node's failing for ever.
    Stays,
    /// Nothing is decided while most nodes are gone; why not.
    Held(&'a str),
}

/// Why a pod is as it is, and what is next. `silence` is what is known of its node.
pub(crate) fn why(pod: &Object, silence: &str, fate: Fate<'_>) -> String {
    let node = node_name(pod).unwrap_or_default();
    match fate {
        Fate::Ends if controller_uid(pod).is_some() => format!(
            "{silence}: if it is still wanted the pod is replaced elsewhere; this one ends when {node} returns or is deleted"
        ),
        Fate::Ends => format!("{silence}: the pod ends when {node} returns or is deleted"),
        Fate::EndsAt(when) => format!("{silence}: the pod is evicted at {} unless {node} returns", rfc3339(when)),
        Fate::Stays => format!("{silence}: the pod tolerates that and stays bound to {node}"),
        Fate::Held(reason) => format!("{silence}; {reason}"),
    }
}

/// Writes it into the pod.
pub(crate) fn tell(pod: &mut Object, why: &str, fate: Fate<'_>, wall: Timestamp) {
    pod.set(&["status", "reason"], "NodeLost");
    pod.set(&["status", "message"], why);
    if !matches!(fate, Fate::Held(_)) {
        let unready = Condition { kind: "Ready", status: "False", reason: "NodeNotReady", message: why };
        set_condition(pod, unready, wall);
    }
}
