//! One state of the store, to read and to decide on: every object at one revision, in memory.
//!
//! Each node keeps the newest from its own watch; controllers, agent, names, routes and the API read it. A clone costs nothing and
//! never changes.
//!
//! Invariant: a snapshot is what the store held at `revision`, no more and no less; changes are applied in the store's order.

use std::sync::Arc;

use imbl::OrdMap;
use thiserror::Error;

use crate::{
    key::Key,
    kinds::Kind,
    object::{Object, ObjectError},
    txn::{Change, Revision, Versioned},
};

/// An object as the store holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Where it lives.
    pub key: Key,
    /// The object, without `resourceVersion`.
    pub object: Object,
    /// The revision that created it.
    pub created: Revision,
    /// The revision that last wrote it: its `resourceVersion`.
    pub modified: Revision,
}

/// The objects of one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    revision: Revision,
    objects: OrdMap<Key, Arc<Stored>>,
}

/// A stored document is no object.
#[derive(Debug, Error)]
#[error("the store holds something that is no object under {key}")]
pub struct SnapshotError {
    /// Where.
    pub key: Key,
    /// Why.
    #[source]
    pub source: ObjectError,
}

impl Stored {
    /// Reads what the store holds under a key.
    ///
    /// # Errors
    /// If the document is no object.
    pub fn new(key: Key, versioned: &Versioned) -> Result<Self, SnapshotError> {
        match Object::from_document(&versioned.document) {
            Ok(object) => Ok(Self { key, object, created: versioned.created, modified: versioned.modified }),
            Err(source) => Err(SnapshotError { key, source }),
        }
    }

    /// The object as it is shown: with `resourceVersion`.
    #[must_use]
    pub fn shown(&self) -> Object {
        self.object.clone().with_resource_version(self.modified)
    }
}

impl Snapshot {
    /// The revision this is the state of.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The object under a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.objects.get(key)
    }

    /// The object of a kind by namespace and name.
    #[must_use]
    pub fn find(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> Option<&Arc<Stored>> {
        self.get(&kind.key(namespace, name).ok()?)
    }

    /// All objects of a kind, by namespace and name.
    pub fn list<'a>(&'a self, kind: &Kind) -> impl Iterator<Item = &'a Arc<Stored>> + use<'a> {
        self.range(kind.prefix(None))
    }

    /// The objects of a kind in one namespace, by name.
    pub fn list_in<'a>(&'a self, kind: &Kind, namespace: &str) -> impl Iterator<Item = &'a Arc<Stored>> + use<'a> {
        self.range(kind.prefix(Some(namespace)))
    }

    /// All objects, by key.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.objects.values()
    }

    fn range(&self, prefix: String) -> impl Iterator<Item = &Arc<Stored>> + use<'_> {
        // A prefix is no key itself; the shortest key that begins with it is.
        let start = Key::parse(&format!("{prefix}!")).or_else(|_| Key::parse(&format!("{prefix}!/!"))).ok();
        start.into_iter().flat_map(move |start| {
            let prefix = prefix.clone();
            self.objects
                .range(start..)
                .take_while(move |(key, _)| key.as_str().starts_with(&prefix))
                .map(|(_, stored)| stored)
        })
    }

    /// Puts in what the store held, before the first change is applied.
    ///
    /// # Errors
    /// If a document is no object.
    pub fn load(revision: Revision, rows: impl IntoIterator<Item = (Key, Versioned)>) -> Result<Self, SnapshotError> {
        let mut snapshot = Self { revision, objects: OrdMap::new() };
        for (key, versioned) in rows {
            let stored = Stored::new(key.clone(), &versioned)?;
            snapshot.objects.insert(key, Arc::new(stored));
        }
        Ok(snapshot)
    }

    /// Applies one change. Changes come in the store's order, none is left out.
    ///
    /// # Errors
    /// If the document is no object; the snapshot is then as it was.
    pub fn apply(&mut self, change: &Change) -> Result<(), SnapshotError> {
        match &change.now {
            Some(versioned) => {
                let stored = Stored::new(change.key.clone(), versioned)?;
                self.objects.insert(change.key.clone(), Arc::new(stored));
            }
            None => {
                self.objects.remove(&change.key);
            }
        }
        self.revision = change.revision;
        Ok(())
    }

    /// Takes in that no object changed up to a revision; an older one changes nothing.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Applies a transaction as the store would, for pure tests and dry runs: `Err` names the key that is stale.
    ///
    /// # Errors
    /// With the key of the first compare that does not hold, or of the first document that is no object.
    pub fn commit(&mut self, txn: &crate::txn::Txn) -> Result<Revision, Key> {
        for compare in &txn.compares {
            if self.get(&compare.key).map(|stored| stored.modified) != compare.seen {
                return Err(compare.key.clone());
            }
        }
        if txn.writes.is_empty() {
            return Ok(self.revision);
        }
        let revision = Revision(self.revision.0 + 1);
        let mut next = self.clone();
        for write in &txn.writes {
            let now = match write {
                crate::txn::Write::Put(key, document) => Some(Versioned {
                    document: document.clone(),
                    created: next.get(key).map_or(revision, |stored| stored.created),
                    modified: revision,
                }),
                crate::txn::Write::Delete(_) => None,
            };
            next.apply(&Change { revision, key: write.key().clone(), now }).map_err(|error| error.key)?;
        }
        next.revision = revision;
        *self = next;
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        kinds::{NODES, PODS},
        txn::Txn,
    };

    fn pod(namespace: &str, name: &str) -> (Key, Object) {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}});
        (PODS.key(Some(namespace), name).unwrap(), Object::from_value(object).unwrap())
    }

    #[test]
    fn a_list_holds_the_objects_of_its_kind_and_namespace_and_no_others() {
        let mut snapshot = Snapshot::default();
        for (namespace, name) in [("a", "1"), ("b", "2"), ("a", "3"), ("ab", "4")] {
            let (key, object) = pod(namespace, name);
            snapshot.commit(&Txn::new().create(key, object.to_document())).unwrap();
        }
        let names = |list: Vec<&Arc<Stored>>| {
            list.into_iter().map(|stored| stored.object.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(snapshot.list(&PODS).collect()), ["1", "3", "4", "2"]);
        assert_eq!(names(snapshot.list_in(&PODS, "a").collect()), ["1", "3"]);
        assert_eq!(snapshot.list(&NODES).count(), 0);
    }

    #[test]
    fn a_transaction_on_what_has_changed_is_stale_and_writes_nothing() {
        let mut snapshot = Snapshot::default();
        let (key, object) = pod("a", "1");
        let first = snapshot.commit(&Txn::new().create(key.clone(), object.to_document())).unwrap();
        assert_eq!(snapshot.commit(&Txn::new().create(key.clone(), object.to_document())), Err(key.clone()));
        let second = snapshot.commit(&Txn::new().update(key.clone(), first, object.to_document())).unwrap();
        assert_eq!(snapshot.commit(&Txn::new().remove(key.clone(), first)), Err(key.clone()));
        let stored = snapshot.get(&key).unwrap();
        assert_eq!((stored.created, stored.modified, snapshot.revision()), (first, second, second));
    }
}
