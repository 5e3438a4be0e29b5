//! Removes what nobody claims any more: objects whose every owner is gone, pods whose node is gone, addresses whose service is gone,
//! and what was asked to end and has no finalizer left.
//!
//! Invariant: positive knowledge only. An owner is gone if the snapshot holds no object of that kind, name and uid; an owner of a kind
//! this binary does not know is there. The transaction compares the owner's absence too.

use quorate_proto::{
    kinds::{ADDRESSES, Kind, NAMESPACES, NODES, PODS},
    object::{Object, Owner},
    snapshot::{self, Stored},
    txn::Txn,
};

use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::delete,
    pod::{end, is_terminating, node_name},
};

/// Removes what nobody claims.
pub(crate) fn collect(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    for stored in snapshot.objects.all() {
        let is_pod = stored.key.resource() == PODS.plural && stored.key.group() == PODS.group;
        let txn = if let Some(without_node) = is_pod.then(|| without_node(snapshot.objects, &stored.object)).flatten() {
            delete(without_node, stored, moment.wall)
        } else if let Some(absences) = orphaned(snapshot.objects, stored) {
            if is_pod { end(absences, stored, moment.wall) } else { delete(absences, stored, moment.wall) }
        } else if is_pod {
            continue;
        } else if is_terminating(&stored.object) && !is_namespace(stored) && stored.object.finalizers().is_empty() {
            delete(Txn::new(), stored, moment.wall)
        } else {
            continue;
        };
        decision.propose(txn);
    }
    decision
}

fn is_namespace(stored: &Stored) -> bool {
    stored.key.resource() == NAMESPACES.plural && stored.key.group() == NAMESPACES.group
}

/// The compares by which all owners of an object are gone; `None` if it has no owner, or one that is there.
fn orphaned(objects: &snapshot::Snapshot, stored: &Stored) -> Option<Txn> {
    let owners = if stored.key.resource() == ADDRESSES.plural && stored.key.group() == ADDRESSES.group {
        vec![claimant(&stored.object)?]
    } else {
        let namespace = stored.object.namespace();
        stored.object.owners().into_iter().map(|owner| (namespace.map(str::to_owned), owner)).collect()
    };
    let mut absences = (!owners.is_empty()).then(Txn::new)?;
    for (namespace, owner) in owners {
        let kind = Kind::of(&owner.api_version, &owner.kind)?;
        let key = kind.key(namespace.as_deref(), &owner.name).ok()?;
        let found = objects.get(&key);
        if found.is_some_and(|found| found.object.uid() == owner.uid) {
            return None;
        }
        absences = absences.expect(key, found.map(|other| other.modified));
    }
    Some(absences)
}

/// Who an address was given to, from its `spec.owner`.
fn claimant(address: &Object) -> Option<(Option<String>, Owner)> {
    let text = |field: &str| address.text(&["spec", "owner", field]);
    let kind = Kind::named(text("kind")?)?;
    let owner = Owner {
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        name: text("name")?.to_owned(),
        uid: text("uid")?.to_owned(),
        controller: false,
    };
    Some((text("namespace").map(str::to_owned), owner))
}

/// The compares by which no agent will ever report on a pod: its node is gone, or it was asked to end before it had one.
fn without_node(objects: &snapshot::Snapshot, pod: &Object) -> Option<Txn> {
    match node_name(pod) {
        Some(node) => {
            let key = NODES.key(None, node).ok()?;
            objects.get(&key).is_none().then(|| Txn::new().expect(key, None))
        }
        None => is_terminating(pod).then(Txn::new),
    }
}

#[cfg(test)]
mod tests;
