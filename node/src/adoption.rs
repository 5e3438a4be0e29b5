//! What a state is told when it goes on without the members it had: in a new cluster, from a backup, or in a new epoch, on a survivor.
//!
//! Everything is kept that is a user's. What belonged to the members goes: their node objects and ranges, and with a restored state the
//! join tokens and the authority. Pods that were bound to a member that is gone have no agent any more: those with an owner are removed,
//! so that their controllers make them anew; those without are put back to wait for a node.
//!
//! Invariant: pure, and a step at a time: whatever was done before a crash is seen in the snapshot and not done again. Pods come before
//! nodes, so that no pod is ever taken for one of a new node that has an old one's name.

use std::collections::BTreeSet;

use quorate_proto::{
    ids::NodeId,
    kinds::{ADDRESSES, CLUSTERS, JOINTOKENS, NODES, PODS},
    object::Object,
    refusal::{Reason, Refusal},
    snapshot::{Snapshot, Stored},
    txn::{MAX_OPERATIONS, MAX_TXN, Txn},
    world::rfc3339,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    registration::{self, Candidate, Moment},
    settings::{CLUSTER, ClusterSettings},
};

/// How a state came to be without its members. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Adoption {
    /// From a backup, in a new cluster.
    Restored {
        /// The new cluster's sealed secrets.
        secrets: Value,
    },
    /// On a survivor, in a new epoch of the same cluster.
    Recovered,
}

/// Who goes on with the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heir<'a> {
    /// The cluster's settings, as they are from now on.
    pub settings: &'a ClusterSettings,
    /// The only node.
    pub node: NodeId,
    /// Its name.
    pub name: &'a str,
    /// How it came to that.
    pub adoption: &'a Adoption,
}

/// How many things of the members are in a state that goes on without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Nodes that are removed.
    pub nodes: usize,
    /// Pods that are removed, to be made anew by their controllers.
    pub pods: usize,
    /// Pods without an owner that are put back to wait for a node.
    pub unbound: usize,
    /// Join tokens that end.
    pub tokens: usize,
}

/// What will be done, in numbers.
pub(crate) fn left(snapshot: &Snapshot, heir: &Heir<'_>) -> Left {
    let pods: Vec<_> = stranded(snapshot, heir).collect();
    let removed = pods.iter().filter(|pod| is_replaced(&pod.object)).count();
    Left {
        nodes: gone(snapshot, heir).count(),
        pods: removed,
        unbound: pods.len() - removed,
        tokens: tokens(snapshot, heir).count(),
    }
}

/// The next transaction; `None` if nothing is left to be done.
///
/// # Errors
/// If the heir can have no place: its name is none, or the pod range is used up.
pub(crate) fn next(snapshot: &Snapshot, heir: &Heir<'_>, moment: &Moment<'_>) -> Result<Option<Txn>, Refusal> {
    let pods = packed(stranded(snapshot, heir).map(|pod| let_go(pod, moment)));
    if pods.is_some() {
        return Ok(pods);
    }
    let nodes = gone(snapshot, heir).map(|node| both(remove(node), range_of(snapshot, &node.object)));
    let rest = packed(nodes.chain(tokens(snapshot, heir).map(remove)));
    if rest.is_some() {
        return Ok(rest);
    }
    match heir.adoption {
        Adoption::Recovered => Ok(None),
        Adoption::Restored { secrets } => found(snapshot, heir, secrets, moment),
    }
}

/// Members that are gone.
fn gone<'a>(snapshot: &'a Snapshot, heir: &Heir<'_>) -> impl Iterator<Item = &'a Stored> + use<'a> {
    let own = heir.node;
    let nodes = snapshot.list(&NODES).map(AsRef::as_ref);
    nodes.filter(move |node: &&Stored| registration::node_id(&node.object) != Some(own))
}

/// Pods whose agent is gone: bound to a member that is, or to a node that is not even known.
fn stranded<'a>(snapshot: &'a Snapshot, heir: &Heir<'_>) -> impl Iterator<Item = &'a Stored> + use<'a> {
    let gone: BTreeSet<&str> = gone(snapshot, heir).map(|node| node.object.name()).collect();
    let is_stranded = move |pod: &&Stored| {
        let node = pod.object.text(&["spec", "nodeName"]);
        node.is_some_and(|node| gone.contains(node) || snapshot.find(&NODES, None, node).is_none())
    };
    snapshot.list(&PODS).map(AsRef::as_ref).filter(is_stranded)
}

/// Tokens of a cluster that is another now.
fn tokens<'a>(snapshot: &'a Snapshot, heir: &Heir<'_>) -> impl Iterator<Item = &'a Stored> + use<'a> {
    let end = matches!(heir.adoption, Adoption::Restored { .. });
    snapshot.list(&JOINTOKENS).map(AsRef::as_ref).filter(move |_| end)
}

/// Whether somebody makes the pod anew, or nobody wants it any more.
fn is_replaced(pod: &Object) -> bool {
    pod.controller().is_some() || pod.deletion_timestamp().is_some()
}

/// Removes a pod that will be made anew; puts back one that nobody would make again.
fn let_go(pod: &Stored, moment: &Moment<'_>) -> Txn {
    if is_replaced(&pod.object) {
        return remove(pod);
    }
    let mut waiting = pod.object.clone();
    waiting.unset(&["spec", "nodeName"]);
    waiting.unset(&["status"]);
    waiting.set(&["status", "phase"], "Pending");
    // Another pod under the same name: containers of the old one are never taken for its own.
    waiting.set(&["metadata", "uid"], moment.random.uid());
    waiting.set(&["metadata", "creationTimestamp"], rfc3339(moment.wall));
    Txn::new().update(pod.key.clone(), pod.modified, waiting.to_document())
}

fn remove(stored: &Stored) -> Txn {
    Txn::new().remove(stored.key.clone(), stored.modified)
}

/// Frees the part of the pod range that a node had.
fn range_of(snapshot: &Snapshot, node: &Object) -> Txn {
    let range = node.text(&["spec", "podCIDR"]).and_then(|range| range.parse().ok());
    let record = range.and_then(|range| snapshot.find(&ADDRESSES, None, &registration::range_name(range)));
    record.map_or_else(Txn::new, |record| remove(record))
}

/// As many as one transaction may have; `None` if there are none.
fn packed(steps: impl Iterator<Item = Txn>) -> Option<Txn> {
    let mut packed = Txn::new();
    let (mut operations, mut size) = (0, 0);
    for step in steps {
        operations += step.operations();
        size += step.size();
        if !packed.writes.is_empty() && (operations > MAX_OPERATIONS || size > MAX_TXN) {
            break;
        }
        packed = both(packed, step);
    }
    (!packed.writes.is_empty()).then_some(packed)
}

fn both(mut first: Txn, second: Txn) -> Txn {
    first.compares.extend(second.compares);
    first.writes.extend(second.writes);
    first
}

/// The new cluster's own records, and its first node's.
fn found(snapshot: &Snapshot, heir: &Heir<'_>, secrets: &Value, moment: &Moment<'_>) -> Result<Option<Txn>, Refusal> {
    let old = snapshot.find(&CLUSTERS, None, CLUSTER).ok_or_else(|| {
        Refusal::new(Reason::Invalid, "the backup was not restored", "its state has no record of a cluster")
    })?;
    let mut txn = Txn::new();
    if ClusterSettings::read(snapshot).as_ref() != Some(heir.settings) {
        let mut cluster = old.object.clone();
        cluster.merge(&json!({ "spec": heir.settings }));
        cluster.merge(&json!({ "spec": secrets }));
        txn = txn.update(old.key.clone(), old.modified, cluster.to_document());
    }
    if registration::name_of(snapshot, heir.node).is_none() {
        let candidate = Candidate { node: heir.node, wanted_name: heir.name, token: "", request: "", addresses: &[] };
        txn = both(txn, registration::place(snapshot, heir.settings, &candidate, moment)?.txn);
    }
    Ok((!txn.writes.is_empty()).then_some(txn))
}

#[cfg(test)]
mod tests;
