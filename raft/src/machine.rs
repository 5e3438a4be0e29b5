//! The state machine: transactions over a key space of many versions, as in etcd.
//!
//! Invariant: every node applies the same commands in the same order and ends up equal, so nothing here reads a clock, draws a random
//! number, depends on hash order or knows a kind (D2). What is applied, with which entry and under which membership, is one batch.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use quorate_proto::{
    ids::RequestId,
    key::Key,
    lease::LeaseId,
    query::Row,
    txn::{Command, CommandOutcome, CommandRefusal, Document, Outcome, Revision, Txn, Versioned, Write},
    watch::{Event, Update},
};
use serde::{Deserialize, Serialize};

use crate::{
    columns::{self, Column},
    engine::{Batch, View},
    record::{self, Body},
};

mod answers;
mod branch;
mod cache;
mod compaction;
mod draft;
mod leases;
mod meta;
mod read;

use draft::Draft;

pub(crate) use answers::ANSWERS;
use answers::{Answered, Known};
pub(crate) use cache::Cache;
pub(crate) use compaction::sweep;
pub(crate) use leases::{LeaseChange, LeaseRow, attached, leases};
pub(crate) use meta::Meta;
pub(crate) use read::{Past, Replay, at, check, query, replay, rows, rows_outside};

/// A key's present, in `kv_cur`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Current {
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    /// How often it was written since it was created; 1 at first.
    pub(crate) version: u64,
    /// The lease it is attached to; 0 for none.
    pub(crate) lease: u64,
    pub(crate) value: Bytes,
}

impl Current {
    pub(crate) fn versioned(&self) -> Versioned {
        Versioned { document: Document(self.value.clone()), created: self.created, modified: self.modified }
    }

    pub(crate) fn row(&self, key: &Key) -> Row {
        Row {
            key: key.clone(),
            created: self.created,
            modified: self.modified,
            version: self.version,
            lease: LeaseId::new(self.lease),
            document: Some(Document(self.value.clone())),
        }
    }

    /// What a whole row was made of.
    fn of(row: &Row) -> Self {
        Self {
            created: row.created,
            modified: row.modified,
            version: row.version,
            lease: row.lease.map_or(0, |lease| lease.0.get()),
            value: row.document.as_ref().map_or_else(Bytes::new, |document| document.0.clone()),
        }
    }
}

/// What one operation of a revision did, in `kv_rev`. The document is in `kv_hist`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Operation {
    key: Key,
    deleted: bool,
}

/// Entries that are being applied: a view of the state, and what they change on top of it.
pub(crate) struct Applying<'a> {
    view: &'a dyn View,
    /// The newest revision in the view: what is newer is in `updates`.
    base: Revision,
    meta: Meta,
    batch: Batch,
    rows: BTreeMap<Key, Option<Current>>,
    /// What became of requests in these entries; `None`: their answers are no longer kept.
    answers: BTreeMap<RequestId, Option<CommandOutcome>>,
    updates: Vec<Arc<Update>>,
    leases: BTreeMap<LeaseId, Option<LeaseRow>>,
    attached: BTreeMap<(LeaseId, Key), bool>,
    granted: Vec<LeaseChange>,
    hashes: Vec<(Revision, u32)>,
    limit: u64,
    /// What the state knew about itself in the view.
    stored: Meta,
    /// What of the view is in memory; whoever only reads does without.
    cache: Option<&'a Cache>,
    /// The answers that come in, in order.
    answered: Vec<(RequestId, CommandOutcome)>,
}

/// What applying some entries comes to.
pub(crate) struct Applied {
    /// To be written whole.
    pub(crate) batch: Batch,
    /// What the batch makes of `sm_meta`.
    pub(crate) meta: Meta,
    /// What happened, by revision, with what was there before.
    pub(crate) updates: Vec<Arc<Update>>,
    /// Which leases were granted or have ended, in order.
    pub(crate) leases: Vec<LeaseChange>,
    /// The hash at each revision.
    pub(crate) hashes: Vec<(Revision, u32)>,
    /// What becomes of the answers that are kept.
    answered: Answered,
    /// The present of each key that was written.
    rows: Vec<(Key, Option<Current>)>,
}

impl<'a> Applying<'a> {
    pub(crate) fn new(view: &'a dyn View, meta: Meta) -> Self {
        Self {
            view,
            base: meta.revision,
            stored: meta.clone(),
            meta,
            batch: Batch::default(),
            rows: BTreeMap::new(),
            answers: BTreeMap::new(),
            updates: Vec::new(),
            leases: BTreeMap::new(),
            attached: BTreeMap::new(),
            granted: Vec::new(),
            hashes: Vec::new(),
            limit: ANSWERS,
            cache: None,
            answered: Vec::new(),
        }
    }

    /// Takes from here what of the view is in memory: without it, no commands can be applied.
    pub(crate) const fn with(mut self, cache: &'a Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Applies one entry; commands have an outcome.
    ///
    /// # Errors
    /// If the state cannot be read, or the command was written by a newer version: this node cannot go on without an upgrade.
    pub(crate) fn apply(&mut self, entry: &record::Entry) -> io::Result<Option<CommandOutcome>> {
        self.meta.applied = Some(entry.id);
        match &entry.body {
            Body::Blank => Ok(None),
            Body::Membership(membership) => {
                self.meta.membership = record::StoredMembership { log: Some(entry.id), membership: membership.clone() };
                Ok(None)
            }
            Body::Command(command) => {
                let command = record::command(command)?;
                self.once(&command, entry.id.index).map(Some)
            }
        }
    }

    /// Does what a command says, whoever asked for it and however often.
    fn execute(&mut self, command: &Command, index: u64) -> io::Result<CommandOutcome> {
        match command {
            Command::Apply { txn, .. } => self.transact(txn).map(CommandOutcome::from),
            Command::Branch { branch, .. } => self.branch(branch),
            Command::Compact { revision, .. } => Ok(self.compact(*revision)),
            Command::Grant { lease, ttl_seconds, .. } => self.grant(*lease, *ttl_seconds, index),
            Command::Revoke { lease, granted, .. } => self.revoke(*lease, *granted),
        }
    }

    pub(crate) fn finish(mut self) -> io::Result<Applied> {
        let rows: Vec<_> = std::mem::take(&mut self.rows).into_iter().collect();
        for (key, row) in &rows {
            let name = key.as_str().as_bytes().to_vec();
            match row {
                Some(row) => self.batch.put(Column::Current, name, record::encode(row)?),
                None => self.batch.delete(Column::Current, name),
            }
        }
        let answered = self.store_answers()?;
        self.store_leases()?;
        self.meta.store_since(&self.stored, &mut self.batch)?;
        Ok(Applied {
            batch: self.batch,
            meta: self.meta,
            updates: self.updates,
            leases: self.granted,
            hashes: self.hashes,
            answered,
            rows,
        })
    }

    fn transact(&mut self, txn: &Txn) -> io::Result<Outcome> {
        for compare in &txn.compares {
            if self.current(&compare.key)?.map(|row| row.modified) != compare.seen {
                return Ok(Outcome::Stale(compare.key.clone()));
            }
        }
        let mut draft = Draft::new(self.next_revision());
        for write in &txn.writes {
            match write {
                Write::Put(key, document) => drop(draft.put(self, key, document, None)?),
                Write::Delete(key) => drop(draft.delete(self, key)?),
            }
        }
        self.commit(draft).map(Outcome::Applied)
    }

    /// What revision the next transaction that writes takes.
    const fn next_revision(&self) -> Revision {
        Revision(self.meta.revision.0 + 1)
    }

    /// Lets go of what was before a revision. What that frees is swept away later, by every node for itself.
    fn compact(&mut self, revision: Revision) -> CommandOutcome {
        let (oldest, at) = (self.meta.compacted, self.meta.revision);
        if revision <= oldest {
            return CommandOutcome::Refused(CommandRefusal::Compacted { oldest });
        }
        if revision > at {
            return CommandOutcome::Refused(CommandRefusal::FutureRevision { asked: revision, at });
        }
        self.meta.compacted = revision;
        CommandOutcome::Compacted(revision)
    }

    /// Takes what a transaction came to: one revision, unless it changes nothing. The newest revision then.
    fn commit(&mut self, draft: Draft) -> io::Result<Revision> {
        let (revision, changed) = draft.changed();
        let mut events = Vec::with_capacity(changed.len());
        for (key, next) in changed {
            let before = self.current(&key)?;
            // A key that was made and deleted within one transaction was never there.
            if before.is_some() || next.is_some() {
                events.push(self.change(revision, key, before, next, events.len())?);
            }
        }
        if !events.is_empty() {
            self.meta.revision = revision;
            self.hashes.push((revision, self.meta.hash));
            self.updates.push(Arc::new(Update { revision, events }));
        }
        Ok(self.meta.revision)
    }

    fn change(
        &mut self,
        revision: Revision,
        key: Key,
        before: Option<Current>,
        next: Option<Current>,
        place: usize,
    ) -> io::Result<Event> {
        let history = record::encode(&next)?;
        let operation = record::encode(&Operation { key: key.clone(), deleted: next.is_none() })?;
        self.meta.hash = hash(self.meta.hash, revision, &operation, &history);
        let place = u32::try_from(place).map_err(io::Error::other)?;
        self.batch.put(Column::History, columns::history_key(key.as_str(), revision), history);
        self.batch.put(Column::Revisions, columns::revision_key(revision, place), operation);
        let lease = |row: &Option<Current>| row.as_ref().and_then(|row| LeaseId::new(row.lease));
        self.attach(&key, lease(&before), lease(&next))?;
        let event = Event {
            now: next.as_ref().map(|row| row.row(&key)),
            before: before.map(|row| row.row(&key)),
            key: key.clone(),
        };
        self.rows.insert(key, next);
        Ok(event)
    }

    fn current(&self, key: &Key) -> io::Result<Option<Current>> {
        match self.rows.get(key).or_else(|| self.cache?.row(key)) {
            Some(row) => Ok(row.clone()),
            None => {
                let row = self.view.get(Column::Current, key.as_str().as_bytes())?;
                row.map(|row| record::decode(&row)).transpose()
            }
        }
    }
}

/// Folds a change into the hash of the state, which is equal on all nodes at equal revisions.
fn hash(before: u32, revision: Revision, operation: &[u8], history: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_be_bytes());
    hasher.update(&revision.0.to_be_bytes());
    hasher.update(operation);
    hasher.update(history);
    hasher.finalize()
}

/// Reads a row of `kv_rev`: which key it is about, and whether that was deleted.
pub(crate) fn operation(row: &[u8]) -> io::Result<(Key, bool)> {
    let Operation { key, deleted } = record::decode(row)?;
    Ok((key, deleted))
}

/// Reads a key of `kv_cur`.
pub(crate) fn stored_key(key: &[u8]) -> io::Result<Key> {
    let text = std::str::from_utf8(key).map_err(|error| record::damaged(error.to_string()))?;
    Key::parse(text).map_err(|error| record::damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
