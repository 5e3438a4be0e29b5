//! What this node is to its cluster: a member, one that leaves, or one that the others do not know any more.
//!
//! A node that was deleted while it lived may never hear of it from the log: the others stop talking with it the moment its object is
//! gone. They close its connections with the reason, and that is believed when nobody says otherwise for a while.
//!
//! Invariant: a node says that it was removed only when its object was there and is gone, or when every peer that answers says so.

use std::{sync::Arc, time::Duration};

use quorate_api::leave;
use quorate_proto::{ids::NodeId, kinds::NODES, object::Object, overview::Standing, snapshot::Snapshot};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{loops::Snapshots, registration};

/// How long peers must refuse this node before that is believed: a peer that is behind may not know a new node yet.
const DISBELIEF: Duration = Duration::from_secs(10);
/// The same for a node that was asked to leave, and so expects it.
const EXPECTED: Duration = Duration::from_secs(1);

/// What a node is, by its own copy of the agreed state; `refused`: the peers do not know it, for long enough.
#[must_use]
fn judge(own: Option<&Object>, before: Standing, refused: bool) -> Standing {
    let leaving = own.map_or(matches!(before, Standing::Leaving | Standing::Left), leave::is_leaving);
    match (own.is_some() && !refused, leaving) {
        (true, false) => Standing::Member,
        (true, true) => Standing::Leaving,
        (false, true) => Standing::Left,
        (false, false) => Standing::Removed,
    }
}

/// Keeps the standing until the token is cancelled. `refused` says whether all peers that answer refuse this node.
pub(crate) async fn keep(
    own: NodeId,
    mut snapshots: Snapshots,
    mut refused: watch::Receiver<bool>,
    standing: watch::Sender<Standing>,
    shutdown: CancellationToken,
) {
    let find = |snapshot: &Arc<Snapshot>| {
        let node = snapshot.list(&NODES).find(|stored| registration::node_id(&stored.object) == Some(own));
        node.map(|stored| stored.object.clone())
    };
    let mut known = false;
    loop {
        let object = find(&snapshots.borrow_and_update());
        known |= object.is_some();
        let before = *standing.borrow();
        let believed = *refused.borrow_and_update() && {
            let patience = if object.as_ref().is_some_and(leave::is_leaving) { EXPECTED } else { DISBELIEF };
            // Whatever changes meanwhile is looked at anew.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(patience) => true,
                _ = refused.wait_for(|refused| !refused) => false,
                _ = snapshots.changed() => false,
            }
        };
        // Before its object first arrived, a node is a member by its own record.
        let now = if known || believed { judge(object.as_ref(), before, believed) } else { Standing::Member };
        let changed = standing.send_if_modified(|standing| std::mem::replace(standing, now) != now);
        match now {
            Standing::Removed if changed => tracing::error!(
                "this node was deleted from the cluster while it lived: the others do not talk with it any more, and its pods run \
                 elsewhere and end here; to become a node again, run `quorate join TOKEN --fresh` here"
            ),
            Standing::Left if changed => tracing::info!("this node has left the cluster"),
            Standing::Leaving if changed => tracing::info!("this node was asked to leave the cluster"),
            _ => {}
        }
        let changes = async {
            tokio::select! {
                changed = snapshots.changed() => changed.is_ok(),
                changed = refused.changed() => changed.is_ok(),
            }
        };
        if shutdown.run_until_cancelled(changes).await != Some(true) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::{ids::ClusterId, txn::Txn};
    use serde_json::json;

    use super::*;

    fn node(leaving: bool) -> Object {
        let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"},
            "spec": {"providerID": registration::provider_id(ClusterId(7), NodeId(2))}});
        if leaving {
            node["metadata"]["deletionTimestamp"] = "2027-01-01T12:00:00Z".into();
            node["metadata"]["finalizers"] = json!([leave::FINALIZER]);
        }
        Object::from_value(node).unwrap()
    }

    fn snapshot(object: Option<&Object>) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        if let Some(object) = object {
            snapshot.commit(&Txn::new().create(NODES.key(None, "n2").unwrap(), object.to_document())).unwrap();
        }
        Arc::new(snapshot)
    }

    /// What a node thinks it is while its snapshots and its peers say what they do, each for so many seconds.
    async fn thinks(said: Vec<(Option<Object>, bool, u64)>) -> Vec<Standing> {
        let (snapshots, receiver) = watch::channel(snapshot(said[0].0.as_ref()));
        let (refused, refusals) = watch::channel(said[0].1);
        let (standing, told) = watch::channel(Standing::Member);
        let stop = CancellationToken::new();
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(keep(NodeId(2), receiver, refusals, standing, stop.clone()));
        let mut thought = Vec::new();
        for (object, refuse, seconds) in said {
            snapshots.send_replace(snapshot(object.as_ref()));
            refused.send_replace(refuse);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            thought.push(*told.borrow());
        }
        stop.cancel();
        thought
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_object_goes_after_it_was_asked_to_leave_has_left() {
        let thought = thinks(vec![(Some(node(false)), false, 1), (Some(node(true)), false, 1), (None, false, 1)]).await;
        assert_eq!(thought, [Standing::Member, Standing::Leaving, Standing::Left]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_hears_only_from_its_peers_that_it_is_gone_believes_them_when_they_all_insist() {
        let said = vec![(Some(node(false)), true, 8), (Some(node(false)), false, 30), (Some(node(false)), true, 11)];
        assert_eq!(thinks(said).await, [Standing::Member, Standing::Member, Standing::Removed]);
        let said = vec![(Some(node(true)), false, 1), (Some(node(true)), true, 2)];
        assert_eq!(thinks(said).await, [Standing::Leaving, Standing::Left]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_was_deleted_says_so_and_one_that_has_just_joined_does_not() {
        assert_eq!(thinks(vec![(Some(node(false)), false, 1), (None, false, 1)]).await[1], Standing::Removed);
        assert_eq!(thinks(vec![(None, true, 5), (Some(node(false)), false, 5)]).await, [Standing::Member; 2]);
    }
}
