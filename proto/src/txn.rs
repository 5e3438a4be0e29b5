//! All that may change the store: commands, and the transactions in them.
//!
//! Both are stored in the log and sent between nodes inside a version byte ([`crate::wire`]); variants are only ever added at the end.
//!
//! Invariant: everything a command needs is in it. Applying it reads no clock, draws no random number and knows no kinds (D2).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    branch::{Branch, Branched, MAX_DELETED},
    ids::RequestId,
    key::Key,
    lease::{LeaseId, MAX_LEASE_KEYS},
};

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
    /// Applies a transaction that chooses, once.
    Branch {
        /// Chosen by whoever asked first.
        request: RequestId,
        /// What to apply.
        branch: Branch,
    },
    /// Lets go of what was before a revision: reads and watches of anything older are refused from then on.
    Compact {
        /// Chosen by whoever asked first.
        request: RequestId,
        /// The oldest revision that can still be read.
        revision: Revision,
    },
    /// Grants a lease.
    Grant {
        /// Chosen by whoever asked first.
        request: RequestId,
        /// Chosen by whoever asked first, too.
        lease: LeaseId,
        /// How long it lives unless it is kept alive: [`crate::lease::MIN_TTL`] to [`crate::lease::MAX_TTL`] seconds.
        ttl_seconds: u64,
    },
    /// Ends a lease and deletes every key that is attached to it, under one revision.
    Revoke {
        /// Chosen by whoever asked first.
        request: RequestId,
        /// Which.
        lease: LeaseId,
        /// Only if it is the one that was granted by this entry of the log: another may have been granted under its number since.
        granted: Option<u64>,
    },
}

impl Command {
    /// Whose retry it may be.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::Apply { request, .. }
            | Self::Branch { request, .. }
            | Self::Compact { request, .. }
            | Self::Grant { request, .. }
            | Self::Revoke { request, .. } => *request,
        }
    }
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

/// What became of a command. Variants are only ever added at the end, never reused; the first two are those of [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// Of a transaction: written, at this revision. One that changes nothing answers with the present one.
    Applied(Revision),
    /// Of a transaction: not written, since this key is no longer as it was seen.
    Stale(Key),
    /// Of a transaction that chooses.
    Branched(Branched),
    /// The oldest revision that can be read from now on.
    Compacted(Revision),
    /// The lease is granted.
    Granted,
    /// The lease has ended; the revision that deleted its keys, or the present one if it had none.
    Revoked(Revision),
    /// Nothing was done.
    Refused(CommandRefusal),
}

/// Why nothing was done: found out by the state machine, the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum CommandRefusal {
    /// It is about a revision that is no longer kept.
    #[error("revisions before {oldest} are compacted")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// It is about a revision that is yet to come.
    #[error("revision {asked} is yet to come: the store is at {at}")]
    FutureRevision {
        /// Which.
        asked: Revision,
        /// The newest.
        at: Revision,
    },
    /// There is no such lease: it was never granted, or has ended.
    #[error("there is no lease {0}: it was never granted, or has ended")]
    NoSuchLease(LeaseId),
    /// The lease is granted already.
    #[error("lease {0} is granted already: choose another number")]
    LeaseExists(LeaseId),
    /// The lease has all the keys it may have.
    #[error("lease {0} has {MAX_LEASE_KEYS} keys, which is the limit")]
    LeaseFull(LeaseId),
    /// A deletion of more keys than one may delete.
    #[error("a deletion of more than {MAX_DELETED} keys is beyond the limit of {MAX_DELETED}: delete smaller ranges")]
    TooManyDeleted,
}

impl From<Outcome> for CommandOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied(revision) => Self::Applied(revision),
            Outcome::Stale(key) => Self::Stale(key),
        }
    }
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
