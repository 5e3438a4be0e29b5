//! What a transaction comes to, before it takes its revision.
//!
//! Invariant: a key that is written twice is one change: the last write, at the place of the first.

use std::{collections::BTreeMap, io};

use quorate_proto::{
    key::Key,
    lease::LeaseId,
    txn::{Document, Revision},
};

use super::{Applying, Current};

/// The writes of one transaction.
pub(super) struct Draft {
    revision: Revision,
    order: Vec<Key>,
    pub(super) after: BTreeMap<Key, Option<Current>>,
}

impl Draft {
    pub(super) const fn new(revision: Revision) -> Self {
        Self { revision, order: Vec::new(), after: BTreeMap::new() }
    }

    /// Creates or replaces a key; what was there before.
    pub(super) fn put(
        &mut self,
        state: &Applying<'_>,
        key: &Key,
        document: &Document,
        lease: Option<LeaseId>,
    ) -> io::Result<Option<Current>> {
        let before = self.current(state, key)?;
        let next = Current {
            created: before.as_ref().map_or(self.revision, |row| row.created),
            modified: self.revision,
            version: before.as_ref().map_or(1, |row| row.version + 1),
            lease: lease.map_or(0, |lease| lease.0.get()),
            value: document.0.clone(),
        };
        self.set(key, Some(next));
        Ok(before)
    }

    /// Deletes a key; what was there before.
    pub(super) fn delete(&mut self, state: &Applying<'_>, key: &Key) -> io::Result<Option<Current>> {
        let before = self.current(state, key)?;
        self.set(key, None);
        Ok(before)
    }

    /// The revision, and what becomes of each key, in the order of the transaction.
    pub(super) fn changed(mut self) -> (Revision, Vec<(Key, Option<Current>)>) {
        let after = |key: Key| {
            let next = self.after.remove(&key).flatten();
            (key, next)
        };
        (self.revision, self.order.into_iter().map(after).collect())
    }

    fn current(&self, state: &Applying<'_>, key: &Key) -> io::Result<Option<Current>> {
        match self.after.get(key) {
            Some(row) => Ok(row.clone()),
            None => state.current(key),
        }
    }

    fn set(&mut self, key: &Key, next: Option<Current>) {
        if self.after.insert(key.clone(), next).is_none() {
            self.order.push(key.clone());
        }
    }
}
