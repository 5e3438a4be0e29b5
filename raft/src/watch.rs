//! Watches: every change, in order, from any revision that is still kept.
//!
//! A watch pulls: it knows the last revision it delivered and reads on from there, from the newest changes in memory or else from the
//! store. So a slow watch costs nothing and loses nothing; if it falls behind what is kept, it ends and says where to begin again.
//!
//! Invariant: a revision is delivered whole, once, and only after all before it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use quorate_proto::txn::{Change, Revision};
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    engine::{Engine, look},
    machine::{self, Replay},
    record::LogId,
};

/// The newest changes are kept in memory until they come to so many bytes.
const RECENT: usize = 4 << 20;

/// A watch reads about so many bytes at a time from the store.
const PIECE: usize = 1 << 20;

/// How far this node's state has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) applied: Option<LogId>,
    pub(crate) revision: Revision,
    pub(crate) hash: u32,
}

/// Why a watch ended.
#[derive(Debug, Error)]
pub enum WatchError {
    /// What it wants is no longer kept. Read the present state, and watch from its revision.
    #[error("revisions up to {oldest} are compacted")]
    Compacted {
        /// The oldest revision to watch from.
        oldest: Revision,
    },
    /// The store was shut down.
    #[error("the store has stopped")]
    Stopped,
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Storage(#[source] io::Error),
}

/// Where the state machine tells what it applied.
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Recent {
    /// By revision, without a gap.
    changes: VecDeque<Arc<[Change]>>,
    bytes: usize,
}

impl Feed {
    pub(crate) fn new(progress: Progress) -> Self {
        Self { recent: Mutex::default(), progress: watch::Sender::new(progress) }
    }

    /// How far the state has come; a change of it wakes whoever waits.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Adds what was applied. The changes are in the store already.
    pub(crate) fn publish(&self, changes: Vec<Arc<[Change]>>, progress: Progress) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            for revision in changes {
                recent.bytes += revision.iter().map(machine::weight).sum::<usize>();
                recent.changes.push_back(revision);
            }
            while recent.bytes > RECENT
                && let Some(oldest) = recent.changes.pop_front()
            {
                recent.bytes -= oldest.iter().map(machine::weight).sum::<usize>();
            }
        }
        self.progress.send_replace(progress);
    }

    /// Forgets the newest changes: the state was replaced.
    pub(crate) fn reset(&self, progress: Progress) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        self.progress.send_replace(progress);
    }

    fn recent(&self, after: Revision) -> Option<VecDeque<Arc<[Change]>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = recent.changes.front()?.first()?.revision;
        let skip = (after.0 + 1).checked_sub(oldest.0)?;
        let found: VecDeque<_> = recent.changes.iter().skip(usize::try_from(skip).ok()?).cloned().collect();
        Some(found).filter(|found| !found.is_empty())
    }
}

/// Delivers changes. It can be dropped and begun again, here or on another node, from the last revision it delivered.
pub struct Watch {
    feed: Arc<Feed>,
    engine: Arc<dyn Engine>,
    progress: watch::Receiver<Progress>,
    stopped: tokio_util::sync::CancellationToken,
    delivered: Revision,
    ready: VecDeque<Arc<[Change]>>,
}

impl Watch {
    pub(crate) fn new(
        feed: Arc<Feed>,
        engine: Arc<dyn Engine>,
        stopped: tokio_util::sync::CancellationToken,
        from: Revision,
    ) -> Result<Self, WatchError> {
        let meta = look(&*engine, |view| machine::Meta::load(view)).map_err(WatchError::Storage)?;
        if from < meta.compacted {
            return Err(WatchError::Compacted { oldest: meta.compacted });
        }
        let progress = feed.progress();
        Ok(Self { feed, engine, progress, stopped, delivered: from, ready: VecDeque::new() })
    }

    /// The changes of the next revision, in the order of its transaction; at least one. Waits until there is one.
    ///
    /// May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// See [`WatchError`]; afterwards the watch is of no more use.
    pub async fn next(&mut self) -> Result<Arc<[Change]>, WatchError> {
        loop {
            if let Some(changes) = self.ready.pop_front() {
                self.delivered = changes.first().map_or(self.delivered, |change| change.revision);
                return Ok(changes);
            }
            let delivered = self.delivered;
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => return Err(WatchError::Stopped),
                behind = self.progress.wait_for(|progress| progress.revision > delivered) => {
                    behind.map_err(|_| WatchError::Stopped)?;
                }
            }
            self.ready = match self.feed.recent(delivered) {
                Some(recent) => recent,
                None => match look(&*self.engine, |view| machine::replay(view, delivered, PIECE)) {
                    Ok(Replay::Changes(changes)) => changes.into(),
                    Ok(Replay::Compacted(oldest)) => return Err(WatchError::Compacted { oldest }),
                    Err(error) => return Err(WatchError::Storage(error)),
                },
            };
            if self.ready.is_empty() {
                return Err(WatchError::Storage(crate::record::damaged(format!("no revision after {delivered}"))));
            }
        }
    }

    /// The last revision that was delivered: where another watch may go on.
    #[must_use]
    pub const fn delivered(&self) -> Revision {
        self.delivered
    }
}
