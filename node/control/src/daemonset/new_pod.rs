//! A daemon pod: its template, for one node.
//!
//! Invariant: a daemon pod tolerates what would keep it off a node that is in trouble, as in Kubernetes (`AddOrUpdateDaemonPodTolerations`),
//! so that a node that fails does not have its daemons ended and made again.

use quorate_proto::object::Object;
use serde_json::{Value, json};

use super::wanted::Wanted;
use crate::{
    affinity::pin,
    decision::Moment,
    edit::items,
    taint::{
        DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE,
        UNREACHABLE, UNSCHEDULABLE,
    },
    template,
};

/// By which pods of one template are told from those of another.
pub(super) const REVISION: &str = "controller-revision-hash";

/// How many pods failed on this node before this one, one after the other.
pub(super) const FAILURES: &str = "quorate.dev/failed-before";

/// A pod of the set for a node.
pub(super) fn of(set: &Object, wanted: &Wanted, node: &str, failures: u32, moment: &Moment<'_>) -> Option<Object> {
    let mut pod = template::pod(set, "", moment)?;
    pod.set(&["metadata", "labels", REVISION], wanted.revision.as_str());
    if failures > 0 {
        pod.set(&["metadata", "annotations", FAILURES], failures.to_string());
    }
    with_daemon_tolerations(&mut pod);
    // Bound by the scheduler even if the template names its node: otherwise nobody would look whether there is room.
    pod.unset(&["spec", "nodeName"]);
    pin(&mut pod, node);
    Some(pod)
}

/// Adds the tolerations of every daemon pod, in the place of those that say the same for a limited time.
pub(super) fn with_daemon_tolerations(pod: &mut Object) {
    let on_host = pod.at(&["spec", "hostNetwork"]).and_then(Value::as_bool) == Some(true);
    let mut tolerations = items(pod, &["spec", "tolerations"]).to_vec();
    let added = [
        (NOT_READY, NO_EXECUTE),
        (UNREACHABLE, NO_EXECUTE),
        (DISK_PRESSURE, NO_SCHEDULE),
        (MEMORY_PRESSURE, NO_SCHEDULE),
        (PID_PRESSURE, NO_SCHEDULE),
        (UNSCHEDULABLE, NO_SCHEDULE),
    ];
    for (key, effect) in added.into_iter().chain(on_host.then_some((NETWORK_UNAVAILABLE, NO_SCHEDULE))) {
        let text = |toleration: &Value, field: &str| toleration.get(field).and_then(Value::as_str).map(str::to_owned);
        let same = |toleration: &Value| {
            text(toleration, "key").as_deref() == Some(key)
                && text(toleration, "effect").as_deref() == Some(effect)
                && text(toleration, "operator").as_deref() == Some("Exists")
        };
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        match tolerations.iter_mut().find(|toleration| same(toleration)) {
            Some(found) => *found = toleration,
            None => tolerations.push(toleration),
        }
    }
    pod.set(&["spec", "tolerations"], tolerations);
}
