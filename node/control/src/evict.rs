//! Ends pods on nodes whose `NoExecute` taints they do not tolerate; their controllers replace them elsewhere.
//!
//! `tolerationSeconds` are honoured as written, counted from the taint's `timeAdded`; pods that do not mention a taint end at once. An
//! evicted pod stays `Terminating` until its node's agent has ended it, or the node object is deleted: nobody else can know.
//!
//! Invariant: while most nodes fail at once (see `silence`), no pod is ended because its node failed.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    k8s::api::core::v1::{Taint, Toleration},
    kinds::{NODES, PODS},
    snapshot::Stored,
    txn::Txn,
    world::Timestamp,
};

use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{Condition, set_condition, update},
    pod::{end, is_active, is_ready, is_terminating, node_name},
    silence::Silence,
    taint::{NO_EXECUTE, NOT_READY, UNREACHABLE, taints, tolerates, tolerations},
};

/// Ends what may not stay where it is.
pub(crate) fn evict(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let tainted: BTreeMap<&str, Vec<Taint>> = snapshot
        .objects
        .list(&NODES)
        .map(|node| (node.object.name(), forbidding(node)))
        .filter(|(_, taints)| !taints.is_empty())
        .collect();
    if tainted.is_empty() {
        return decision;
    }
    let cut_off = Silence::listen(snapshot, moment).cut_off;
    for pod in snapshot.objects.list(&PODS) {
        let Some((node, taints)) = node_name(&pod.object).and_then(|node| tainted.get_key_value(node)) else {
            continue;
        };
        let unreachable = taints.iter().any(|taint| taint.key == UNREACHABLE);
        if is_terminating(&pod.object) {
            if unreachable {
                decision.explain(
                    &pod.key,
                    format!("{node} is not heard: the pod ends when the node returns or is deleted"),
                );
            }
            continue;
        }
        let failed = taints.iter().any(|taint| taint.key == UNREACHABLE || taint.key == NOT_READY);
        if let Some(reason) = cut_off.as_ref().filter(|_| failed) {
            decision.explain(&pod.key, reason);
            continue;
        }
        match time_left(taints, &tolerations(&pod.object), moment.wall) {
            Some(left) if left.is_zero() => decision.propose(end(Txn::new(), pod, moment.wall)),
            left => {
                if let Some(left) = left {
                    decision.wake_at(moment.now + left);
                }
                if unreachable && is_active(&pod.object) && is_ready(&pod.object) {
                    decision.propose(mark_not_ready(pod, node, moment.wall));
                }
            }
        }
    }
    decision
}

fn forbidding(node: &Stored) -> Vec<Taint> {
    let mut taints = taints(&node.object);
    taints.retain(|taint| taint.effect == NO_EXECUTE);
    taints
}

/// How long a pod may stay under these taints; `None` for ever.
fn time_left(taints: &[Taint], tolerations: &[Toleration], wall: Timestamp) -> Option<Duration> {
    let left = |taint: &Taint| {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Some(Duration::ZERO);
        };
        let allowed = Duration::from_secs(toleration.toleration_seconds?.max(0).unsigned_abs());
        let since = taint.time_added.as_ref().map_or(wall, |added| added.0);
        let lasted = Duration::try_from(wall.duration_since(since)).unwrap_or_default();
        Some(allowed.saturating_sub(lasted))
    };
    taints.iter().filter_map(left).min()
}

/// A pod that may stay on a node that is not heard gets no connections meanwhile; its agent says otherwise when it is heard again.
fn mark_not_ready(pod: &Stored, node: &str, wall: Timestamp) -> Txn {
    let mut changed = pod.object.clone();
    let message = format!("{node} is not heard");
    let condition = Condition { kind: "Ready", status: "False", reason: "NodeNotReady", message: &message };
    set_condition(&mut changed, condition, wall);
    update(Txn::new(), pod, &changed)
}

#[cfg(test)]
mod tests;
