//! The state machine as openraft drives it: applies entries in batches, builds and installs snapshots.
//!
//! Invariant: an answer is sent, and a change shown to watches, only after the batch it belongs to was written; and that only after the
//! entries it comes from. Batches survive a crash in their order, so the state is never ahead of its log.

use std::{io, sync::Arc};

use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    columns::Column,
    engine::{Batch, Engine, Row, look},
    machine::{self, Applied, Applying, Cache, Meta},
    mutant::{self, Mutant},
    record::{self, StoredMembership},
    snapshot::{Header, SnapshotFile, Vault, Writer},
    types::{self, Entry, Payload, Reply, Snapshot, SnapshotMeta, TypeConfig},
    watch::{Feed, Progress},
};

/// Entries are applied in batches of at most so many bytes, and so many entries.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_ENTRIES: usize = 512;

/// The state machine.
pub(crate) struct State {
    engine: Arc<dyn Engine>,
    vault: Vault,
    feed: Arc<Feed>,
    tasks: TaskTracker,
    /// The last entry that the log has written.
    written: watch::Receiver<Option<record::LogId>>,
    meta: Meta,
    /// What of the state is in memory; read when the first entries are applied.
    cache: Option<Cache>,
}

/// Builds a snapshot of whatever the state is when it is asked to.
pub(crate) struct Builder {
    engine: Arc<dyn Engine>,
    vault: Vault,
    tasks: TaskTracker,
}

impl State {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        vault: Vault,
        feed: Arc<Feed>,
        tasks: TaskTracker,
        written: watch::Receiver<Option<record::LogId>>,
        meta: Meta,
    ) -> Self {
        Self { engine, vault, feed, tasks, written, meta, cache: None }
    }

    async fn commit(&mut self, entries: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>) -> io::Result<()> {
        let records: Vec<record::Entry> = entries.iter().map(|(entry, _)| record::Entry::from(entry)).collect();
        let last = records.last().map(|entry| entry.id);
        // They may be committed by others, and be read from memory, while the disk of this node is still busy with those before.
        let enough = |written: &Option<_>| *written >= last || mutant::is(Mutant::StateAheadOfLog);
        let written = self.written.wait_for(enough).await;
        drop(written.map_err(|_| io::Error::other("the log writer has stopped"))?);
        let mut cache = match self.cache.take() {
            Some(cache) => cache,
            None => look(&*self.engine, |view| Cache::load(view, &self.meta))?,
        };
        let (applied, replies) = look(&*self.engine, |view| {
            let mut applying = Applying::new(view, self.meta.clone()).with(&cache);
            let replies = records.iter().map(|entry| applying.apply(entry)).collect::<io::Result<Vec<_>>>()?;
            Ok((applying.finish()?, replies))
        })?;
        let mut applied: Applied = applied;
        if mutant::is(Mutant::AppliedOutsideBatch) {
            let mut early = Batch::default();
            applied.meta.store(&mut early)?;
            self.engine.write(early)?;
        }
        self.engine.write(std::mem::take(&mut applied.batch))?;
        self.meta = applied.meta.clone();
        cache.note(&mut applied);
        self.cache = Some(cache);
        self.feed.publish(applied, progress(&self.meta));
        for ((_, responder), reply) in entries.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(Reply(reply));
            }
        }
        Ok(())
    }
}

/// How far a state has come.
pub(crate) fn progress(meta: &Meta) -> Progress {
    Progress { applied: meta.applied, revision: meta.revision, hash: meta.hash, compacted: meta.compacted }
}

impl RaftStateMachine<TypeConfig> for State {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<types::LogId>, types::StoredMembership)> {
        Ok((self.meta.applied.map(types::LogId::from), self.meta.membership.clone().restore()?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut gathered = Vec::new();
        let mut size = 0;
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            if let Payload::Normal(command) = &entry.0.payload {
                size += command.0.len();
            }
            gathered.push(entry);
            if size >= BATCH_BYTES || gathered.len() >= BATCH_ENTRIES {
                self.commit(std::mem::take(&mut gathered)).await?;
                size = 0;
            }
        }
        if gathered.is_empty() { Ok(()) } else { self.commit(gathered).await }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { engine: Arc::clone(&self.engine), vault: self.vault.clone(), tasks: self.tasks.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (header, mut rows) = snapshot.read()?;
        if header.last.map(types::LogId::from) != meta.last_log_id {
            return Err(record::damaged("a snapshot of another entry than it was announced as".to_owned()));
        }
        self.vault.adopt(&snapshot, &header)?;
        let mut batch = Batch::default();
        for (key, value) in header.meta {
            batch.put(Column::StateMeta, key, value);
        }
        let rows: &mut (dyn Iterator<Item = io::Result<Row>> + Send) = &mut rows;
        self.engine.replace(rows, batch)?;
        let (meta, leases) = look(&*self.engine, |view| Ok((Meta::load(view)?, machine::leases(view)?)))?;
        self.meta = meta;
        self.cache = None;
        self.feed.reset(progress(&self.meta), leases.into_iter().collect());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(snapshot) = self.vault.current()? else { return Ok(None) };
        let (header, _) = snapshot.read()?;
        Ok(Some(Snapshot { meta: announce(&header)?, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (engine, vault) = (Arc::clone(&self.engine), self.vault.clone());
        let (header, snapshot) = if vault.waits() {
            let built = self.tasks.spawn_blocking(move || build(&*engine, &vault)).await;
            built.map_err(|_| io::Error::other("the snapshot was not finished"))??
        } else {
            // In memory nothing waits, and a simulated run must not leave its thread.
            build(&*engine, &vault)?
        };
        Ok(Snapshot { meta: announce(&header)?, snapshot })
    }
}

/// Writes one consistent state into a snapshot: rows, applied entry and membership of the same moment.
pub(crate) fn build(engine: &dyn Engine, vault: &Vault) -> io::Result<(Header, SnapshotFile)> {
    let draft = look(engine, |view| {
        let meta = Meta::load(view)?;
        let header = Header { last: meta.applied, membership: meta.membership.clone(), meta: meta.rows()? };
        let mut writer = Writer::new(vault.draft()?, &header)?;
        for column in Column::STATE {
            if column == Column::History && mutant::is(Mutant::SnapshotForgetsHistory) {
                continue;
            }
            view.scan(column, &[], None, &mut |key, value| {
                writer.row(column, key, value)?;
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
        }
        writer.finish()
    })?;
    let snapshot = vault.keep(draft)?;
    let (header, _) = snapshot.read()?;
    Ok((header, snapshot))
}

/// What openraft is told about a snapshot.
pub(crate) fn announce(header: &Header) -> io::Result<SnapshotMeta> {
    let StoredMembership { log, membership } = header.membership.clone();
    let last_membership = StoredMembership { log, membership }.restore()?;
    Ok(SnapshotMeta { last_log_id: header.last.map(types::LogId::from), last_membership })
}
