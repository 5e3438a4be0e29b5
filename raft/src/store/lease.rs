//! Leases: kept alive on the leader without a word in the log, and ended by the leader when nobody does.
//!
//! Invariant: a beat counts only if a majority confirmed, after it was asked for, that this node leads; a lease is ended only after the
//! same, by a command that names the grant it means.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use quorate_proto::{
    ids::{NodeId, RequestId},
    lease::{Lease, LeaseId},
    request::Read,
    txn::{Command, CommandRefusal},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{CommandError, Inner, PROPOSE, ProposeError, ReadError, Store, linearize};
use crate::{
    beats::{Asked, Beats},
    engine::look,
    machine, record,
    rpc::{Answer, Left, Request},
};

/// So many leases are ended at a time.
const AT_ONCE: usize = 32;

impl Store {
    /// Keeps a lease alive: it has its full time again, which is returned, counted from before the call.
    ///
    /// # Errors
    /// [`CommandRefusal::NoSuchLease`] if it has ended; [`ProposeError`] if no leader could confirm it: it may end in time.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, CommandError> {
        self.left(lease, true).await.map(|left| Duration::from_secs(left.ttl_seconds))
    }

    /// A lease, what it has left and what is attached to it.
    ///
    /// # Errors
    /// [`CommandRefusal::NoSuchLease`] if it was never granted, or has ended; [`ProposeError`] if no leader could be asked.
    pub async fn lease(&self, lease: LeaseId) -> Result<Lease, CommandError> {
        let left = self.left(lease, false).await?;
        let read = self.read(Read::Linearizable).await;
        let keys = read
            .and_then(|_| look(&*self.inner.engine, |view| machine::attached(view, lease)).map_err(ReadError::Storage));
        let keys = keys.map_err(|error| match error {
            ReadError::NoQuorum | ReadError::Behind { .. } => ProposeError::NoQuorum,
            _ => ProposeError::Stopped,
        })?;
        Ok(Lease { id: lease, ttl_seconds: left.ttl_seconds, remaining_millis: left.remaining_millis, keys })
    }

    /// All leases that this node knows of, by number.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        self.inner.feed.leases().borrow().keys().copied().collect()
    }

    async fn left(&self, lease: LeaseId, keep_alive: bool) -> Result<Left, CommandError> {
        let patience = Instant::now() + self.inner.timing.patience();
        loop {
            let leader = self.leader_elsewhere();
            let asked = match leader {
                None => self.asked(lease, keep_alive).await,
                Some(leader) => match self.inner.ask(leader, &Request::Lease { lease, keep_alive }, patience).await {
                    Ok(Answer::Lease(Some(left))) => Asked::Left(left),
                    Ok(Answer::Lease(None)) => Asked::NoLease,
                    Ok(_) | Err(_) => Asked::NotLeading,
                },
            };
            match asked {
                Asked::Left(left) => return Ok(left),
                Asked::NoLease => return Err(CommandRefusal::NoSuchLease(lease).into()),
                Asked::NotLeading if self.inner.shutdown.is_cancelled() => return Err(ProposeError::Stopped.into()),
                Asked::NotLeading if Instant::now() >= patience => {
                    let error = if leader.is_some() { ProposeError::NoQuorum } else { ProposeError::NoLeader };
                    return Err(error.into());
                }
                Asked::NotLeading => self.inner.pause().await,
            }
        }
    }

    fn leader_elsewhere(&self) -> Option<NodeId> {
        self.inner.status.borrow().leader.filter(|leader| *leader != self.inner.node)
    }

    /// Answers for a lease, if this node leads.
    pub(crate) async fn asked(&self, lease: LeaseId, keep_alive: bool) -> Asked {
        let asked = Instant::now();
        // Confirmed by this node's own majority: another leader's would not know of the beat.
        let led = timeout(self.inner.timing.patience(), self.inner.read_index()).await;
        let Ok(Ok(id)) = led else { return Asked::NotLeading };
        if linearize::caught_up(self, id).await.is_err() {
            return Asked::NotLeading;
        }
        let mut beats = self.inner.noted();
        beats.ask(Instant::now(), lease, keep_alive.then_some(asked))
    }
}

impl Inner {
    /// What is remembered of leases, as of now.
    fn noted(&self) -> std::sync::MutexGuard<'_, Beats> {
        let term = {
            let status = self.status.borrow();
            status.leading.then_some(status.term)
        };
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.note(Instant::now(), term, &self.feed.leases().borrow());
        beats
    }

    /// Ends the leases whose time is over. Whether it makes sense to go on at once.
    async fn end_leases(&self, term: u64) -> bool {
        // Whoever was deposed without knowing ends nothing.
        if !matches!(timeout(self.timing.patience(), self.read_index()).await, Ok(Ok(_))) {
            return false;
        }
        let over = self.noted().end(Instant::now(), term);
        let ended = stream::iter(over).map(|(lease, granted)| async move {
            let request = RequestId(u128::from(self.random.number()) << 64 | u128::from(self.random.number()));
            let Ok(command) = record::encode(&Command::Revoke { request, lease, granted: Some(granted) }) else {
                return false;
            };
            let tried = timeout(PROPOSE, self.submit(command)).await;
            tracing::debug!(%lease, "a lease was not kept alive and is ended");
            matches!(tried, Ok(super::Tried::Done(_)))
        });
        ended.buffer_unordered(AT_ONCE).all(std::future::ready).await
    }
}

/// Ends leases in time for as long as this node leads. Runs until the store stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    let (mut status, mut leases) = (inner.status.clone(), inner.feed.leases());
    loop {
        status.mark_unchanged();
        leases.mark_unchanged();
        let (next, term) = {
            let beats = inner.noted();
            (beats.next(), beats.term())
        };
        let over = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
            changed = leases.changed() => if changed.is_err() { return },
            () = over => {
                let ending = async {
                    if !inner.end_leases(term.unwrap_or_default()).await {
                        inner.pause().await;
                    }
                };
                if inner.shutdown.run_until_cancelled(ending).await.is_none() {
                    return;
                }
            }
        }
    }
}
