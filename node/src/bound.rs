//! What the agent of this node is shown of the agreed state: all of it, and nothing that is bound here once the node was removed.
//!
//! A node that was deleted while it was cut off may never hear from the log that its pods run elsewhere. Its peers tell it that it is no
//! member any more; from then on it is to run nothing of theirs.
//!
//! Invariant: pods are withheld only for a standing that was believed (`standing.rs`), never for what is missing in this node's copy.

use std::sync::Arc;

use quorate_proto::{kinds::PODS, overview::Standing, snapshot::Snapshot, txn::Change};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::loops::Snapshots;

/// What the agent of the node `own` is shown.
fn shown(own: &str, snapshot: &Arc<Snapshot>, standing: Standing) -> Arc<Snapshot> {
    if standing != Standing::Removed {
        return Arc::clone(snapshot);
    }
    let bound = snapshot.list(&PODS).filter(|pod| pod.object.text(&["spec", "nodeName"]) == Some(own));
    let mut without = Snapshot::clone(snapshot);
    for pod in bound {
        let gone = Change { revision: snapshot.revision(), key: pod.key.clone(), now: None };
        if let Err(error) = without.apply(&gone) {
            tracing::error!(%error, "a pod of a node that was removed goes on");
        }
    }
    Arc::new(without)
}

/// Shows the agent what it is to run, until the token is cancelled.
pub(crate) async fn keep(
    own: String,
    mut snapshots: Snapshots,
    mut standing: watch::Receiver<Standing>,
    agent: watch::Sender<Arc<Snapshot>>,
    shutdown: CancellationToken,
) {
    loop {
        let now = *standing.borrow_and_update();
        agent.send_replace(shown(&own, &snapshots.borrow_and_update(), now));
        let changes = async {
            tokio::select! {
                changed = snapshots.changed() => changed.is_ok(),
                changed = standing.changed() => changed.is_ok(),
            }
        };
        if shutdown.run_until_cancelled(changes).await != Some(true) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::{object::Object, txn::Txn};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_node_that_was_removed_is_shown_none_of_its_pods() {
        let mut snapshot = Snapshot::default();
        for (name, node) in [("here", json!("n1")), ("there", json!("n2")), ("waiting", json!(null))] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": {"nodeName": node}});
            let pod = Object::from_value(pod).unwrap();
            snapshot.commit(&Txn::new().create(PODS.key(Some("shop"), name).unwrap(), pod.to_document())).unwrap();
        }
        let snapshot = Arc::new(snapshot);
        let names = |standing| {
            let shown = shown("n1", &snapshot, standing);
            assert_eq!(shown.revision(), snapshot.revision());
            shown.list(&PODS).map(|pod| pod.object.name().to_owned()).collect::<Vec<_>>()
        };
        for standing in [Standing::Member, Standing::Leaving, Standing::Left] {
            assert_eq!(names(standing), ["here", "there", "waiting"]);
        }
        assert_eq!(names(Standing::Removed), ["there", "waiting"]);
    }
}
