//! Keeps the newest snapshot of this node: what the store held at first, then every change, in order.
//!
//! Everything on the node that reads or decides takes its snapshots from here: one watch on the store, one copy in memory.
//!
//! Invariant: a published snapshot is the state at exactly its revision; revisions only rise.

use std::sync::Arc;

use quorate_proto::snapshot::{Snapshot, SnapshotError};
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
    let (revision, rows) = store.rows("").map_err(ReplicaError::Read)?;
    Ok(Snapshot::load(revision, rows)?)
}

/// Publishes every newer state until the node stops.
///
/// # Errors
/// If the store cannot be read any more: the node cannot go on.
pub(crate) async fn follow(
    store: Store,
    sender: watch::Sender<Arc<Snapshot>>,
    shutdown: CancellationToken,
) -> Result<(), ReplicaError> {
    let mut snapshot = Snapshot::clone(&sender.borrow());
    loop {
        let mut changes = match store.watch(snapshot.revision()) {
            Ok(changes) => changes,
            Err(WatchError::Compacted { .. }) => {
                snapshot = match load(&store) {
                    Err(_) if is_fenced(&store) => continue,
                    loaded => loaded?,
                };
                sender.send_replace(Arc::new(snapshot.clone()));
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
        while let Some(next) = shutdown.run_until_cancelled(changes.next()).await {
            let revision = match next {
                Ok(revision) => revision,
                // Asking it again would be answered at once, for ever.
                Err(WatchError::Stopped) => return Ok(()),
                Err(_) => break,
            };
            for change in revision.iter() {
                snapshot.apply(change)?;
            }
            sender.send_replace(Arc::new(snapshot.clone()));
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
