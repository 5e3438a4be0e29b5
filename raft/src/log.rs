//! The Raft log: what openraft reads and writes of it.
//!
//! Entries are readable the moment `append` returns, from a tail kept in memory; the writer makes them durable and says so later.
//!
//! Invariant: every entry is in the tail or in the engine: from [`Tail::start`] on in the tail, below it in the engine.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, ControlFlow, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    columns::{self, Column},
    delay::Delay,
    engine::{Engine, View, look},
    record::{self, LogId, Vote},
    types::{self, Entry, Payload, TypeConfig},
};

pub(crate) mod mark;
mod writer;

use mark::Mark;
use writer::{Job, Writer};

/// Durable entries stay in memory until there are so many bytes of them: replication and applying read them there.
const TAIL: usize = 4 << 20;

/// Entries are read in pieces of about so many bytes, and at least one.
const PIECE: usize = 1 << 20;

/// The log. Clones read and write the same one.
#[derive(Clone)]
pub(crate) struct Log {
    engine: Arc<dyn Engine>,
    jobs: mpsc::Sender<Job>,
    tail: Arc<Mutex<Tail>>,
    delay: Arc<Delay>,
    written: watch::Receiver<Option<LogId>>,
}

/// The end of the log in memory, and what is known about all of it.
#[derive(Debug, Default)]
struct Tail {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
    /// Goes with the writer's next batch; it is no reason for one.
    unsaved: Option<LogId>,
    /// The index of the first entry of the log.
    first: u64,
    entries: VecDeque<Entry>,
    /// The index of the first entry in memory, or of the next one to come.
    start: u64,
    bytes: usize,
    /// Bytes of log since the last snapshot was asked for.
    grown: u64,
}

/// What opening the log found.
pub(crate) struct Found {
    pub(crate) vote: Option<Vote>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
}

/// What [`Log::open`] returns beside the log: the writer's loop, to be run where its waiting does no harm.
pub(crate) type WriterLoop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Log {
    /// Reads and checks the log. Nothing is written before the returned loop runs.
    ///
    /// # Errors
    /// If an entry is damaged or missing.
    pub(crate) fn open(engine: Arc<dyn Engine>, mark: Option<Mark>) -> io::Result<(Self, WriterLoop)> {
        let tail = look(&*engine, |view| load(view))?;
        let (written, last) = watch::channel(tail.last);
        let tail = Arc::new(Mutex::new(tail));
        let (jobs, queued) = mpsc::channel(writer::QUEUE);
        let delay = Arc::new(Delay::default());
        let (engine_too, tail_too, delay_too) = (Arc::clone(&engine), Arc::clone(&tail), Arc::clone(&delay));
        let writer = Writer { jobs: queued, engine: engine_too, mark, tail: tail_too, delay: delay_too, written };
        Ok((Self { engine, jobs, tail, delay, written: last }, Box::pin(writer.run())))
    }

    /// The last entry that was written to the engine. All before it were written, too; none of them need be durable.
    pub(crate) fn written(&self) -> watch::Receiver<Option<LogId>> {
        self.written.clone()
    }

    /// The vote, the last log id and the last that is known to be committed, as they were read.
    pub(crate) fn found(&self) -> Found {
        let tail = self.tail();
        Found { vote: tail.vote, last: tail.last, committed: tail.committed }
    }

    /// All entries from `from` on.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn rest(&self, from: u64) -> io::Result<Vec<Entry>> {
        self.read(from, u64::MAX, usize::MAX)
    }

    /// How long it takes, of late, until entries are on the disk.
    pub(crate) fn delay(&self) -> Arc<Delay> {
        Arc::clone(&self.delay)
    }

    /// Bytes of log that were appended since [`Log::restart_growth`].
    pub(crate) fn growth(&self) -> u64 {
        self.tail().grown
    }

    /// Begins to count anew.
    pub(crate) fn restart_growth(&self) {
        self.tail().grown = 0;
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn queue(&self, job: Job) -> io::Result<()> {
        // A job that cannot be queued holds a callback, which no error can carry.
        self.jobs.send(job).await.map_err(|_| io::Error::other("the log writer has stopped"))
    }

    /// The entries from `from` up to `to` (left out), until they come to `limit` bytes; at least one, if there is any.
    fn read(&self, from: u64, to: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let (from, below, cached) = {
            let tail = self.tail();
            let from = from.max(tail.first);
            let to = to.min(tail.last.map_or(0, |id| id.index + 1));
            let cached = if to > tail.start { tail.copy(from.max(tail.start), to, limit) } else { Vec::new() };
            (from, to.min(tail.start), cached)
        };
        if from >= below {
            return Ok(cached);
        }
        let (mut entries, full) = look(&*self.engine, |view| scan(view, from, below, limit))?;
        if !full {
            if entries.len() as u64 != below - from && self.tail().first <= from {
                return Err(record::damaged(format!("entries between {from} and {below} are missing")));
            }
            entries.extend(cached);
        }
        Ok(entries)
    }
}

impl Tail {
    fn copy(&self, from: u64, to: u64, limit: usize) -> Vec<Entry> {
        let skip = usize::try_from(from - self.start).unwrap_or(usize::MAX);
        let mut size = 0;
        let mut entries = Vec::new();
        for entry in self.entries.iter().skip(skip).take_while(|entry| entry.log_id.index < to) {
            if size > 0 && size + weight(entry) > limit {
                break;
            }
            size += weight(entry);
            entries.push(entry.clone());
        }
        entries
    }

    fn push(&mut self, entry: Entry, id: LogId) {
        if self.entries.is_empty() {
            self.start = id.index;
        }
        if self.last.is_none() {
            self.first = id.index;
        }
        let weight = weight(&entry);
        self.bytes += weight;
        self.grown += weight as u64;
        self.last = Some(id);
        self.entries.push_back(entry);
    }

    /// Entries up to `last` are in the engine: the oldest may be forgotten here.
    fn written(&mut self, last: LogId) {
        while self.bytes > TAIL {
            match self.entries.front() {
                Some(entry) if entry.log_id.index <= last.index => self.forget_front(),
                _ => break,
            }
        }
    }

    fn forget_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
            self.start = entry.log_id.index + 1;
        }
    }

    fn truncate(&mut self, after: Option<LogId>) {
        let next = after.map_or(0, |id| id.index + 1);
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.log_id.index >= next) {
            self.bytes -= weight(&entry);
        }
        self.start = self.start.min(next);
        self.last = after;
    }

    fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.forget_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.first = self.first.max(upto.index + 1);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
            self.start = upto.index + 1;
        }
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        self.read(from, to, PIECE)
    }

    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let log = self.clone();
        let pieces = stream::unfold(from, move |from| {
            let piece = if from < to { log.read(from, to, PIECE) } else { Ok(Vec::new()) };
            let (items, next): (Vec<io::Result<Entry>>, u64) = match piece {
                Ok(entries) => {
                    let next = entries.last().map_or(to, |entry| entry.log_id.index + 1);
                    (entries.into_iter().map(Ok).collect(), next)
                }
                Err(error) => (vec![Err(error)], to),
            };
            std::future::ready(if items.is_empty() { None } else { Some((stream::iter(items), next)) })
        });
        Box::pin(pieces.flatten())
    }

    async fn read_vote(&mut self) -> io::Result<Option<types::Vote>> {
        Ok(self.tail().vote.map(types::Vote::from))
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.tail();
        let last_purged_log_id = tail.purged.map(types::LogId::from);
        Ok(LogState { last_purged_log_id, last_log_id: tail.last.max(tail.purged).map(types::LogId::from) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &types::Vote) -> io::Result<()> {
        let vote = Vote::from(*vote);
        let (done, saved) = oneshot::channel();
        self.queue(Job::Vote { vote, done }).await?;
        saved.await.map_err(|_| io::Error::other("the log writer has stopped"))??;
        self.tail().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<types::LogId>) -> io::Result<()> {
        let mut tail = self.tail();
        tail.committed = committed.map(LogId::from);
        tail.unsaved = tail.committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<types::LogId>> {
        Ok(self.tail().committed.map(types::LogId::from))
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows: Vec<(u64, Bytes)> = Vec::new();
        let last = {
            let mut tail = self.tail();
            for entry in entries {
                let row = record::Entry::from(&entry);
                rows.push((row.id.index, record::seal(&row)?));
                tail.push(entry, row.id);
            }
            tail.last
        };
        match last {
            Some(last) if !rows.is_empty() => self.queue(Job::Append { rows, last, done }).await,
            _ => {
                done.io_completed(Ok(()));
                Ok(())
            }
        }
    }

    async fn truncate_after(&mut self, after: Option<types::LogId>) -> io::Result<()> {
        let after = after.map(LogId::from);
        if self.tail().last <= after {
            return Ok(());
        }
        self.tail().truncate(after);
        self.queue(Job::Truncate { after }).await
    }

    async fn purge(&mut self, upto: types::LogId) -> io::Result<()> {
        let upto = LogId::from(upto);
        self.tail().purge(upto);
        self.queue(Job::Purge { upto }).await
    }
}

/// Reads what is known about the log, and checks that nothing of it is damaged or missing.
fn load(view: &dyn View) -> io::Result<Tail> {
    let vote = view.get(Column::RaftMeta, b"vote")?.map(|row| record::decode(&row)).transpose()?;
    let purged: Option<LogId> = view.get(Column::RaftMeta, b"purged")?.map(|row| record::decode(&row)).transpose()?;
    let committed = view.get(Column::RaftMeta, b"committed")?.map(|row| record::decode(&row)).transpose()?;
    let mut last = purged;
    let mut grown = 0;
    let first = purged.map_or(0, |id| id.index + 1);
    view.scan(Column::RaftLog, &columns::log_key(first), None, &mut |key, row| {
        let index = columns::log_index(key).ok_or_else(|| record::damaged("a key of raft_log".to_owned()))?;
        let entry: record::Entry = record::unseal(row)
            .map_err(|error| record::damaged(format!("entry {index} of the log is damaged: {error}")))?;
        let expected = last.map_or(0, |last| last.index + 1);
        if index != expected || entry.id.index != index {
            return Err(record::damaged(format!("entry {expected} of the log is missing")));
        }
        if last > Some(entry.id) {
            return Err(record::damaged(format!("entry {index} of the log is older than the one before it")));
        }
        last = Some(entry.id);
        grown += row.len() as u64;
        Ok(ControlFlow::Continue(()))
    })?;
    let start = last.map_or(0, |last| last.index + 1);
    Ok(Tail { vote, purged, last, committed, first, start, grown, ..Tail::default() })
}

/// Entries of the engine, and whether the limit cut them short.
fn scan(view: &dyn View, from: u64, to: u64, limit: usize) -> io::Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    let mut size = 0;
    let mut full = false;
    view.scan(Column::RaftLog, &columns::log_key(from), Some(&columns::log_key(to)), &mut |_, row| {
        if size > 0 && size + row.len() > limit {
            full = true;
            return Ok(ControlFlow::Break(()));
        }
        size += row.len();
        entries.push(record::unseal::<record::Entry>(row)?.restore()?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((entries, full || size >= limit))
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => from.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => to.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// What an entry weighs in memory and on the wire, in bytes.
fn weight(entry: &Entry) -> usize {
    64 + match &entry.payload {
        Payload::Blank => 0,
        Payload::Normal(command) => command.0.len(),
        Payload::Membership(membership) => membership.nodes().count() * 20,
    }
}
