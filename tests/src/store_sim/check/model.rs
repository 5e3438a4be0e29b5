//! A plain model of the store: every key's past, from the changes in their order.
//!
//! Invariant: what a revision made of a key is never changed by a later one.

use std::collections::BTreeMap;

use quorate_proto::{
    key::Key,
    txn::{Document, Revision, Txn, Versioned, Write},
};

use super::{Ledger, keys};

/// The states of the store at all revisions.
pub(super) struct Model {
    /// By key, what it was from which revision on.
    past: BTreeMap<Key, Vec<(Revision, Option<Versioned>)>>,
    written: BTreeMap<Revision, Vec<(Key, Option<Document>)>>,
    last: Revision,
}

impl Model {
    /// Replays all changes; what cannot be is said.
    pub(super) fn replay(ledger: &Ledger, wrong: &mut Vec<String>) -> Self {
        let mut model = Self { past: BTreeMap::new(), written: BTreeMap::new(), last: Revision(0) };
        for (revision, changes) in ledger {
            for change in changes.iter() {
                let before = model.at(&change.key, model.last).map(|versioned| versioned.created);
                let fits = match &change.now {
                    Some(now) => now.modified == *revision && now.created == before.unwrap_or(*revision),
                    None => before.is_some(),
                };
                if !fits || change.revision != *revision {
                    wrong.push(format!("revision {revision} makes of {} what it cannot: {:?}", change.key, change.now));
                }
            }
            model.written.insert(*revision, keys(changes));
            for change in changes.iter() {
                model.past.entry(change.key.clone()).or_default().push((*revision, change.now.clone()));
            }
            model.last = *revision;
        }
        model
    }

    /// The newest revision.
    pub(super) const fn last(&self) -> Revision {
        self.last
    }

    /// A key as of a revision.
    fn at(&self, key: &Key, revision: Revision) -> Option<&Versioned> {
        let past = self.past.get(key)?;
        let upto = past.partition_point(|(from, _)| *from <= revision);
        past[..upto].last()?.1.as_ref()
    }

    /// What a revision wrote.
    pub(super) fn written(&self, revision: Revision) -> Vec<(Key, Option<Document>)> {
        self.written.get(&revision).cloned().unwrap_or_default()
    }

    /// All keys that begin with a text, as of a revision.
    pub(super) fn page(&self, prefix: &str, revision: Revision) -> Vec<(Key, Versioned)> {
        let within = self.past.keys().filter(|key| key.as_str().starts_with(prefix));
        within.filter_map(|key| Some((key.clone(), self.at(key, revision)?.clone()))).collect()
    }

    /// The first key that is not as a transaction has seen it.
    pub(super) fn stale<'a>(&self, txn: &'a Txn, revision: Revision) -> Option<&'a Key> {
        let so = |key: &Key, seen: Option<Revision>| self.at(key, revision).map(|now| now.modified) == seen;
        txn.compares.iter().find(|compare| !so(&compare.key, compare.seen)).map(|compare| &compare.key)
    }

    /// What a transaction writes on top of a revision; `None` if there is no such revision.
    pub(super) fn effect(&self, txn: &Txn, revision: Revision) -> Option<Vec<(Key, Option<Document>)>> {
        let write = |write: &Write| match write {
            Write::Put(key, document) => Some((key.clone(), Some(document.clone()))),
            Write::Delete(key) => self.at(key, revision).map(|_| (key.clone(), None)),
        };
        (revision <= self.last).then(|| txn.writes.iter().filter_map(write).collect())
    }
}
