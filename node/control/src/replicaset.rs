//! Keeps as many pods as each replicaset asks for.
//!
//! Pods that end, fail or finish do not count and are replaced. Pods that match the selector and belong to nobody are adopted; pods that
//! no longer match are let go, as in Kubernetes.
//!
//! Invariant: a replicaset never has more active pods than it asks for because of a decision: making pods writes the set too, so that the
//! compare on the set keeps a second decision on the same snapshot from making them again.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    k8s::apimachinery::pkg::apis::meta::v1::LabelSelector,
    kinds::{PODS, REPLICASETS},
    object::Object,
    selector::Selector,
    snapshot::Stored,
    txn::{MAX_TXN, Txn},
    world::rfc3339,
};
use serde_json::{Value, json};

use self::rank::{Usefulness, usefulness};
use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{items, number, update, view},
    ownership::{by_controller, controlled_by, controller_uid, may_create_beside},
    pod::{available_in, end, is_active, is_ready, is_terminating},
};

mod rank;

/// The most pods that one decision makes or ends for one set: a mistake shows before it is large, and the transaction stays small.
pub(crate) const STEP: usize = 25;

/// How long a name may be before the random suffix: what remains of a DNS label.
const MAX_STEM: usize = 58;

/// Makes and ends pods, and says in each set's status how it stands.
pub(crate) fn keep_replicas(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let owned = by_controller(snapshot.objects, &PODS);
    let mut orphans = orphans(snapshot);
    for set in snapshot.objects.list(&REPLICASETS) {
        let pods = owned.get(set.object.uid()).map_or(&[][..], Vec::as_slice);
        match selector(&set.object) {
            Ok(selector) => keep(snapshot, moment, set, pods, &selector, &mut orphans, &mut decision),
            Err(reason) => decision.explain(&set.key, reason),
        }
    }
    decision
}

/// The pods that nobody manages, by namespace. A set takes what it adopts, so that no two adopt the same.
fn orphans<'a>(snapshot: &Snapshot<'a>) -> BTreeMap<&'a str, Vec<&'a Stored>> {
    let mut orphans: BTreeMap<&str, Vec<&Stored>> = BTreeMap::new();
    for pod in snapshot.objects.list(&PODS) {
        if let (None, true, Some(namespace)) =
            (controller_uid(&pod.object), is_active(&pod.object), pod.object.namespace())
        {
            orphans.entry(namespace).or_default().push(pod);
        }
    }
    orphans
}

fn selector(set: &Object) -> Result<Selector, String> {
    let selector: LabelSelector =
        view(set, &["spec", "selector"]).map_err(|error| format!("its selector cannot be read: {error}"))?;
    let selector =
        Selector::of_label_selector(&selector).map_err(|error| format!("its selector is refused: {error}"))?;
    if selector.is_empty() { Err("its selector is empty and would take every pod".to_owned()) } else { Ok(selector) }
}

fn keep<'a>(
    snapshot: &Snapshot<'a>,
    moment: &Moment<'_>,
    set: &Stored,
    owned: &[&'a Stored],
    selector: &Selector,
    orphans: &mut BTreeMap<&'a str, Vec<&'a Stored>>,
    decision: &mut Decision,
) {
    let ends = is_terminating(&set.object);
    let (mut active, strangers): (Vec<&Stored>, Vec<&Stored>) =
        owned.iter().filter(|pod| is_active(&pod.object)).partition(|pod| selector.selects(&pod.object));
    for pod in strangers {
        decision.propose(release(pod, &set.object));
    }
    if !ends && let Some(orphans) = set.object.namespace().and_then(|namespace| orphans.get_mut(namespace)) {
        for pod in orphans.extract_if(.., |pod| selector.selects(&pod.object)) {
            decision.propose(adopt(pod, set));
            active.push(pod);
        }
    }

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
            let reason = format!("no pod can be made of its template within a transaction of {MAX_TXN} bytes");
            decision.explain(&set.key, reason);
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
    let room = MAX_TXN.saturating_sub(set.object.to_document().0.len() + 4096); // its status may grow a little
    let (mut txn, mut made) = (Txn::new(), 0);
    for _ in 0..missing {
        let Some(pod) = new_pod(&set.object, moment) else { break };
        let Ok(key) = PODS.key(pod.namespace(), pod.name()) else { break };
        let next = txn.clone().create(key, pod.to_document());
        if next.size() > room {
            break;
        }
        (txn, made) = (next, made + 1);
    }
    (txn, made)
}

/// A pod from the set's template.
fn new_pod(set: &Object, moment: &Moment<'_>) -> Option<Object> {
    let mut stem = set.name();
    while stem.len() >= MAX_STEM {
        stem = stem.get(..stem.len() - 1).unwrap_or_default();
    }
    let stem = format!("{stem}-");
    let template = |part: &str| set.at(&["spec", "template", part]).cloned().unwrap_or_else(|| json!({}));
    let mut pod = json!({
        "apiVersion": PODS.api_version(),
        "kind": PODS.kind,
        "metadata": template("metadata"),
        "spec": template("spec"),
        "status": {"phase": "Pending"},
    });
    let own = json!({
        "name": format!("{stem}{}", moment.random.suffix(5)),
        "generateName": stem,
        "namespace": set.namespace(),
        "uid": moment.random.uid(),
        "creationTimestamp": rfc3339(moment.wall),
        "generation": 1,
        "ownerReferences": [controlled_by(set)],
    });
    if let (Some(Value::Object(metadata)), Value::Object(own)) = (pod.get_mut("metadata"), own) {
        metadata.extend(own);
    }
    Object::from_value(pod).ok()
}

fn adopt(pod: &Stored, set: &Stored) -> Txn {
    let mut adopted = pod.object.clone();
    let mut owners = items(&adopted, &["metadata", "ownerReferences"]).to_vec();
    owners.push(controlled_by(&set.object));
    adopted.set(&["metadata", "ownerReferences"], owners);
    update(Txn::new(), pod, &adopted).expect(set.key.clone(), Some(set.modified))
}

fn release(pod: &Stored, set: &Object) -> Txn {
    let mut released = pod.object.clone();
    let mut owners = items(&released, &["metadata", "ownerReferences"]).to_vec();
    owners.retain(|owner| owner.get("uid").and_then(Value::as_str) != Some(set.uid()));
    if owners.is_empty() {
        released.unset(&["metadata", "ownerReferences"]);
    } else {
        released.set(&["metadata", "ownerReferences"], owners);
    }
    update(Txn::new(), pod, &released)
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
