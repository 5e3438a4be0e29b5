//! Takes the steps of the voter planner, one at a time, while this node leads.
//!
//! Invariant: each step is taken on the membership it was decided on, or refused; between two steps the cluster settles.

use std::{collections::BTreeMap, time::Duration};

use quorate_proto::{
    refusal::chain,
    {ids::NodeId, kinds::NODES, object::Object, snapshot::Snapshot},
};
use quorate_raft::{
    Store,
    voters::{Policy, Registered, Step, plan},
};
use tokio_util::sync::CancellationToken;

use crate::{loops::Snapshots, registration};

/// How often the planner looks while something may have to be done.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a change of voters the next may begin.
const SETTLE: Duration = Duration::from_secs(10);
/// A lone voter tolerates no failure, so the first others vote as soon as they have shown themselves.
const STABLE_AT_FIRST: Duration = Duration::from_secs(2);

/// The label that keeps a node from voting.
const NO_VOTE: (&str, &str) = ("quorate.dev/voter", "never");
/// The label that tells a node's zone, as in Kubernetes.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Plans and steps until the token is cancelled.
pub(crate) async fn keep(store: Store, snapshots: Snapshots, end: CancellationToken) {
    let mut pause = LOOK;
    while end.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = LOOK;
        let registered = registered(&snapshots.borrow());
        let Some(mut view) = store.view(registered, Policy::default()) else { continue };
        if view.voters.iter().all(|voters| voters.len() == 1) {
            view.policy.stable = STABLE_AT_FIRST;
        }
        let Some((step, _)) = plan(&view).step else { continue };
        match end.run_until_cancelled(store.step(&view, step.clone())).await {
            Some(Ok(())) => {
                tracing::info!(?step, "the membership changed");
                if matches!(step, Step::SetVoters(_)) {
                    pause = SETTLE;
                }
            }
            Some(Err(error)) => tracing::warn!(?step, error = %chain(&error), "the membership did not change"),
            None => return,
        }
    }
}

/// How many of these nodes will vote in the end, if all are healthy.
#[must_use]
pub fn expected(nodes: &[Object]) -> usize {
    Policy::default().voters(nodes.iter().filter(|node| may_vote(node)).count())
}

fn may_vote(node: &Object) -> bool {
    let (label, never) = NO_VOTE;
    node.label(label) != Some(never)
}

fn registered(snapshot: &Snapshot) -> BTreeMap<NodeId, Registered> {
    let entry = |node: &Object| {
        let registered = Registered { may_vote: may_vote(node), zone: node.label(ZONE).unwrap_or_default().to_owned() };
        Some((registration::node_id(node)?, registered))
    };
    snapshot.list(&NODES).filter_map(|stored| entry(&stored.object)).collect()
}

#[cfg(test)]
mod tests {
    use quorate_proto::txn::Txn;
    use serde_json::json;

    use super::*;

    #[test]
    fn as_many_vote_in_the_end_as_may_but_never_an_even_number() {
        let node = |label: Option<&str>| {
            let labels = label.map(|label| json!({ NO_VOTE.0: label })).unwrap_or_default();
            Object::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels}}))
                .unwrap()
        };
        let nodes = |all, silent| [vec![node(None); all], vec![node(Some("never")); silent]].concat();
        let expected = |all, silent| super::expected(&nodes(all, silent));
        assert_eq!([1, 2, 3, 4, 5, 6, 50].map(|all| expected(all, 0)), [1, 1, 3, 3, 5, 5, 5]);
        assert_eq!((expected(2, 1), expected(3, 4), expected(0, 1)), (1, 3, 1));
    }

    #[test]
    fn a_node_may_vote_unless_its_label_says_never() {
        let mut snapshot = Snapshot::default();
        for (name, labels) in [("n1", json!({})), ("n2", json!({"quorate.dev/voter": "never"}))] {
            let id = NodeId(if name == "n1" { 1 } else { 2 });
            let provider = registration::provider_id(quorate_proto::ids::ClusterId(7), id);
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "spec": {"providerID": provider}});
            let object = Object::from_value(node).unwrap();
            snapshot.commit(&Txn::new().create(NODES.key(None, name).unwrap(), object.to_document())).unwrap();
        }
        let votes: Vec<_> = registered(&snapshot).into_iter().map(|(id, node)| (id, node.may_vote)).collect();
        assert_eq!(votes, [(NodeId(1), true), (NodeId(2), false)]);
    }
}
