//! What leaving means: the node is marked as ending; the leader then takes its vote, its pods are evicted, and its object goes last.
//!
//! Leaving is intent like any other: written once, and carried on by whoever leads. A node that dies while it leaves can be deleted.
//!
//! Invariant: a cluster is never left by its last node that is well.

use quorate_proto::{
    kinds::{Kind, NODES},
    object::Object,
    refusal::{Reason, Refusal},
    request::{ChangeKind, Reference},
    snapshot::Snapshot,
    txn::Txn,
    world::rfc3339,
};
use serde_json::{Value, json};

use crate::{
    delete,
    message::Verb,
    pipeline::{self, Moment, Plan},
};

/// The finalizer by which a node that leaves stays known until it votes no longer and runs nothing.
pub const FINALIZER: &str = "quorate.dev/leave";

/// The taint that evicts the pods of a node that leaves.
pub const TAINT: &str = "quorate.dev/leaving";

/// Whether a node was asked to leave.
#[must_use]
pub fn is_leaving(node: &Object) -> bool {
    node.deletion_timestamp().is_some() && node.finalizers().contains(&FINALIZER)
}

/// The same for an object of any kind.
pub(crate) fn is_asked(kind: &Kind, object: &Object) -> bool {
    kind == &NODES && is_leaving(object)
}

/// Plans the leaving of a node.
pub(crate) fn plan(node: &str, snapshot: &Snapshot, moment: &Moment<'_>) -> Result<Plan, Refusal> {
    let reference = Reference { kind: NODES.qualified(), namespace: None, name: node.to_owned() };
    let (_, subject, stored) = pipeline::existing(Verb::Leave, &reference, snapshot)?;
    if is_leaving(&stored.object) {
        return Ok(Plan::unchanged(stored, ChangeKind::Configured, Vec::new()));
    }
    let others = || snapshot.list(&NODES).map(|other| &other.object).filter(|other| other.name() != node);
    if others().next().is_none() {
        let because = "it is the only node: the cluster would be gone with it";
        return Err(subject.refuse(Reason::Conflict, because).hint("add another node first, or just stop its daemon"));
    }
    if !others().any(|other| other.is_true("Ready") && !is_leaving(other)) {
        let because = "no other node is Ready and stays: nobody could take over what it does";
        return Err(subject
            .refuse(Reason::Conflict, because)
            .hint("`quorate cluster status` shows how the others are"));
    }
    let mut object = stored.object.clone();
    object.set(&["metadata", "deletionTimestamp"], rfc3339(moment.wall));
    delete::wait_for_finalizers(&mut object);
    let finalizers: Vec<Value> = object.finalizers().iter().map(|name| json!(name)).chain([json!(FINALIZER)]).collect();
    object.set(&["metadata", "finalizers"], finalizers);
    object.set(&["spec", "unschedulable"], true);
    let taint = json!({"key": TAINT, "effect": "NoExecute", "timeAdded": rfc3339(moment.wall)});
    let taints = object.at(&["spec", "taints"]).and_then(Value::as_array).cloned().unwrap_or_default();
    object.set(&["spec", "taints"], taints.into_iter().chain([taint]).collect::<Vec<_>>());
    let txn = Txn::new().update(stored.key.clone(), stored.modified, object.to_document());
    Ok(Plan { txn, object, change: ChangeKind::Configured, warnings: Vec::new(), seen: Some(stored.modified) })
}
