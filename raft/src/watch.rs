//! Watches: every change, in order, from any revision that is still kept.
//!
//! A watch pulls: it knows the last revision it delivered and reads on from there, from the newest changes in memory or else from the
//! store. So a slow watch costs nothing and loses nothing; if it falls behind what is kept, it ends and says where to begin again.
//!
//! Invariant: a revision is delivered whole, once, and only after all before it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_proto::{
    lease::LeaseId,
    txn::{Change, Revision},
    watch::{Event, Update},
};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, look},
    hashes::Hashes,
    machine::{self, Applied, LeaseRow, Replay},
    mutant::{self, Mutant},
    record::LogId,
};

mod range;
mod revised;

pub use range::{Delivered, RangeWatch};
use revised::Revised;
pub use revised::SharedUpdate;

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
    /// The oldest revision that can be read.
    pub(crate) compacted: Revision,
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
    leases: watch::Sender<Leases>,
    hashes: Mutex<Hashes>,
    progress: watch::Sender<Progress>,
}

/// All leases there are.
pub(crate) type Leases = BTreeMap<LeaseId, LeaseRow>;

#[derive(Default)]
struct Recent {
    revisions: VecDeque<Arc<Revised>>,
    bytes: usize,
}

impl Feed {
    pub(crate) fn new(progress: Progress, leases: Leases) -> Self {
        Self {
            recent: Mutex::default(),
            leases: watch::Sender::new(leases),
            hashes: Mutex::new(Hashes::found(progress.revision, progress.hash)),
            progress: watch::Sender::new(progress),
        }
    }

    /// How far the state has come; a change of it wakes whoever waits.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// All leases there are, no older than the progress that was seen before.
    pub(crate) fn leases(&self) -> watch::Receiver<Leases> {
        self.leases.subscribe()
    }

    /// Adds what was applied. It is in the store already.
    pub(crate) fn publish(&self, applied: Applied, progress: Progress) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            for update in applied.updates {
                let revised = Revised::new(update);
                recent.bytes += revised.weight();
                recent.revisions.push_back(Arc::new(revised));
            }
            while recent.bytes > RECENT
                && let Some(oldest) = recent.revisions.pop_front()
            {
                recent.bytes -= oldest.weight();
            }
        }
        if !applied.leases.is_empty() {
            self.leases.send_modify(|leases| {
                for (lease, row) in applied.leases {
                    match row {
                        Some(row) => leases.insert(lease, row),
                        None => leases.remove(&lease),
                    };
                }
            });
        }
        self.hashes().add(applied.hashes);
        self.progress.send_replace(progress);
    }

    /// Forgets what was told: the state was replaced.
    pub(crate) fn reset(&self, progress: Progress, leases: Leases) {
        if !mutant::is(Mutant::GapAfterSnapshot) {
            *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        }
        self.leases.send_replace(leases);
        *self.hashes() = Hashes::found(progress.revision, progress.hash);
        self.progress.send_replace(progress);
    }

    /// The newest revision, and the hash of the state then.
    pub(crate) fn newest_hash(&self) -> Option<(Revision, u32)> {
        self.hashes().newest()
    }

    /// The hash of the state at a revision, if it is not too long ago.
    pub(crate) fn hash_at(&self, revision: Revision) -> Option<u32> {
        self.hashes().at(revision)
    }

    fn hashes(&self) -> MutexGuard<'_, Hashes> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self, after: Revision) -> Option<VecDeque<Arc<Revised>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = recent.revisions.front()?.revision();
        let skip = after.0.checked_add(u64::from(!mutant::is(Mutant::DuplicateEvent)))?.checked_sub(oldest.0)?;
        let found: VecDeque<_> = recent.revisions.iter().skip(usize::try_from(skip).ok()?).cloned().collect();
        Some(found).filter(|found| !found.is_empty())
    }
}

/// Reads on, revision by revision.
struct Cursor {
    feed: Arc<Feed>,
    engine: Arc<dyn Engine>,
    progress: watch::Receiver<Progress>,
    stopped: CancellationToken,
    /// Whether what was there before is wanted.
    previous: bool,
    delivered: Revision,
    ready: VecDeque<Arc<Revised>>,
}

impl Cursor {
    fn new(
        feed: Arc<Feed>,
        engine: Arc<dyn Engine>,
        stopped: CancellationToken,
        from: Revision,
        previous: bool,
    ) -> Result<Self, WatchError> {
        let meta = look(&*engine, |view| machine::Meta::load(view)).map_err(WatchError::Storage)?;
        if from < meta.compacted {
            return Err(WatchError::Compacted { oldest: meta.compacted });
        }
        let progress = feed.progress();
        let from = if mutant::is(Mutant::EventsEarly) { from.min(meta.revision) } else { from };
        Ok(Self { feed, engine, progress, stopped, previous, delivered: from, ready: VecDeque::new() })
    }

    async fn next(&mut self) -> Result<Arc<Revised>, WatchError> {
        loop {
            if let Some(revised) = self.ready.pop_front() {
                self.delivered = revised.revision();
                return Ok(revised);
            }
            self.fill().await?;
        }
    }

    /// Waits until something is ready.
    async fn fill(&mut self) -> Result<(), WatchError> {
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
            None => match look(&*self.engine, |view| machine::replay(view, delivered, PIECE, self.previous)) {
                Ok(Replay::Updates(updates)) => {
                    updates.into_iter().map(|update| Arc::new(Revised::new(update))).collect()
                }
                Ok(Replay::Compacted(oldest)) => return Err(WatchError::Compacted { oldest }),
                Err(error) => return Err(WatchError::Storage(error)),
            },
        };
        if self.ready.is_empty() {
            return Err(WatchError::Storage(crate::record::damaged(format!("no revision after {delivered}"))));
        }
        Ok(())
    }
}

/// Delivers changes. It can be dropped and begun again, here or on another node, from the last revision it delivered.
pub struct Watch(Cursor);

/// What has happened since a watch was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// What each revision did; those that did nothing to be told of are left out.
    pub revisions: Vec<Arc<[Change]>>,
    /// Everything up to this revision was told.
    pub upto: Revision,
}

impl Watch {
    pub(crate) fn new(
        feed: Arc<Feed>,
        engine: Arc<dyn Engine>,
        stopped: CancellationToken,
        from: Revision,
    ) -> Result<Self, WatchError> {
        Cursor::new(feed, engine, stopped, from, false).map(Self)
    }

    /// The changes of the next revision, in the order of its transaction; at least one. Waits until there is one.
    ///
    /// May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// See [`WatchError`]; afterwards the watch is of no more use.
    pub async fn next(&mut self) -> Result<Arc<[Change]>, WatchError> {
        self.0.next().await.map(|revised| revised.changes())
    }

    /// As [`Watch::next`], of the next revision that changed a key that does not begin with `prefix`; but one at or behind `from`
    /// is told in any case, so that whoever watches learns how far the store is.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn next_outside(&mut self, prefix: &str, from: Revision) -> Result<Arc<[Change]>, WatchError> {
        loop {
            let revised = self.0.next().await?;
            if let Some(changes) = revised.changes_outside(prefix) {
                return Ok(changes);
            }
            if revised.revision() >= from {
                return Ok(revised.changes());
            }
        }
    }

    /// The changes, of keys that do not begin with `prefix`, of all that has happened by now. Waits until something has, whatever it is.
    ///
    /// May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn gather_outside(&mut self, prefix: &str) -> Result<Gathered, WatchError> {
        if self.0.ready.is_empty() {
            self.0.fill().await?;
        }
        let mut revisions = Vec::new();
        while let Some(revised) = self.0.ready.pop_front() {
            self.0.delivered = revised.revision();
            revisions.extend(revised.changes_outside(prefix));
        }
        Ok(Gathered { revisions, upto: self.0.delivered })
    }

    /// The last revision that was delivered: where another watch may go on.
    #[must_use]
    pub const fn delivered(&self) -> Revision {
        self.0.delivered
    }
}

/// What an update weighs in memory, in bytes.
fn weight(update: &Update) -> usize {
    update.events.iter().map(Event::weight).sum()
}
