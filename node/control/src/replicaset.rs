//! Keeps as many pods as each replicaset asks for.
//!
//! Pods that end, fail or finish do not count and are replaced. Pods that match the selector and belong to nobody are adopted; pods that
//! no longer match are let go, as in Kubernetes.
//!
//! Invariant: a replicaset never has more active pods than it asks for because of a decision: making pods writes the set too, so that the
//! compare on the set keeps a second decision on the same snapshot from making them again.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    kinds::{PODS, REPLICASETS},
    object::Object,
    selector::Selector,
    snapshot::Stored,
    txn::Txn,
};
use serde_json::json;

use self::rank::{Usefulness, usefulness};
use crate::{
    claim::{Orphans, selector},
    decision::{Decision, Moment, Snapshot},
    edit::{number, update},
    ownership::{by_controller, may_create_beside},
    pod::{available_in, end, is_active, is_ready, is_terminating},
    template,
};

mod rank;

/// The most pods that one decision makes or ends for one set: a mistake shows before it is large, and the transaction stays small.
pub(crate) const STEP: usize = 25;

/// Makes and ends pods, and says in each set's status how it stands.
pub(crate) fn keep_replicas(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let owned = by_controller(snapshot.objects, &PODS);
    let mut orphans = Orphans::of(snapshot);
    for set in snapshot.objects.list(&REPLICASETS) {
        let pods = owned.get(set.object.uid()).map_or(&[][..], Vec::as_slice);
        match selector(&set.object) {
            Ok(selector) => keep(snapshot, moment, set, pods, &selector, &mut orphans, &mut decision),
            Err(reason) => decision.explain(&set.key, reason),
        }
    }
    decision
}

fn keep<'a>(
    snapshot: &Snapshot<'a>,
    moment: &Moment<'_>,
    set: &Stored,
    owned: &[&'a Stored],
    selector: &Selector,
    orphans: &mut Orphans<'a>,
    decision: &mut Decision,
) {
    let ends = is_terminating(&set.object);
    let mut active = orphans.claim(set, owned, selector, decision);
    active.retain(|pod| is_active(&pod.object));

    let desired = usize::try_from(number(&set.object, &["spec", "replicas"]).unwrap_or(1)).unwrap_or_default();
    let mut txn = Txn::new();
    let mut ended: Vec<&str> = Vec::new();
    let mut made = 0;
    if !ends && active.len() > desired {
        least_useful_first(&mut active);
        for pod in active.iter().take((active.len() - desired).min(STEP)) {
            txn = end(txn, pod, moment.wall);
            ended.push(pod.object.name());
        }
    } else if !ends && active.len() < desired && may_create_beside(snapshot.objects, &set.object) {
        let missing = (desired - active.len()).min(STEP);
        (txn, made) = make(set, missing, moment);
        if made == 0 {
            decision.explain(&set.key, template::too_large());
        }
    }
    active.retain(|pod| !ended.contains(&pod.object.name()));
    let changed = with_status(&set.object, &active, made, moment, decision);
    // When pods are made the set is written even if it stays as it is: the compare on it is the lock.
    let txn = if txn.writes.is_empty() {
        update(txn, set, &changed)
    } else {
        txn.update(set.key.clone(), set.modified, changed.to_document())
    };
    decision.propose(txn);
}

/// As many of the missing pods as fit into a transaction beside the set.
fn make(set: &Stored, missing: usize, moment: &Moment<'_>) -> (Txn, usize) {
    let (mut txn, mut made) = (Txn::new(), 0);
    while made < missing
        && let Some(next) =
            template::pod(&set.object, "", moment).and_then(|pod| template::make(&txn, &pod, &set.object))
    {
        (txn, made) = (next, made + 1);
    }
    (txn, made)
}

fn least_useful_first(pods: &mut [&Stored]) {
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    for node in pods.iter().filter_map(|pod| crate::pod::node_name(&pod.object)) {
        *per_node.entry(node.to_owned()).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| -> Usefulness { usefulness(pod, &per_node) });
}

/// The set with the status that its active pods, and those being made, add up to.
fn with_status(set: &Object, active: &[&Stored], made: usize, moment: &Moment<'_>, decision: &mut Decision) -> Object {
    let min_ready = number(set, &["spec", "minReadySeconds"]).unwrap_or_default().max(0);
    let min_ready = Duration::from_secs(min_ready.unsigned_abs());
    let template = set.strings(&["spec", "template", "metadata", "labels"]);
    let labelled = |pod: &Object| template.iter().all(|(label, value)| pod.label(label) == Some(value));
    let (mut ready, mut available) = (0, 0);
    for pod in active {
        ready += u32::from(is_ready(&pod.object));
        match available_in(&pod.object, min_ready, moment.wall) {
            Some(wait) if wait.is_zero() => available += 1,
            Some(wait) => decision.wake_at(moment.now + wait),
            None => {}
        }
    }
    let fully_labelled = made + active.iter().filter(|pod| labelled(&pod.object)).count();
    let mut changed = set.clone();
    changed.merge(&json!({"status": {
        "replicas": active.len() + made,
        "fullyLabeledReplicas": fully_labelled,
        "readyReplicas": ready,
        "availableReplicas": available,
        "observedGeneration": set.generation(),
    }}));
    changed
}

#[cfg(test)]
mod tests;
