//! The agreed state as the API sees it: the store, and this node's newest snapshot of it.
//!
//! Invariant: a snapshot that answers a read is not older than the read allows; a store's error becomes a refusal that says whether
//! anything may have been done.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use quorate_api::{Changes, Desired};
use quorate_proto::{
    ids::RequestId,
    key::Key,
    refusal::{Reason, Refusal, chain},
    request::Read,
    snapshot::Snapshot,
    store::PREFIX,
    txn::{Outcome, Revision, Txn, Versioned},
};
use quorate_raft::{ProposeError, ReadError, Store, WatchError};
use tokio::sync::watch;

use crate::loops::Snapshots;

/// How long the snapshot may take to follow what the store has applied.
const CATCH_UP: Duration = Duration::from_secs(3);

/// After so many revisions of keys that users keep, one of them is told to those who follow objects: so they can resume from there.
const STRIDE: u64 = 100;

/// The store and this node's snapshots of it.
#[derive(Clone)]
pub struct Agreed {
    store: Store,
    snapshots: Snapshots,
    reached: watch::Receiver<Revision>,
}

impl Agreed {
    /// Introduces the two; `reached` is the revision of the newest snapshot.
    #[must_use]
    pub const fn new(store: Store, snapshots: Snapshots, reached: watch::Receiver<Revision>) -> Self {
        Self { store, snapshots, reached }
    }
}

#[async_trait]
impl Desired for Agreed {
    async fn snapshot(&self, read: Read) -> Result<Arc<Snapshot>, Refusal> {
        let revision = self.store.read(read).await.map_err(|error| not_read(&error))?;
        let mut reached = self.reached.clone();
        let newer = reached.wait_for(|reached| *reached >= revision);
        match tokio::time::timeout(CATCH_UP, newer).await {
            Ok(Ok(_)) => Ok(Arc::clone(&self.snapshots.borrow())),
            Ok(Err(_)) => Err(Refusal::new(Reason::Unavailable, "nothing was read", "the node is stopping")),
            Err(_) => Err(busy(revision)),
        }
    }

    async fn propose(&self, request: RequestId, txn: Txn) -> Result<Outcome, Refusal> {
        self.store.propose(request, txn).await.map_err(|error| not_proposed(&error))
    }

    fn changes(&self, after: Revision) -> Changes {
        let watch = match self.store.watch(after) {
            Ok(watch) => watch,
            Err(error) => return stream::iter([Err(not_watched(&error))]).boxed(),
        };
        stream::unfold(Some((watch, after)), async |state| {
            let (mut watch, told) = state?;
            match watch.next_outside(PREFIX, Revision(told.0.saturating_add(STRIDE))).await {
                Ok(changes) => {
                    let told = watch.delivered();
                    Some((Ok(changes), Some((watch, told))))
                }
                Err(WatchError::Stopped) => None,
                Err(error) => Some((Err(not_watched(&error)), None)),
            }
        })
        .boxed()
    }

    fn at(&self, key: &Key, revision: Revision) -> Result<Option<Versioned>, Refusal> {
        self.store.at(key, revision).map_err(|error| match error {
            ReadError::Compacted { .. } => not_watched(&error),
            error => not_read(&error),
        })
    }
}

fn busy(revision: Revision) -> Refusal {
    let because = format!("this node has not taken in revision {revision} within {} s", CATCH_UP.as_secs());
    Refusal::new(Reason::TooManyRequests, "nothing was read", because).hint("try again, or ask another node")
}

pub(crate) fn not_read(error: &ReadError) -> Refusal {
    Refusal::new(Reason::Unavailable, "nothing was read", chain(error))
        .hint("without a quorum only stale answers can be given: see `quorate status`")
}

pub(crate) fn not_watched(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Reason::Expired, "the watch ended", chain(error)).hint("list again, and watch from there")
}

pub(crate) fn not_proposed(error: &ProposeError) -> Refusal {
    let (reason, hint) = match error {
        // A store that stops may have handed out what it did not hear back of.
        ProposeError::Unknown | ProposeError::Stopped => {
            (Reason::Timeout, "whether it was done is not known; the same command again is safe")
        }
        ProposeError::TooLarge { .. } => (Reason::TooLarge, "make it smaller, or split it"),
        ProposeError::Full { .. } => {
            (Reason::StorageFull, "make room on that disk, or delete objects: deletes are taken; it goes on by itself")
        }
        _ => (Reason::Unavailable, "nothing was changed; try again, and see `quorate status` for who can be reached"),
    };
    Refusal::new(reason, "nothing was written", chain(error)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_write_that_a_store_was_stopped_at_it_is_not_said_that_nothing_was_done() {
        for error in [ProposeError::Unknown, ProposeError::Stopped] {
            let refusal = not_proposed(&error);
            assert_eq!(refusal.reason, Reason::Timeout);
            assert!(refusal.hint.unwrap().contains("whether it was done is not known"));
        }
        assert_eq!(not_proposed(&ProposeError::NoLeader).reason, Reason::Unavailable);
    }
}
