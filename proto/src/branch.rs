//! Transactions that choose: compares over any property of any range, and what to do if they hold or if not, nested.
//!
//! [`crate::txn::Txn`] is the simple transaction, which all of Quorate's own parts use; this is the general one, with etcd's semantics.
//! All compares, also nested ones, are made on the state before the transaction; then the operations of the chosen branches are done in
//! order, under one revision, and each sees what those before it did.
//!
//! Invariant: [`Branch::check`] holds for every branch that is proposed: it is within the limits, and no key is written twice whichever
//! way it goes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    key::Key,
    lease::LeaseId,
    query::{Page, Query, Row},
    range::KeyRange,
    txn::{Document, MAX_OPERATIONS, MAX_TXN, Revision},
};

mod check;
mod depth;

/// How deep branches may be nested.
pub const MAX_DEPTH: usize = 8;

/// The most keys that one deletion may delete.
pub const MAX_DELETED: usize = 10_000;

/// Does one thing if all compares hold, another if not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Branch {
    /// What must hold.
    pub compares: Vec<Comparison>,
    /// Done if all of them hold, and if there are none.
    pub then: Vec<Operation>,
    /// Done if one does not.
    pub otherwise: Vec<Operation>,
}

/// Holds if every key of a range compares so. A range without keys is compared as one key that was never written: its version, revisions
/// and lease are zero, and no compare of its value holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which keys.
    pub range: KeyRange,
    /// How the key's property stands to the target's.
    pub operator: Operator,
    /// What it is compared with.
    pub target: Target,
}

/// How one thing stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Smaller; of values: earlier in the order of bytes.
    Less,
    /// Larger.
    Greater,
}

/// A property of a key, and what it is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The document, byte for byte.
    Value(Document),
    /// How often it was written since it was created.
    Version(u64),
    /// The revision that created it.
    Created(Revision),
    /// The revision that last wrote it.
    Modified(Revision),
    /// The lease it is attached to, in the order of their numbers, no lease first.
    Lease(Option<LeaseId>),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Creates or replaces.
    Put {
        /// The key.
        key: Key,
        /// What to store.
        document: Document,
        /// The lease it is attached to from now on; `None`: it lives until it is deleted.
        lease: Option<LeaseId>,
        /// Whether the answer holds what was there before.
        previous: bool,
    },
    /// Deletes every key of a range, at most [`MAX_DELETED`].
    Delete {
        /// Which keys.
        range: KeyRange,
        /// Whether the answer holds what was there before.
        previous: bool,
    },
    /// Reads. At present it sees what the operations before it wrote.
    Query(Query),
    /// Chooses again.
    Branch(#[serde(deserialize_with = "depth::within")] Branch),
}

/// What a branch came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branched {
    /// The revision that wrote, or the present one if nothing was written.
    pub revision: Revision,
    /// Whether all compares held.
    pub succeeded: bool,
    /// An answer for each operation that was done. `None` in the answer to a retry, if they were too large to be kept: the transaction was
    /// done, and what it found can be read again at its revision.
    pub results: Option<Vec<OperationResult>>,
}

/// What one operation came to.
///
/// All pages and previous rows of one transaction together are limited as one page is; what is beyond the limit is left out, and said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// Of a put: what was there before, if that was asked for and there was anything; without its document if that is beyond the limit.
    Put(Option<Row>),
    /// Of a deletion.
    Deleted {
        /// How many keys.
        count: u64,
        /// What was there before, if that was asked for: fewer than `count` if they are too large for one answer.
        previous: Vec<Row>,
    },
    /// Of a query.
    Found(Page),
    /// Of a branch within: whether its compares held, and an answer for each operation that was done.
    Branch {
        /// Whether all compares held.
        succeeded: bool,
        /// The answers.
        #[serde(deserialize_with = "depth::within")]
        results: Vec<OperationResult>,
    },
}

/// Why a branch is not proposed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BranchError {
    /// Too many compares and operations, over all branches within.
    #[error("a transaction of {0} operations is beyond the limit of {MAX_OPERATIONS}")]
    Operations(usize),
    /// Too large.
    #[error("a transaction of {0} bytes is beyond the limit of {MAX_TXN}")]
    Bytes(usize),
    /// Nested too deeply.
    #[error("branches are nested at most {MAX_DEPTH} deep")]
    Depth,
    /// One way through it writes a key twice.
    #[error("{0} is written twice in one transaction")]
    DuplicateKey(Key),
}

impl Branch {
    /// A branch that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare of one key.
    #[must_use]
    pub fn when(self, key: &Key, operator: Operator, target: Target) -> Self {
        self.when_all(KeyRange::key(key), operator, target)
    }

    /// Adds a compare of every key of a range.
    #[must_use]
    pub fn when_all(mut self, range: KeyRange, operator: Operator, target: Target) -> Self {
        self.compares.push(Comparison { range, operator, target });
        self
    }

    /// Adds an operation that is done if all compares hold.
    #[must_use]
    pub fn then(mut self, operation: Operation) -> Self {
        self.then.push(operation);
        self
    }

    /// Adds an operation that is done if a compare does not hold.
    #[must_use]
    pub fn otherwise(mut self, operation: Operation) -> Self {
        self.otherwise.push(operation);
        self
    }
}

impl Operation {
    /// Creates or replaces, without a lease, and asks for nothing back.
    #[must_use]
    pub const fn put(key: Key, document: Document) -> Self {
        Self::Put { key, document, lease: None, previous: false }
    }

    /// Deletes, and asks for nothing but how many.
    #[must_use]
    pub const fn delete(range: KeyRange) -> Self {
        Self::Delete { range, previous: false }
    }
}

impl Operator {
    /// Whether a key's property stands so to the target's.
    #[must_use]
    pub fn holds<T: Ord + ?Sized>(self, property: &T, target: &T) -> bool {
        match self {
            Self::Equal => property == target,
            Self::NotEqual => property != target,
            Self::Less => property < target,
            Self::Greater => property > target,
        }
    }
}

impl Comparison {
    /// Whether it holds for one key; `None` is a key that was never written.
    #[must_use]
    pub fn holds(&self, row: Option<&Row>) -> bool {
        let number = |property: fn(&Row) -> u64, target: u64| self.operator.holds(&row.map_or(0, property), &target);
        match &self.target {
            Target::Value(target) => row
                .and_then(|row| row.document.as_ref())
                .is_some_and(|document| self.operator.holds(document.0.as_ref(), target.0.as_ref())),
            Target::Version(target) => number(|row| row.version, *target),
            Target::Created(target) => number(|row| row.created.0, target.0),
            Target::Modified(target) => number(|row| row.modified.0, target.0),
            Target::Lease(target) => {
                number(|row| row.lease.map_or(0, |lease| lease.0.get()), target.map_or(0, |lease| lease.0.get()))
            }
        }
    }
}
