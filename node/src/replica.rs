//! Keeps the newest snapshot of this node: what the store held at first, then every change, in order.
//!
//! Everything on the node that reads or decides takes its snapshots from here: one watch on the store, one copy in memory.
//!
//! What users keep by the store's own verbs is no object and in no snapshot. A revision that did nothing else moves the snapshot's
//! revision and wakes nobody but those who wait for that.
//!
//! Invariant: a published snapshot is the state at exactly its revision; revisions only rise.

use std::sync::Arc;

use quorate_proto::{
    snapshot::{Snapshot, SnapshotError},
    store::PREFIX,
    txn::Revision,
};
use quorate_raft::{Store, WatchError};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why there are no more snapshots.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[source] quorate_raft::ReadError),
    /// The store cannot be watched.
    #[error("the store cannot be watched")]
    Watch(#[source] WatchError),
    /// The store holds what is no object.
    #[error(transparent)]
    Object(#[from] SnapshotError),
}

/// Reads what the store holds now.
///
/// # Errors
/// If it cannot be read, or holds what is no object.
pub(crate) fn load(store: &Store) -> Result<Snapshot, ReplicaError> {
    let (revision, rows) = store.rows_outside(PREFIX).map_err(ReplicaError::Read)?;
    Ok(Snapshot::load(revision, rows)?)
}

/// Where snapshots are published.
pub(crate) struct Publisher {
    /// The newest; whoever waits for it is woken when an object changed.
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    /// Its revision; whoever waits for it is woken whenever that rises.
    pub(crate) reached: watch::Sender<Revision>,
}

impl Publisher {
    fn publish(&self, snapshot: &Snapshot, changed: bool) {
        self.snapshots.send_if_modified(|published| {
            *published = Arc::new(snapshot.clone());
            changed
        });
        self.reached.send_replace(snapshot.revision());
    }
}

/// Publishes every newer state until the node stops.
///
/// # Errors
/// If the store cannot be read any more: the node cannot go on.
pub(crate) async fn follow(
    store: Store,
    publisher: Publisher,
    shutdown: CancellationToken,
) -> Result<(), ReplicaError> {
    let mut snapshot = Snapshot::clone(&publisher.snapshots.borrow());
    loop {
        let mut changes = match store.watch(snapshot.revision()) {
            Ok(changes) => changes,
            Err(WatchError::Compacted { .. }) => {
                snapshot = match load(&store) {
                    Err(_) if is_fenced(&store) => continue,
                    loaded => loaded?,
                };
                publisher.publish(&snapshot, true);
                continue;
            }
            Err(WatchError::Stopped) => return Ok(()),
            Err(_) if is_fenced(&store) => {
                // Whoever runs pods, answers names or carries connections goes on with what was known last.
                shutdown.cancelled().await;
                return Ok(());
            }
            Err(error) => return Err(ReplicaError::Watch(error)),
        };
        // Until its revision is compacted: after a Raft snapshot was installed, the changes before it are gone.
        while let Some(gathered) = shutdown.run_until_cancelled(changes.gather_outside(PREFIX)).await {
            let gathered = match gathered {
                Ok(gathered) => gathered,
                // Asking it again would be answered at once, for ever.
                Err(WatchError::Stopped) => return Ok(()),
                Err(_) => break,
            };
            for change in gathered.revisions.iter().flat_map(|revision| revision.iter()) {
                snapshot.apply(change)?;
            }
            snapshot.advance(gathered.upto);
            publisher.publish(&snapshot, !gathered.revisions.is_empty());
        }
        if shutdown.is_cancelled() {
            return Ok(());
        }
    }
}

/// Whether the store was fenced, which it tells by itself.
fn is_fenced(store: &Store) -> bool {
    store.fault().is_some()
}
