//! All that may change the store: commands, and the transactions in them.
//!
//! Both are stored in the log and sent between nodes inside a version byte ([`crate::wire`]); variants are only ever added at the end.
//!
//! Invariant: everything a command needs is in it. Applying it reads no clock, draws no random number and knows no kinds (D2).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ids::RequestId, key::Key};

/// The most operations (compares and writes together) in one transaction, as in etcd.
pub const MAX_OPERATIONS: usize = 128;

/// The largest transaction, in bytes of its documents, as in etcd.
pub const MAX_TXN: usize = 3 << 19;

/// The store's counter. Every transaction that writes takes one; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A stored document: canonical JSON, opaque to the store. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document(pub Bytes);

/// Everything that may change the store. Variants are only ever added at the end, never reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Applies a transaction once: `request` lets a retry find the answer to its first try.
    Apply {
        /// Chosen by whoever asked first.
        request: RequestId,
        /// What to apply.
        txn: Txn,
    },
}

/// Writes that stand or fall together, and what must hold for them to stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold, or nothing is written.
    pub compares: Vec<Compare>,
    /// Written in order, under one revision.
    pub writes: Vec<Write>,
}

/// Holds if the key was last written at `seen`; with `None`, if it does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The key that was read.
    pub key: Key,
    /// The revision at which it was last written, as it was read.
    pub seen: Option<Revision>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Creates or replaces.
    Put(Key, Document),
    /// Deletes; nothing happens if the key does not exist.
    Delete(Key),
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Written, at this revision. A transaction that changes nothing answers with the present one.
    Applied(Revision),
    /// Not written: this key is no longer as it was seen. Decide anew.
    Stale(Key),
}

impl Txn {
    /// A transaction that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare.
    #[must_use]
    pub fn expect(mut self, key: Key, seen: Option<Revision>) -> Self {
        self.compares.push(Compare { key, seen });
        self
    }

    /// Creates an object: refused as stale if the key exists.
    #[must_use]
    pub fn create(self, key: Key, document: Document) -> Self {
        self.expect(key.clone(), None).put(key, document)
    }

    /// Replaces an object that was last written at `seen`: refused as stale if it has been written since.
    #[must_use]
    pub fn update(self, key: Key, seen: Revision, document: Document) -> Self {
        self.expect(key.clone(), Some(seen)).put(key, document)
    }

    /// Deletes an object that was last written at `seen`: refused as stale if it has been written since.
    #[must_use]
    pub fn remove(self, key: Key, seen: Revision) -> Self {
        self.expect(key.clone(), Some(seen)).delete(key)
    }

    /// Adds a write without a compare.
    #[must_use]
    pub fn put(mut self, key: Key, document: Document) -> Self {
        self.writes.push(Write::Put(key, document));
        self
    }

    /// Adds a deletion without a compare.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write::Delete(key));
        self
    }

    /// Compares and writes together; at most [`MAX_OPERATIONS`] are accepted.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.compares.len() + self.writes.len()
    }

    /// Bytes of all keys and documents; at most [`MAX_TXN`] are accepted.
    #[must_use]
    pub fn size(&self) -> usize {
        let compares: usize = self.compares.iter().map(|compare| compare.key.as_str().len() + 9).sum();
        let writes: usize = self
            .writes
            .iter()
            .map(|write| match write {
                Write::Put(key, document) => key.as_str().len() + document.0.len(),
                Write::Delete(key) => key.as_str().len(),
            })
            .sum();
        compares + writes
    }
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// One applied change, as a watch delivers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The revision that wrote it; all changes of one transaction share it.
    pub revision: Revision,
    /// The key.
    pub key: Key,
    /// The new document and the revision that created the key; `None` if it was deleted.
    pub now: Option<Versioned>,
}

/// A document with the revisions the store knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The document.
    pub document: Document,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
}
