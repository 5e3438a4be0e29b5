//! What makes a node that lost its data a new member: the same node object, under a new id. Pure.
//!
//! The name, the pod range, the labels and the pods bound to it stay; the id that is given up is no member any more, and leaves the Raft
//! group as that of a deleted node does.
//!
//! Invariant: one transaction on what was read gives up the old id and takes the new one; a retry of one that went through changes nothing.

use std::net::SocketAddr;

use quorate_proto::{
    ids::{ClusterId, NodeId, RequestId},
    kinds::NODES,
    object::Object,
    refusal::{Reason, Refusal},
    snapshot::{Snapshot, Stored},
    txn::Txn,
};
use serde_json::{Value, json};

use crate::{
    node_status,
    registration::{self, Registration},
};

/// The annotation that names the id a node gave up, and the request it did so by.
const REPLACED: &str = "quorate.dev/replaced";

/// What is refused when a node does not begin anew.
pub(crate) const NOT_REPLACED: &str = "this node did not begin anew";

/// A node that lost its data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loser<'a> {
    /// The id it gives up: its certificate proves it.
    pub old: NodeId,
    /// The id it gets if it was not given one yet.
    pub new: NodeId,
    /// What it asked by.
    pub request: RequestId,
    /// Where it can be reached.
    pub addresses: &'a [SocketAddr],
}

impl Loser<'_> {
    fn replaced(&self) -> String {
        format!("{} {}", self.old, self.request)
    }
}

/// Finds what a request that went through came to: what a retry is answered with.
pub(crate) fn replaced(snapshot: &Snapshot, loser: &Loser<'_>) -> Option<Registration> {
    let replaced = loser.replaced();
    let node = snapshot.list(&NODES).find(|stored| stored.object.annotation(REPLACED) == Some(&replaced))?;
    place(node, registration::node_id(&node.object)?, Txn::new())
}

/// Gives a node a new id in place of the one it gives up.
///
/// # Errors
/// If nobody has that id: the node was deleted, or has begun anew by another request.
pub(crate) fn replace(snapshot: &Snapshot, cluster: ClusterId, loser: &Loser<'_>) -> Result<Registration, Refusal> {
    let unknown = || {
        Refusal::new(Reason::NotFound, NOT_REPLACED, format!("the cluster has no node with the id {}", loser.old))
            .hint("it was deleted: set its data directory aside, and join with a token of `quorate token create`")
    };
    let mut nodes = snapshot.list(&NODES);
    let node = nodes.find(|stored| registration::node_id(&stored.object) == Some(loser.old)).ok_or_else(unknown)?;
    let mut object: Object = node.object.clone();
    object.merge(&json!({
        "metadata": {"annotations": {REPLACED: loser.replaced()}},
        "spec": {"providerID": registration::provider_id(cluster, loser.new)},
    }));
    if !loser.addresses.is_empty() {
        let mut status = Value::Object(serde_json::Map::new());
        node_status::put_addresses(&mut status, loser.addresses);
        object.merge(&json!({ "status": status }));
    }
    let txn = Txn::new().update(node.key.clone(), node.modified, object.to_document());
    place(node, loser.new, txn).ok_or_else(|| {
        let because = format!("node {} has no part of the pod range", node.object.name());
        Refusal::new(Reason::Internal, NOT_REPLACED, because)
            .hint("delete it with `quorate delete node`, and join with a token")
    })
}

fn place(stored: &Stored, node: NodeId, txn: Txn) -> Option<Registration> {
    let pod_range = stored.object.text(&["spec", "podCIDR"])?.parse().ok()?;
    Some(Registration { node, name: stored.object.name().to_owned(), pod_range, txn })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn cluster() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, id) in [("n1", 1), ("n2", 2)] {
            let node = json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"disk": "ssd"}},
                "spec": {"podCIDR": format!("10.214.{id}.0/24"), "providerID": registration::provider_id(CLUSTER, NodeId(id))}});
            let object = Object::from_value(node).unwrap();
            snapshot.commit(&Txn::new().create(NODES.key(None, name).unwrap(), object.to_document())).unwrap();
        }
        snapshot
    }

    fn loser(old: u128, new: u128, request: u128) -> Loser<'static> {
        Loser { old: NodeId(old), new: NodeId(new), request: RequestId(request), addresses: &[] }
    }

    #[test]
    fn a_node_that_begins_anew_keeps_all_but_its_id() {
        let mut snapshot = cluster();
        let registration = replace(&snapshot, CLUSTER, &loser(2, 9, 1)).unwrap();
        assert_eq!((registration.name.as_str(), registration.node), ("n2", NodeId(9)));
        assert_eq!(registration.pod_range.to_string(), "10.214.2.0/24");
        snapshot.commit(&registration.txn).unwrap();
        assert_eq!(registration::name_of(&snapshot, NodeId(9)).as_deref(), Some("n2"));
        assert_eq!(registration::name_of(&snapshot, NodeId(2)), None, "the old id is no member any more");
        assert_eq!(snapshot.find(&NODES, None, "n2").unwrap().object.label("disk"), Some("ssd"));
    }

    #[test]
    fn a_retry_gets_the_same_id_and_another_request_gets_none() {
        let mut snapshot = cluster();
        assert_eq!(replaced(&snapshot, &loser(2, 9, 1)), None);
        let first = replace(&snapshot, CLUSTER, &loser(2, 9, 1)).unwrap();
        snapshot.commit(&first.txn).unwrap();
        let again = replaced(&snapshot, &loser(2, 10, 1)).unwrap();
        assert_eq!(again, Registration { txn: Txn::new(), ..first });
        let other = loser(2, 10, 2);
        assert_eq!(replaced(&snapshot, &other), None);
        let refused = replace(&snapshot, CLUSTER, &other).unwrap_err();
        assert_eq!(refused.reason, Reason::NotFound, "{refused}");
    }

    #[test]
    fn two_requests_at_once_cannot_both_win() {
        let mut snapshot = cluster();
        let [one, two] =
            [1, 2].map(|request| replace(&snapshot, CLUSTER, &loser(2, 9 + request, request)).unwrap().txn);
        snapshot.commit(&one).unwrap();
        assert!(snapshot.commit(&two).is_err());
    }
}
