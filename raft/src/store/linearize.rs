//! Linearizable reads: one question to the leader answers all that wait for one.
//!
//! A read may be answered by any question that is sent after the read was asked for. So those that come while questions are under way
//! wait for the next one, and however many they are, it is one.
//!
//! Invariant: a read is released only when this node has applied whatever was committed when a question, sent after the read was asked
//! for, reached the leader.

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Inner, Store,
    read::{CATCH_UP, ReadError},
};
use crate::{
    mutant::{self, Mutant},
    record::LogId,
    rpc::{Answer, Refused, Request},
};

/// Reads that may wait for a question; beyond that, whoever reads waits to wait.
pub(super) const QUEUE: usize = 1024;

/// Questions that may be under way.
const UNDER_WAY: usize = 2;

/// Why reads were not released: all that waited for one question are told the same.
#[derive(Debug, Clone, Copy)]
pub(super) enum Withheld {
    NoQuorum,
    Stopped,
}

/// A read that waits.
pub(super) type Waiting = oneshot::Sender<Result<(), Withheld>>;

impl From<Withheld> for ReadError {
    fn from(withheld: Withheld) -> Self {
        match withheld {
            Withheld::NoQuorum => Self::NoQuorum,
            Withheld::Stopped => Self::Stopped,
        }
    }
}

impl Inner {
    /// Waits until this node's state may answer a linearizable read that is asked for now.
    pub(super) async fn linearize(&self) -> Result<(), Withheld> {
        let (released, wait) = oneshot::channel();
        self.reads.send(released).await.map_err(|_| Withheld::Stopped)?;
        wait.await.unwrap_or(Err(Withheld::Stopped))
    }
}

/// Asks for all that wait, until the store stops.
pub(super) async fn run(store: Store, mut queue: mpsc::Receiver<Waiting>, shutdown: CancellationToken) {
    let mut under_way = FuturesUnordered::new();
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(()) = under_way.next() => {}
            count = queue.recv_many(&mut waiting, QUEUE), if under_way.len() < UNDER_WAY => {
                if count == 0 {
                    return;
                }
                under_way.push(release(&store, std::mem::take(&mut waiting)));
            }
        }
    }
}

async fn release(store: &Store, waiting: Vec<Waiting>) {
    let released = match question(store).await {
        Ok(id) => caught_up(store, id).await,
        Err(withheld) => Err(withheld),
    };
    for read in waiting {
        // Whoever read may have given up.
        read.send(released).unwrap_or_default();
    }
}

/// Up to which entry a read must have applied.
async fn question(store: &Store) -> Result<LogId, Withheld> {
    let inner = &store.inner;
    let patience = Instant::now() + inner.timing.patience();
    loop {
        let leader = match timeout_at(patience, inner.read_index()).await {
            Ok(Ok(id)) => return Ok(id),
            Ok(Err(Refused::NotLeader(leader))) => leader,
            Ok(Err(Refused::Stopped)) => return Err(Withheld::Stopped),
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(leader) = leader
            && let Ok(Answer::ReadAt(id)) = inner.ask(leader, &Request::ReadIndex, patience).await
        {
            return Ok(id);
        }
        if Instant::now() >= patience {
            return Err(Withheld::NoQuorum);
        }
        inner.pause().await;
    }
}

pub(super) async fn caught_up(store: &Store, id: LogId) -> Result<(), Withheld> {
    let mut progress = store.inner.feed.progress();
    let applied = progress.wait_for(|progress| {
        progress.applied.is_some_and(|applied| applied.index >= id.index) || mutant::is(Mutant::ReadTooSoon)
    });
    match timeout(CATCH_UP, applied).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Withheld::Stopped),
        Err(_) => Err(Withheld::NoQuorum),
    }
}
