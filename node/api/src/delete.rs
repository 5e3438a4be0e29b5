//! What deleting an object means: pods get their grace, namespaces end contents first, finalizers are waited for, the rest goes at once.
//!
//! What a deleted object owns is collected later, by a controller. A pod that is bound to a node is removed when that node reports that
//! its containers are gone, because an object that is gone while its containers run would let a second copy start.
//!
//! Invariant: a pod with `deletionGracePeriodSeconds: 0` has no containers any more; users ask for at least one second.

use std::time::Duration;

use quorate_proto::{
    kinds::{Kind, NAMESPACES, NODES, PODS},
    object::Object,
    refusal::{Reason, Refusal},
    request::{ChangeKind, Reference},
    snapshot::{Snapshot, Stored},
    txn::Txn,
    world::{Timestamp, rfc3339},
};
use serde_json::Value;

use crate::{
    addresses, leave,
    message::{Subject, Verb},
    pipeline::{self, Moment, Plan},
};

/// The grace of a pod that names none, in seconds.
const GRACE: i64 = 30;

/// Plans a deletion.
pub(crate) fn plan(
    reference: &Reference,
    grace_seconds: Option<u32>,
    snapshot: &Snapshot,
    moment: &Moment<'_>,
) -> Result<Plan, Refusal> {
    let (kind, subject, stored) = pipeline::existing(Verb::Delete, reference, snapshot)?;
    may_go(kind, &subject, &stored.object)?;
    let object = &stored.object;
    if kind == &PODS && is_on_a_node(object, snapshot) {
        return Ok(with_grace(stored, grace_seconds, moment.wall));
    }
    if kind == &NAMESPACES {
        return Ok(ending(stored, moment.wall, true));
    }
    // A node that was asked to leave and died meanwhile ends nothing in order any more.
    if !object.finalizers().is_empty() && !leave::is_asked(kind, object) {
        return Ok(ending(stored, moment.wall, false));
    }
    let txn = addresses::release(object, snapshot, Txn::new()).remove(stored.key.clone(), stored.modified);
    Ok(Plan {
        txn,
        object: object.clone(),
        change: ChangeKind::Deleted,
        warnings: Vec::new(),
        seen: Some(stored.modified),
    })
}

/// Whether a change lets go of an object whose deletion waited only for its finalizers.
pub(crate) fn is_finished(kind: &Kind, stored: &Object, next: &Object) -> bool {
    let waits_for_its_node = kind == &PODS && grace(next) != Some(0);
    next.deletion_timestamp().is_some()
        && !stored.finalizers().is_empty()
        && next.finalizers().is_empty()
        && kind != &NAMESPACES
        && !waits_for_its_node
}

/// Marks an object as one whose deletion now waits for its finalizers only.
pub(crate) fn wait_for_finalizers(object: &mut Object) {
    object.set(&["metadata", "deletionGracePeriodSeconds"], 0);
}

fn may_go(kind: &Kind, subject: &Subject, object: &Object) -> Result<(), Refusal> {
    if kind == &NAMESPACES && object.name() == "default" {
        let because = "namespace `default` is where objects without a namespace are";
        return Err(subject.refuse(Reason::Forbidden, because).hint("delete the objects in it"));
    }
    if kind == &NODES && object.is_true("Ready") {
        let because = "the node is Ready: it would run on without being known";
        return Err(subject.refuse(Reason::Conflict, because).hint(format!(
            "to have it leave: `quorate leave {}`; if it is gone for good, stop its daemon first",
            object.name()
        )));
    }
    Ok(())
}

fn is_on_a_node(pod: &Object, snapshot: &Snapshot) -> bool {
    pod.text(&["spec", "nodeName"]).is_some_and(|node| snapshot.find(&NODES, None, node).is_some())
}

fn grace(object: &Object) -> Option<i64> {
    object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64)
}

/// Asks the pod's node to stop it. Asked again, the grace only shrinks.
fn with_grace(stored: &Stored, asked: Option<u32>, wall: Timestamp) -> Plan {
    let own = stored.object.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(GRACE);
    let seconds = asked.map_or(own, i64::from).max(1);
    let present = grace(&stored.object).filter(|_| stored.object.deletion_timestamp().is_some());
    if present.is_some_and(|present| present <= seconds) {
        return Plan::unchanged(stored, ChangeKind::Deleted, Vec::new());
    }
    let mut object = stored.object.clone();
    let end = wall.checked_add(Duration::from_secs(seconds.unsigned_abs())).unwrap_or(wall);
    object.set(&["metadata", "deletionTimestamp"], rfc3339(end));
    object.set(&["metadata", "deletionGracePeriodSeconds"], seconds);
    rewritten(stored, object)
}

/// Marks an object as ending; a controller, or whoever set its finalizers, does the rest.
fn ending(stored: &Stored, wall: Timestamp, phase: bool) -> Plan {
    if stored.object.deletion_timestamp().is_some() {
        return Plan::unchanged(stored, ChangeKind::Deleted, Vec::new());
    }
    let mut object = stored.object.clone();
    object.set(&["metadata", "deletionTimestamp"], rfc3339(wall));
    if phase {
        object.set(&["status", "phase"], "Terminating");
    } else {
        wait_for_finalizers(&mut object);
    }
    rewritten(stored, object)
}

fn rewritten(stored: &Stored, object: Object) -> Plan {
    let txn = Txn::new().update(stored.key.clone(), stored.modified, object.to_document());
    Plan { txn, object, change: ChangeKind::Deleted, warnings: Vec::new(), seen: Some(stored.modified) }
}
