//! The state machine: transactions over a key space of many versions, as in etcd.
//!
//! Invariant: every node applies the same commands in the same order and ends up equal, so nothing here reads a clock, draws a random
//! number, depends on hash order or knows a kind (D2). What is applied, with which entry and under which membership, is one batch.

use std::{collections::BTreeMap, io, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use quorate_proto::{
    ids::RequestId,
    key::Key,
    txn::{Change, Command, Document, Outcome, Revision, Txn, Versioned, Write},
};
use serde::{Deserialize, Serialize};

use crate::{
    columns::{self, Column},
    engine::{Batch, View},
    record::{self, Body},
};

mod meta;

pub(crate) use meta::Meta;

/// So many answers are kept for retries, in the order of applying: at a thousand writes a second, those of the last minute.
pub(crate) const ANSWERS: u64 = 65_536;

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
    meta: Meta,
    batch: Batch,
    rows: BTreeMap<Key, Option<Current>>,
    answers: BTreeMap<RequestId, Outcome>,
    changes: Vec<Arc<[Change]>>,
    limit: u64,
}

/// What applying some entries comes to.
pub(crate) struct Applied {
    /// To be written whole.
    pub(crate) batch: Batch,
    /// What the batch makes of `sm_meta`.
    pub(crate) meta: Meta,
    /// The changes, by revision.
    pub(crate) changes: Vec<Arc<[Change]>>,
}

impl<'a> Applying<'a> {
    pub(crate) fn new(view: &'a dyn View, meta: Meta) -> Self {
        Self {
            view,
            meta,
            batch: Batch::default(),
            rows: BTreeMap::new(),
            answers: BTreeMap::new(),
            changes: Vec::new(),
            limit: ANSWERS,
        }
    }

    /// Applies one entry; commands have an outcome.
    ///
    /// # Errors
    /// If the state cannot be read, or the command was written by a newer version: this node cannot go on without an upgrade.
    pub(crate) fn apply(&mut self, entry: &record::Entry) -> io::Result<Option<Outcome>> {
        self.meta.applied = Some(entry.id);
        match &entry.body {
            Body::Blank => Ok(None),
            Body::Membership(membership) => {
                self.meta.membership = record::StoredMembership { log: Some(entry.id), membership: membership.clone() };
                Ok(None)
            }
            Body::Command(command) => {
                let Command::Apply { request, txn } = record::decode(command)? else {
                    return Err(record::damaged("a command that this node does not know".to_owned()));
                };
                self.once(request, &txn).map(Some)
            }
        }
    }

    pub(crate) fn finish(mut self) -> io::Result<Applied> {
        for (key, row) in std::mem::take(&mut self.rows) {
            let name = key.as_str().as_bytes().to_vec();
            match row {
                Some(row) => self.batch.put(Column::Current, name, record::encode(&row)?),
                None => self.batch.delete(Column::Current, name),
            }
        }
        self.meta.store(&mut self.batch)?;
        Ok(Applied { batch: self.batch, meta: self.meta, changes: self.changes })
    }

    fn once(&mut self, request: RequestId, txn: &Txn) -> io::Result<Outcome> {
        if let Some(outcome) = self.answer(request)? {
            return Ok(outcome);
        }
        let outcome = self.transact(txn)?;
        let place = self.meta.answers.end;
        self.batch.put(Column::Dedup, columns::request_key(request), record::encode(&outcome)?);
        self.batch.put(Column::Dedup, columns::place_key(place), record::encode(&request)?);
        self.answers.insert(request, outcome.clone());
        self.meta.answers.end += 1;
        while self.meta.answers.end - self.meta.answers.start > self.limit {
            let oldest = columns::place_key(self.meta.answers.start);
            if let Some(request) = self.view.get(Column::Dedup, &oldest)? {
                let request = record::decode(&request)?;
                self.batch.delete(Column::Dedup, columns::request_key(request));
                self.answers.remove(&request);
            }
            self.batch.delete(Column::Dedup, oldest);
            self.meta.answers.start += 1;
        }
        Ok(outcome)
    }

    fn answer(&self, request: RequestId) -> io::Result<Option<Outcome>> {
        if let Some(outcome) = self.answers.get(&request) {
            return Ok(Some(outcome.clone()));
        }
        let row = self.view.get(Column::Dedup, &columns::request_key(request))?;
        row.map(|row| record::decode(&row)).transpose()
    }

    fn transact(&mut self, txn: &Txn) -> io::Result<Outcome> {
        for compare in &txn.compares {
            if self.current(&compare.key)?.map(|row| row.modified) != compare.seen {
                return Ok(Outcome::Stale(compare.key.clone()));
            }
        }
        let revision = Revision(self.meta.revision.0 + 1);
        // A key written twice in one transaction is one change: the last write, at the place of the first.
        let mut order: Vec<Key> = Vec::new();
        let mut after: BTreeMap<Key, Option<Current>> = BTreeMap::new();
        for write in &txn.writes {
            let key = write.key();
            let now = match after.get(key) {
                Some(now) => now.clone(),
                None => self.current(key)?,
            };
            let next = match write {
                Write::Put(_, document) => Some(Current {
                    created: now.as_ref().map_or(revision, |row| row.created),
                    modified: revision,
                    version: now.as_ref().map_or(1, |row| row.version + 1),
                    lease: 0,
                    value: document.0.clone(),
                }),
                Write::Delete(_) => None,
            };
            if after.insert(key.clone(), next).is_none() {
                order.push(key.clone());
            }
        }
        let mut changes = Vec::with_capacity(order.len());
        for key in order {
            let next = after.remove(&key).flatten();
            if next.is_none() && self.current(&key)?.is_none() {
                continue;
            }
            self.change(revision, &key, next, &mut changes)?;
        }
        if !changes.is_empty() {
            self.meta.revision = revision;
            self.changes.push(changes.into());
        }
        Ok(Outcome::Applied(self.meta.revision))
    }

    fn change(
        &mut self,
        revision: Revision,
        key: &Key,
        next: Option<Current>,
        changes: &mut Vec<Change>,
    ) -> io::Result<()> {
        let history = record::encode(&next)?;
        let operation = record::encode(&Operation { key: key.clone(), deleted: next.is_none() })?;
        self.meta.hash = hash(self.meta.hash, revision, &operation, &history);
        let place = u32::try_from(changes.len()).map_err(io::Error::other)?;
        self.batch.put(Column::History, columns::history_key(key.as_str(), revision), history);
        self.batch.put(Column::Revisions, columns::revision_key(revision, place), operation);
        changes.push(Change { revision, key: key.clone(), now: next.as_ref().map(Current::versioned) });
        self.rows.insert(key.clone(), next);
        Ok(())
    }

    fn current(&self, key: &Key) -> io::Result<Option<Current>> {
        match self.rows.get(key) {
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

/// All keys that begin with a prefix, as of the present.
pub(crate) fn rows(view: &dyn View, prefix: &str) -> io::Result<(Revision, Vec<(Key, Versioned)>)> {
    let revision = Meta::load(view)?.revision;
    let mut found = Vec::new();
    let end = columns::end_of(prefix.as_bytes());
    view.scan(Column::Current, prefix.as_bytes(), end.as_deref(), &mut |key, row| {
        let row: Current = record::decode(row)?;
        found.push((stored_key(key)?, row.versioned()));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((revision, found))
}

/// What a key held at a revision.
pub(crate) enum Past {
    /// This, or nothing.
    Held(Option<Versioned>),
    /// The oldest revision that can still be read.
    Compacted(Revision),
}

/// Looks up what a key held at a revision.
pub(crate) fn at(view: &dyn View, key: &Key, revision: Revision) -> io::Result<Past> {
    let meta = Meta::load(view)?;
    if revision < meta.compacted {
        return Ok(Past::Compacted(meta.compacted));
    }
    let from = columns::history_key(key.as_str(), revision);
    let end = columns::end_of(&from[..from.len() - size_of::<u64>()]);
    let mut held = None;
    view.scan(Column::History, &from, end.as_deref(), &mut |_, row| {
        let row: Option<Current> = record::decode(row)?;
        held = row.as_ref().map(Current::versioned);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(Past::Held(held))
}

/// Why changes cannot be replayed.
pub(crate) enum Replay {
    /// By revision, at least one if there is any.
    Changes(Vec<Arc<[Change]>>),
    /// The oldest revision that can still be replayed from.
    Compacted(Revision),
}

/// The changes after a revision, of whole revisions, until they come to `limit` bytes.
pub(crate) fn replay(view: &dyn View, after: Revision, limit: usize) -> io::Result<Replay> {
    let meta = Meta::load(view)?;
    if after < meta.compacted {
        return Ok(Replay::Compacted(meta.compacted));
    }
    let mut operations: Vec<(Revision, Operation)> = Vec::new();
    let from = columns::revision_key(Revision(after.0 + 1), 0);
    let mut revisions = Vec::new();
    let mut size = 0;
    view.scan(Column::Revisions, &from, None, &mut |key, row| {
        let (revision, _) = columns::revision_of(key).ok_or_else(|| record::damaged("a key of kv_rev".to_owned()))?;
        if operations.last().is_some_and(|(last, _)| *last != revision) {
            let whole = documents(view, std::mem::take(&mut operations))?;
            size += whole.iter().map(weight).sum::<usize>();
            revisions.push(whole);
            if size >= limit {
                return Ok(ControlFlow::Break(()));
            }
        }
        operations.push((revision, record::decode(row)?));
        Ok(ControlFlow::Continue(()))
    })?;
    if !operations.is_empty() {
        revisions.push(documents(view, operations)?);
    }
    Ok(Replay::Changes(revisions))
}

fn documents(view: &dyn View, operations: Vec<(Revision, Operation)>) -> io::Result<Arc<[Change]>> {
    let change = |(revision, operation): (Revision, Operation)| {
        let key = columns::history_key(operation.key.as_str(), revision);
        let row = view.get(Column::History, &key)?;
        let row = row.ok_or_else(|| record::damaged(format!("{} has no revision {revision}", operation.key)))?;
        let now: Option<Current> = record::decode(&row)?;
        Ok(Change { revision, key: operation.key, now: now.as_ref().map(Current::versioned) })
    };
    operations.into_iter().map(change).collect()
}

/// What a change weighs in a buffer, in bytes.
pub(crate) fn weight(change: &Change) -> usize {
    64 + change.key.as_str().len() + change.now.as_ref().map_or(0, |now| now.document.0.len())
}

/// Checks that no revision is missing: a batch that was lost while a later one was kept leaves a gap.
pub(crate) fn check(view: &dyn View) -> io::Result<Meta> {
    let meta = Meta::load(view)?;
    let mut last = meta.compacted;
    let from = columns::revision_key(Revision(last.0 + 1), 0);
    view.scan(Column::Revisions, &from, None, &mut |key, _| {
        let (revision, place) =
            columns::revision_of(key).ok_or_else(|| record::damaged("a key of kv_rev".to_owned()))?;
        if revision != last && (revision.0 != last.0 + 1 || place != 0) {
            return Err(record::damaged(format!("revision {} is missing", last.0 + 1)));
        }
        last = revision;
        Ok(ControlFlow::Continue(()))
    })?;
    if last == meta.revision {
        Ok(meta)
    } else {
        Err(record::damaged(format!("the state is at revision {}, its history at {last}", meta.revision)))
    }
}

fn stored_key(key: &[u8]) -> io::Result<Key> {
    let text = std::str::from_utf8(key).map_err(|error| record::damaged(error.to_string()))?;
    Key::parse(text).map_err(|error| record::damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
