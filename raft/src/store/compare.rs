//! Compares this node's state with those of the others, for as long as it changes: by hashes over all changes, at equal revisions.
//!
//! Every node asks for itself. One that finds most others agreed against it takes no part any more; if it cannot be told who is wrong,
//! that is said, and nothing is done.
//!
//! Invariant: in a cluster in which nothing is written, nothing is asked once all is compared.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use quorate_proto::{ids::NodeId, txn::Revision};
use tokio::time::{sleep, timeout};

use super::Inner;
use crate::{
    fault::Fault,
    hashes::{self, Verdict},
    network::Urgency,
    rpc::{self, Answer, Request},
};

/// How often at most.
const EVERY: Duration = Duration::from_secs(10);

/// How long a node may take to come as far as the one that asks.
const BEHIND: Duration = Duration::from_secs(1);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Compares until the store stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut progress = inner.feed.progress();
    let mut compared = Revision(0);
    loop {
        let next = async {
            let newer = progress.wait_for(|progress| progress.revision > compared).await.is_ok();
            sleep(EVERY).await;
            newer
        };
        if inner.shutdown.run_until_cancelled(next).await != Some(true) {
            return;
        }
        let Some((revision, own)) = inner.feed.newest_hash() else { continue };
        let members = inner.status.borrow().members.len();
        match inner.shutdown.run_until_cancelled(inner.judged(revision, own, members)).await {
            None => return,
            Some(Verdict::Unknown) => {}
            Some(Verdict::Agreed) => compared = revision,
            Some(Verdict::Wrong { agreed }) => return inner.fence.raise(Fault::Diverged { revision, own, agreed }),
            Some(Verdict::Split) => {
                tracing::error!(%revision, "the nodes of this cluster have different states, and no majority agrees on one");
            }
        }
    }
}

impl Inner {
    /// What the other members' hashes at a revision say of this node's own.
    async fn judged(&self, revision: Revision, own: u32, members: usize) -> Verdict {
        let others: Vec<NodeId> =
            self.status.borrow().members.iter().map(|member| member.id).filter(|member| *member != self.node).collect();
        let answers = join_all(others.into_iter().map(|node| self.hash_of(node, revision))).await;
        hashes::judge(own, &answers.into_iter().flatten().collect::<Vec<_>>(), members)
    }

    /// The hash another node has at a revision, if it says so.
    async fn hash_of(&self, node: NodeId, revision: Revision) -> Option<u32> {
        let request = rpc::encode(&Request::Hash(revision)).ok()?;
        match rpc::decode(&self.network.call(node, request, Urgency::Normal, PATIENCE).await.ok()?).ok()? {
            Answer::Hash(hash) => hash,
            _ => None,
        }
    }

    /// This node's hash at a revision, if it knows it, or comes to know it in a moment.
    pub(crate) async fn hash_at(&self, revision: Revision) -> Option<u32> {
        let mut progress = self.feed.progress();
        let reached = progress.wait_for(|progress| progress.revision >= revision);
        timeout(BEHIND, reached).await.ok()?.ok()?;
        self.feed.hash_at(revision)
    }
}
