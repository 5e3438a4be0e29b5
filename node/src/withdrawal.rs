//! Makes sure that nobody sends new connections to a pod before it is told to stop.
//!
//! A pod's node asks every other node to say when its names and routes have come as far as the revision that takes the pod away, and
//! when what it had begun to dial before has arrived. Only then is the pod stopped: so a rolling update drops no request. Questions
//! that come while others are under way go together.
//!
//! Invariant: a node says that it has come so far only after it has; one that does not answer within [`PATIENCE`] is not waited for.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use quorate_agent::Withdrawal;
use quorate_proto::{ids::NodeId, kinds::NODES, snapshot::Snapshot, txn::Revision, wire::cap};
use quorate_traffic::Traffic;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    links::{self, LinkError, Links, Opening},
    loops::Snapshots,
    registration,
};

/// How long a node is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Questions that may wait; beyond that, whoever asks waits too.
const QUEUE: usize = 1024;

/// How far the routes of this node have come.
#[derive(Clone)]
pub(crate) struct Routed {
    /// Names and routes are those of this revision.
    pub(crate) revision: watch::Receiver<Revision>,
    /// What carries connections; a simulated node has none.
    pub(crate) traffic: Option<Traffic>,
}

impl Routed {
    /// Waits until this node begins no connection to what was taken away by `revision`, and those that had begun have arrived; `false`
    /// if that is not so within [`PATIENCE`].
    pub(crate) async fn past(&self, revision: Revision) -> bool {
        let mut routed = self.revision.clone();
        let past = async {
            let reached = routed.wait_for(|routed| *routed >= revision).await.is_ok();
            if let Some(traffic) = &self.traffic {
                traffic.settled().await;
            }
            reached
        };
        timeout(PATIENCE, past).await.unwrap_or(false)
    }
}

/// A question: which revision, and whom to tell.
type Question = (Revision, oneshot::Sender<()>);

/// Asks all nodes for this node's agent.
pub(crate) struct Withdrawals(mpsc::Sender<Question>);

#[async_trait]
impl Withdrawal for Withdrawals {
    async fn withdrawn(&self, revision: Revision) {
        let (told, answer) = oneshot::channel();
        // If nobody answers, this node is stopping, and stops no pod.
        if self.0.send((revision, told)).await.is_err() || answer.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whom to ask, and how.
pub(crate) struct Asking {
    pub(crate) own: NodeId,
    pub(crate) routed: Routed,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) snapshots: Snapshots,
    questions: mpsc::Receiver<Question>,
}

impl Asking {
    /// What asks, and where the agent takes its questions.
    pub(crate) fn new(own: NodeId, routed: Routed, links: Arc<dyn Links>, snapshots: Snapshots) -> (Self, Withdrawals) {
        let (sender, questions) = mpsc::channel(QUEUE);
        (Self { own, routed, links, snapshots, questions }, Withdrawals(sender))
    }

    /// Asks for the agent, until the token is cancelled.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut gathered = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = under_way.next() => {}
                count = self.questions.recv_many(&mut gathered, QUEUE) => {
                    if count == 0 {
                        return;
                    }
                    under_way.push(self.round(std::mem::take(&mut gathered)));
                }
            }
        }
    }

    /// Asks every node once for all that have gathered.
    fn round(&self, questions: Vec<Question>) -> impl Future<Output = ()> + use<> {
        let revision = questions.iter().map(|(revision, _)| *revision).max().unwrap_or_default();
        let others = others(&self.snapshots.borrow(), self.own);
        let (links, routed) = (Arc::clone(&self.links), self.routed.clone());
        async move {
            let asked = others.into_iter().map(|node| ask(&*links, node, revision));
            tokio::join!(routed.past(revision), join_all(asked));
            for (_, told) in questions {
                // The pod may have ended meanwhile.
                told.send(()).unwrap_or_default();
            }
        }
    }
}

/// The other nodes that carry connections: those that the leader hears.
fn others(snapshot: &Snapshot, own: NodeId) -> Vec<NodeId> {
    let nodes = snapshot.list(&NODES).filter(|node| {
        let ready = node.object.condition("Ready").and_then(|ready| ready.get("status")?.as_str().map(str::to_owned));
        ready.as_deref() != Some("Unknown")
    });
    nodes.filter_map(|node| registration::node_id(&node.object)).filter(|node| *node != own).collect()
}

async fn ask(links: &dyn Links, node: NodeId, revision: Revision) {
    let asked = links::ask(links, node, Opening::Withdrawal, &revision, cap::CONTROL);
    match timeout(PATIENCE, asked).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            tracing::info!(%node, %revision, "a node's routes are behind; it is not waited for any longer");
        }
        Ok(Err(error)) => tracing::debug!(%node, %error, "a node was not asked about its routes"),
        Err(_) => tracing::debug!(%node, %revision, "a node does not say how far its routes have come"),
    }
}

/// Answers another node's question.
///
/// # Errors
/// If the stream breaks.
pub(crate) async fn answer(
    routed: &Routed,
    writer: &mut links::Writer,
    reader: &mut links::Reader,
) -> Result<(), LinkError> {
    let revision = links::receive::<Revision>(reader, cap::CONTROL).await?;
    links::hear_out(reader);
    links::send(writer, &routed.past(revision).await, cap::CONTROL).await
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex};

    use quorate_proto::{ids::ClusterId, object::Object, txn::Txn};
    use serde_json::json;
    use tokio::io::AsyncWriteExt as _;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::links::{Lane, Reader, Writer};

    fn snapshot(nodes: &[(u64, &str)]) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        for (node, ready) in nodes {
            let name = format!("n{node}");
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "spec": {"providerID": registration::provider_id(ClusterId(7), NodeId::from(*node))},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            let object = Object::from_value(object).unwrap();
            snapshot.commit(&Txn::new().create(NODES.key(None, &name).unwrap(), object.to_document())).unwrap();
        }
        Arc::new(snapshot)
    }

    /// Other nodes, each as far as it says; one that is not listed cannot be reached.
    #[derive(Default)]
    struct Others {
        routed: BTreeMap<NodeId, watch::Sender<Revision>>,
        asked: Mutex<Vec<NodeId>>,
        tasks: TaskTracker,
    }

    #[async_trait]
    impl Links for Others {
        async fn open(&self, to: NodeId, _: Lane) -> Result<(Writer, Reader), LinkError> {
            self.asked.lock().unwrap().push(to);
            let Some(routed) = self.routed.get(&to) else {
                return Err(LinkError::Unreachable { to, because: "it is dead".to_owned() });
            };
            let routed = Routed { revision: routed.subscribe(), traffic: None };
            let (near, far) = tokio::io::duplex(4096);
            self.tasks.spawn(async move {
                let (reader, writer) = tokio::io::split(far);
                let (mut writer, mut reader): (Writer, Reader) = (Box::new(writer), Box::new(reader));
                assert_eq!(links::receive::<Opening>(&mut reader, cap::CONTROL).await.unwrap(), Opening::Withdrawal);
                answer(&routed, &mut writer, &mut reader).await.unwrap();
                writer.shutdown().await.unwrap();
            });
            let (reader, writer) = tokio::io::split(near);
            Ok((Box::new(writer), Box::new(reader)))
        }
    }

    struct Case {
        others: Arc<Others>,
        own: watch::Sender<Revision>,
        withdrawals: Arc<Withdrawals>,
        _snapshots: watch::Sender<Arc<Snapshot>>,
        _stop: tokio_util::sync::DropGuard,
    }

    /// This node is 1; the others are 2 and 3.
    fn case(nodes: &[(u64, &str)], reachable: &[u64]) -> Case {
        let routed = reachable.iter().map(|node| (NodeId::from(*node), watch::Sender::new(Revision(1))));
        let others = Arc::new(Others { routed: routed.collect(), ..Others::default() });
        let own = watch::Sender::new(Revision(1));
        let (snapshots, seen) = watch::channel(snapshot(nodes));
        let routed = Routed { revision: own.subscribe(), traffic: None };
        let (asking, withdrawals) = Asking::new(NodeId(1), routed, Arc::clone(&others) as _, seen);
        let stop = CancellationToken::new();
        others.tasks.spawn(asking.run(stop.clone()));
        Case { others, own, withdrawals: Arc::new(withdrawals), _snapshots: snapshots, _stop: stop.drop_guard() }
    }

    impl Case {
        /// Whether a pod that was taken away by revision 7 may be stopped within so many seconds.
        async fn within(&self, seconds: u64) -> bool {
            timeout(Duration::from_secs(seconds), self.withdrawals.withdrawn(Revision(7))).await.is_ok()
        }

        fn reach(&self, node: u64, revision: u64) {
            match node {
                1 => self.own.send_replace(Revision(revision)),
                _ => self.others.routed[&NodeId::from(node)].send_replace(Revision(revision)),
            };
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_may_stop_when_every_node_has_forgotten_it_and_not_before() {
        let case = case(&[(1, "True"), (2, "True"), (3, "False")], &[2, 3]);
        for node in [3, 1] {
            case.reach(node, 7);
            assert!(!case.within(1).await, "another node still sends connections to it");
        }
        case.reach(2, 6);
        assert!(!case.within(1).await, "it has not heard of it");
        case.reach(2, 8);
        assert!(case.within(1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_dead_is_not_waited_for_and_one_that_does_not_answer_not_for_long() {
        let dead = case(&[(1, "True"), (2, "True"), (3, "Unknown")], &[]);
        dead.reach(1, 7);
        assert!(dead.within(1).await);
        assert_eq!(*dead.others.asked.lock().unwrap(), [NodeId(2)], "who is not heard is not asked");
        let silent = case(&[(1, "True"), (2, "True")], &[2]);
        silent.reach(1, 7);
        assert!(!silent.within(PATIENCE.as_secs() - 1).await);
        assert!(silent.within(PATIENCE.as_secs() + 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_leave_together_are_asked_about_together() {
        let case = case(&[(1, "True"), (2, "True")], &[2]);
        case.reach(1, 7);
        case.reach(2, 7);
        let all = join_all((0..50).map(|_| case.within(1))).await;
        assert_eq!(all, [true; 50]);
        assert!(case.others.asked.lock().unwrap().len() <= 2);
    }
}
