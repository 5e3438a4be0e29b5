//! The one writer of the log: jobs go in, one batch and one sync come out for all that have gathered.
//!
//! The sync itself is the window in which jobs gather, so there is no timer. On disk the loop has a thread of its own, in memory it is a
//! task; the loop is the same.
//!
//! Invariant: jobs take effect in the order in which they were queued, and nobody is told that something is durable before it is. The
//! first error ends the writer: what a failed sync left on the disk is not known, so it is never tried again.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{Tail, mark::Mark};
use crate::{
    columns::{self, Column},
    delay::Delay,
    engine::{Batch, Engine},
    mutant::{self, Mutant},
    record::{self, LogId, Vote},
    types::TypeConfig,
};

/// Jobs that may wait; beyond that, whoever queues waits too.
pub(super) const QUEUE: usize = 1024;

/// What the writer is asked to do.
pub(super) enum Job {
    /// Entries to be written, the last of them, and whom to tell.
    Append { rows: Vec<(u64, Bytes)>, last: LogId, done: IOFlushed<TypeConfig> },
    /// A vote; whoever saved it waits.
    Vote { vote: Vote, done: oneshot::Sender<io::Result<()>> },
    /// Cuts off all that follows an entry; `None`: everything.
    Truncate { after: Option<LogId> },
    /// Removes everything up to an entry.
    Purge { upto: LogId },
}

pub(super) struct Writer {
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) mark: Option<Mark>,
    pub(super) tail: Arc<Mutex<Tail>>,
    /// How long writing takes.
    pub(super) delay: Arc<Delay>,
    /// The last entry that a batch has written, durable or not.
    pub(super) written: watch::Sender<Option<LogId>>,
}

impl Writer {
    /// Writes until all who could queue a job are gone, or until the first error.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            tracing::error!(%error, "the log cannot be written: this node cannot go on");
            self.jobs.close();
            let mut refused = Vec::new();
            while let Ok(job) = self.jobs.try_recv() {
                refused.push(job);
            }
            tell(refused, &Err(error));
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        let mut jobs = Vec::new();
        loop {
            let pending = self.mark.as_mut().map_or(Ok(None), Mark::settle)?;
            let queued = self.jobs.recv_many(&mut jobs, QUEUE);
            let more = match pending {
                Some(pending) => timeout(pending, queued).await.map_or(true, |count| count > 0),
                None => queued.await > 0,
            };
            if !jobs.is_empty() {
                self.commit(std::mem::take(&mut jobs)).await?;
            }
            if !more {
                return self.mark.as_mut().map_or(Ok(()), Mark::sync);
            }
        }
    }

    async fn commit(&mut self, jobs: Vec<Job>) -> io::Result<()> {
        let result = self.persist(&jobs).await.and_then(|last| self.raise(&jobs, last));
        tell(jobs, &result);
        result
    }

    /// One batch, one sync. Returns the last log id, if it moved.
    async fn persist(&mut self, jobs: &[Job]) -> io::Result<Option<Option<LogId>>> {
        let last = self.write(jobs)?;
        if let Some(last) = last {
            self.written.send_replace(last);
        }
        if mutant::is(Mutant::AcknowledgedUnsynced) {
            return Ok(last);
        }
        let delay = self.engine.delay();
        if !delay.is_zero() {
            sleep(delay).await;
        }
        self.engine.sync()?;
        self.delay.end();
        Ok(last)
    }

    /// Writes one batch. Returns the last log id, if it moves.
    fn write(&mut self, jobs: &[Job]) -> io::Result<Option<Option<LogId>>> {
        let mut batch = Batch::default();
        let mut last = None;
        for job in jobs {
            match job {
                Job::Append { rows, last: id, .. } => {
                    for (index, row) in rows {
                        batch.put(Column::RaftLog, columns::log_key(*index), row.clone());
                    }
                    last = Some(Some(*id));
                }
                Job::Vote { vote, .. } => {
                    batch.put(Column::RaftMeta, b"vote".to_vec(), record::encode(vote)?);
                }
                Job::Truncate { after } => {
                    if let Some(mark) = &mut self.mark
                        && mark.level().last > *after
                    {
                        mark.set_last(*after)?;
                        mark.sync()?;
                    }
                    let from = after.map_or(0, |id| id.index + 1);
                    if !mutant::is(Mutant::TruncationForgotten) {
                        batch.delete_range(Column::RaftLog, columns::log_key(from), columns::log_key(u64::MAX));
                    }
                    last = Some(*after);
                }
                Job::Purge { upto } => {
                    batch.put(Column::RaftMeta, b"purged".to_vec(), record::encode(upto)?);
                    batch.delete_range(Column::RaftLog, columns::log_key(0), columns::log_key(upto.index + 1));
                }
            }
        }
        let committed = self.tail().unsaved.take();
        if let Some(committed) = committed {
            batch.put(Column::RaftMeta, b"committed".to_vec(), record::encode(&committed)?);
        }
        self.delay.begin();
        self.engine.write(batch)?;
        Ok(last)
    }

    /// After the sync: the mark, and what of the tail need no longer be kept.
    fn raise(&mut self, jobs: &[Job], last: Option<Option<LogId>>) -> io::Result<()> {
        if let Some(mark) = &mut self.mark {
            for job in jobs {
                if let Job::Vote { vote, .. } = job {
                    mark.set_vote(*vote)?;
                }
            }
            if let Some(last) = last {
                mark.set_last(last)?;
            }
            // What was purged need not be in the log, but the state has it: a store that ends before that has lost something too.
            let purged =
                jobs.iter().filter_map(|job| if let Job::Purge { upto } = job { Some(*upto) } else { None }).max();
            if purged > mark.level().last {
                mark.set_last(purged)?;
            }
        }
        if let Some(Some(last)) = last {
            self.tail().written(last);
        }
        Ok(())
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who wait what became of their jobs, in order.
fn tell(jobs: Vec<Job>, result: &io::Result<()>) {
    for job in jobs {
        let told = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match job {
            Job::Append { done, .. } => done.io_completed(told),
            // Whoever saved the vote may be gone; then nobody acts on it.
            Job::Vote { done, .. } => drop(done.send(told)),
            Job::Truncate { .. } | Job::Purge { .. } => {}
        }
    }
}
