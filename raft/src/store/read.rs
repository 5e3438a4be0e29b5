//! Reads: this node's own state, once it has come as far as the reader asks for.
//!
//! Invariant: a linearizable read sees every write that was acknowledged before it was asked for; a stale one never claims to.

use std::{io, sync::Arc, time::Duration};

use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use quorate_proto::{
    key::Key,
    query::{Page, Query},
    request::Read,
    txn::{CommandRefusal, Revision, Versioned},
    watch::WatchSpec,
};
use thiserror::Error;
use tokio::time::timeout;

use super::{Inner, Store};
use crate::{
    engine::look,
    machine::{self, Past},
    mutant::{self, Mutant},
    record::LogId,
    rpc::Refused,
    watch::{RangeWatch, Watch, WatchError},
};

/// A read waits so long for this node to catch up.
pub(super) const CATCH_UP: Duration = Duration::from_secs(3);

/// Why a read cannot be answered.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Nobody could confirm what the newest state is.
    #[error("no quorum: the newest state cannot be confirmed")]
    NoQuorum,
    /// This node did not catch up in time.
    #[error("this node is at revision {at}, and did not reach {wanted} in time")]
    Behind {
        /// Where it is.
        at: Revision,
        /// What was asked for.
        wanted: Revision,
    },
    /// The revision that was asked for is no longer kept.
    #[error("revisions before {oldest} are compacted")]
    Compacted {
        /// The oldest that can be read.
        oldest: Revision,
    },
    /// The revision that was asked for is yet to come.
    #[error("revision {asked} is yet to come: the store is at {at}")]
    FutureRevision {
        /// Which.
        asked: Revision,
        /// The newest.
        at: Revision,
    },
    /// The store was shut down, or has failed.
    #[error("the store has stopped")]
    Stopped,
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Storage(#[source] io::Error),
}

impl Store {
    /// Waits until this node's state may answer a read, and says at which revision it is.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, read: Read) -> Result<Revision, ReadError> {
        self.inner.fence.check().map_err(ReadError::Storage)?;
        let mut progress = self.inner.feed.progress();
        match read {
            Read::Stale => {}
            Read::Linearizable if mutant::is(Mutant::StaleRead) => {}
            Read::AtLeast(wanted) => {
                let reached = timeout(CATCH_UP, progress.wait_for(|progress| progress.revision >= wanted)).await;
                match reached {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return Err(ReadError::Stopped),
                    Err(_) => return Err(ReadError::Behind { at: self.inner.revision(), wanted }),
                }
            }
            Read::Linearizable => self.inner.linearize().await?,
        }
        Ok(self.inner.revision())
    }

    /// All keys that begin with `prefix`, in order, and the revision they are of.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn rows(&self, prefix: &str) -> Result<(Revision, Vec<(Key, Versioned)>), ReadError> {
        look(&*self.inner.engine, |view| machine::rows(view, prefix)).map_err(ReadError::Storage)
    }

    /// All keys that do not begin with `prefix`, in order, and the revision they are of.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn rows_outside(&self, prefix: &str) -> Result<(Revision, Vec<(Key, Versioned)>), ReadError> {
        look(&*self.inner.engine, |view| machine::rows_outside(view, prefix)).map_err(ReadError::Storage)
    }

    /// What a key held at a revision that this node has applied.
    ///
    /// # Errors
    /// If the revision is no longer kept, or the store cannot be read.
    pub fn at(&self, key: &Key, revision: Revision) -> Result<Option<Versioned>, ReadError> {
        match look(&*self.inner.engine, |view| machine::at(view, key, revision)).map_err(ReadError::Storage)? {
            Past::Held(held) => Ok(held),
            Past::Compacted(oldest) => Err(ReadError::Compacted { oldest }),
        }
    }

    /// The answer to a query, from this node's state once it may answer: one page, of one revision.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] and [`ReadError::FutureRevision`] if it asks for a revision that cannot be read; otherwise as [`Store::read`].
    pub async fn query(&self, read: Read, query: &Query) -> Result<Page, ReadError> {
        self.read(read).await?;
        match look(&*self.inner.engine, |view| machine::query(view, query)).map_err(ReadError::Storage)? {
            Ok(page) => Ok(page),
            Err(CommandRefusal::Compacted { oldest }) => Err(ReadError::Compacted { oldest }),
            Err(CommandRefusal::FutureRevision { asked, at }) => Err(ReadError::FutureRevision { asked, at }),
            Err(other) => Err(ReadError::Storage(io::Error::other(other))),
        }
    }

    /// Tells of changes in a range, as its spec says.
    ///
    /// # Errors
    /// If it is to begin after a revision that is no longer kept.
    pub fn watch_range(&self, spec: WatchSpec) -> Result<RangeWatch, WatchError> {
        let inner = &self.inner;
        RangeWatch::new(Arc::clone(&inner.feed), Arc::clone(&inner.engine), inner.shutdown.clone(), spec)
    }

    /// All changes after `from`; waits for those to come. Begin with the revision [`Store::rows`] returned.
    ///
    /// # Errors
    /// If `from` is no longer kept.
    pub fn watch(&self, from: Revision) -> Result<Watch, WatchError> {
        let inner = &self.inner;
        Watch::new(Arc::clone(&inner.feed), Arc::clone(&inner.engine), inner.shutdown.clone(), from)
    }
}

impl Inner {
    /// Up to which entry a read must have applied, if this node leads.
    pub(crate) async fn read_index(&self) -> Result<LogId, Refused> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Ok((*id.log_id()).into()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Refused::NotLeader(self.other(&forward)))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(Refused::NotLeader(None)),
            Err(RaftError::Fatal(_)) => Err(Refused::Stopped),
        }
    }
}
