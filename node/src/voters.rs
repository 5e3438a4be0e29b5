//! Takes the steps of the voter planner, one at a time, while this node leads; lets nodes that were asked to leave go.
//!
//! Invariant: each step is taken on the membership it was decided on, or refused; between two changes of the voters the cluster settles.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_api::leave;
use quorate_proto::{
    ids::NodeId,
    kinds::{NODES, PODS},
    object::Object,
    refusal::chain,
    snapshot::Snapshot,
    txn::Txn,
    world::{Clock, Instant, Random},
};
use quorate_raft::{
    Store,
    voters::{Plan, Policy, Reason, Registered, Step, View, plan},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{loops::Snapshots, registration};

/// How often the planner looks while something may have to be done.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a change of voters or of the leader the next may begin.
const SETTLE: Duration = Duration::from_secs(10);
/// A lone voter tolerates no failure, so the first others vote as soon as they have shown themselves.
const STABLE_AT_FIRST: Duration = Duration::from_secs(2);

/// The label that keeps a node from voting.
const NO_VOTE: (&str, &str) = ("quorate.dev/voter", "never");
/// The label that tells a node's zone, as in Kubernetes.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

/// Plans who votes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Planner {
    store: Store,
    snapshots: Snapshots,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// When the voters last changed by a step of this node.
    changed: Arc<Mutex<Option<Instant>>>,
}

impl Planner {
    /// For this node.
    #[must_use]
    pub(crate) fn new(store: Store, snapshots: Snapshots, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { store, snapshots, clock, random, changed: Arc::default() }
    }

    /// What the planner sees and what it would do; `None` on a node that does not lead.
    #[must_use]
    pub(crate) fn look(&self) -> Option<(View, Plan)> {
        let mut view = self.store.view(registered(&self.snapshots.borrow()), Policy::default())?;
        if view.voters.iter().all(|voters| voters.len() == 1) {
            view.policy.stable = STABLE_AT_FIRST;
        }
        let mut plan = plan(&view);
        if let (Some((Step::SetVoters(_) | Step::Transfer(_), _)), Some(left)) = (&plan.step, self.settling()) {
            plan.waits.push(Reason::Settling { left });
        }
        Some((view, plan))
    }

    /// How long the cluster still settles.
    fn settling(&self) -> Option<Duration> {
        let changed = (*self.changed.lock().unwrap_or_else(PoisonError::into_inner))?;
        SETTLE.checked_sub(self.clock.now().since(changed)).filter(|left| !left.is_zero())
    }

    /// Plans and steps until the token is cancelled.
    pub(crate) async fn keep(self, end: CancellationToken) {
        while end.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            if end.run_until_cancelled(self.pass()).await.is_none() {
                return;
            }
        }
    }

    async fn pass(&self) {
        let Some((view, Plan { step, waits })) = self.look() else { return };
        let settling = waits.iter().any(|reason| matches!(reason, Reason::Settling { .. }));
        if let Some((step, reasons)) = step.filter(|_| !settling) {
            self.take(&view, step, &reasons).await;
        }
        let voters = view.voters.into_iter().flatten().collect();
        let departures = departures(&self.snapshots.borrow(), &voters);
        for (node, txn) in departures {
            match self.store.propose(self.random.request_id(), txn).await {
                Ok(outcome) => tracing::info!(node, ?outcome, "a node left"),
                Err(error) => tracing::warn!(node, error = %chain(&error), "a node that leaves is not let go yet"),
            }
        }
    }

    async fn take(&self, view: &View, step: Step, reasons: &[Reason]) {
        let name = |node| self.name(node);
        let because = reasons.iter().map(|reason| reason.tell(name)).collect::<Vec<_>>().join("; ");
        let told = step.tell(name);
        let settles = matches!(step, Step::SetVoters(_) | Step::Transfer(_));
        match self.store.step(view, step).await {
            Ok(()) => tracing::info!(because, "the membership changed: {told}"),
            Err(error) => tracing::warn!(because, error = %chain(&error), "the membership did not change: {told}"),
        }
        if settles {
            *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
        }
    }

    /// A node's name; without a node object, its id.
    pub(crate) fn name(&self, node: NodeId) -> String {
        registration::name_of(&self.snapshots.borrow(), node).unwrap_or_else(|| node.to_string())
    }
}

/// How many of these nodes will vote in the end, if all are healthy.
#[must_use]
pub fn expected(nodes: &[Object]) -> usize {
    Policy::default().voters(nodes.iter().filter(|node| may_vote(node)).count())
}

fn may_vote(node: &Object) -> bool {
    let (label, never) = NO_VOTE;
    node.label(label) != Some(never) && !leave::is_leaving(node)
}

/// The nodes of the cluster, as the planner judges them.
fn registered(snapshot: &Snapshot) -> BTreeMap<NodeId, Registered> {
    let entry = |node: &Object| {
        let registered = Registered { may_vote: may_vote(node), zone: node.label(ZONE).unwrap_or_default().to_owned() };
        Some((registration::node_id(node)?, registered))
    };
    snapshot.list(&NODES).filter_map(|stored| entry(&stored.object)).collect()
}

/// The nodes that were asked to leave, vote no longer and run nothing, by name, and what lets them go.
fn departures(snapshot: &Snapshot, voters: &BTreeSet<NodeId>) -> Vec<(String, Txn)> {
    let leaving = snapshot.list(&NODES).filter(|stored| leave::is_leaving(&stored.object));
    let free = leaving.filter(|stored| {
        registration::node_id(&stored.object).is_none_or(|id| !voters.contains(&id))
            && waits_for(snapshot, stored.object.name()) == 0
    });
    free.map(|stored| (stored.object.name().to_owned(), Txn::new().remove(stored.key.clone(), stored.modified)))
        .collect()
}

/// How many pods a node that leaves must still end. Those that tolerate even its leaving go with it.
pub(crate) fn waits_for(snapshot: &Snapshot, node: &str) -> usize {
    let runs = |pod: &Object| {
        let over = matches!(pod.text(&["status", "phase"]), Some("Succeeded" | "Failed"));
        pod.text(&["spec", "nodeName"]) == Some(node)
            && !over
            && (pod.deletion_timestamp().is_some() || !tolerates(pod))
    };
    snapshot.list(&PODS).filter(|pod| runs(&pod.object)).count()
}

/// Whether a pod tolerates that its node leaves, for ever.
fn tolerates(pod: &Object) -> bool {
    let tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array);
    tolerations.into_iter().flatten().any(|toleration| {
        let text = |field: &str| toleration.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        text("key").is_none_or(|key| key == leave::TAINT)
            && text("operator") == Some("Exists")
            && text("effect").is_none_or(|effect| effect == "NoExecute")
            && toleration.get("tolerationSeconds").is_none()
    })
}

#[cfg(test)]
mod tests {
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

    fn node(name: &str, id: u128, metadata: &Value) -> Value {
        let provider = registration::provider_id(quorate_proto::ids::ClusterId(7), NodeId(id));
        let mut node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"providerID": provider}});
        node["metadata"]["name"] = name.into();
        node
    }

    fn leaving() -> Value {
        json!({"deletionTimestamp": "2027-01-01T12:00:00Z", "finalizers": [leave::FINALIZER]})
    }

    fn pod(name: &str, tolerations: &Value, phase: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "n2", "tolerations": tolerations}, "status": {"phase": phase}})
    }

    fn snapshot(objects: &[Value]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for value in objects {
            let object = Object::from_value(value.clone()).unwrap();
            let kind = if object.kind() == "Node" { &NODES } else { &PODS };
            let key = kind.key(object.namespace(), object.name()).unwrap();
            snapshot.commit(&Txn::new().create(key, object.to_document())).unwrap();
        }
        snapshot
    }

    #[test]
    fn a_node_may_vote_unless_it_leaves_or_its_label_says_never() {
        let never = json!({"labels": {"quorate.dev/voter": "never"}});
        let snapshot = snapshot(&[node("n1", 1, &json!({})), node("n2", 2, &never), node("n3", 3, &leaving())]);
        let votes: Vec<_> = registered(&snapshot).into_iter().map(|(id, node)| (id, node.may_vote)).collect();
        assert_eq!(votes, [(NodeId(1), true), (NodeId(2), false), (NodeId(3), false)]);
    }

    #[test]
    fn a_node_is_let_go_when_it_votes_no_longer_and_its_pods_have_ended() {
        let gone = |objects: &[Value], voters: &[u128]| {
            let voters = voters.iter().copied().map(NodeId).collect();
            departures(&snapshot(objects), &voters).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let n2 = || node("n2", 2, &leaving());
        assert_eq!(gone(&[n2()], &[1, 2, 3]), Vec::<String>::new(), "it votes");
        assert_eq!(gone(&[n2(), pod("a", &json!([]), "Running")], &[1]), Vec::<String>::new(), "a pod runs");
        let some_time = json!([{"operator": "Exists", "tolerationSeconds": 30}]);
        assert_eq!(gone(&[n2(), pod("a", &some_time, "Running")], &[1]), Vec::<String>::new(), "it ends in time");
        let always = json!([{"operator": "Exists"}]);
        assert_eq!(gone(&[n2(), pod("a", &json!([]), "Succeeded"), pod("b", &always, "Running")], &[1]), ["n2"]);
        assert_eq!(gone(&[node("n2", 2, &json!({}))], &[1]), Vec::<String>::new(), "nobody asked it to");
    }
}
