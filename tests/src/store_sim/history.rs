//! What clients did and saw, as it happened.
//!
//! Times are ticks of the world: whatever happens within one tick counts as at the same time.
//!
//! Invariant: only what a client could know is here; an operation without an end may have been done, or may yet be.

use std::sync::Arc;

use quorate_proto::{
    ids::{NodeId, RequestId},
    key::Key,
    txn::{Change, Outcome, Revision, Txn, Versioned},
};

/// An operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// Whom.
    pub node: NodeId,
    /// Counts that node's starts: what it has shown, it has shown in one life.
    pub incarnation: u64,
    /// When it was asked for.
    pub called: u64,
    /// When it was answered, if it was.
    pub returned: Option<u64>,
    /// What was asked and answered.
    pub what: What,
}

/// What is asked, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A transaction.
    Write {
        /// Retries carry the same.
        request: RequestId,
        /// What was asked for.
        txn: Txn,
        /// The answer.
        answer: Written,
    },
    /// The keys that begin with a text.
    Read {
        /// How fresh it was asked to be.
        freshness: Freshness,
        /// The text.
        prefix: String,
        /// The answer; `None` if it was refused.
        page: Option<Page>,
    },
}

/// What a client was told of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was decided on.
    Decided(Outcome),
    /// It was not done, and will not be.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// How fresh a read is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It sees all that was acknowledged before it was asked for.
    Linearizable,
    /// At least this revision.
    AtLeast(Revision),
    /// Whatever the node has.
    Stale,
}

/// A state, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Of which revision.
    pub revision: Revision,
    /// The keys, in order.
    pub rows: Vec<(Key, Versioned)>,
}

/// What a watch delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watched {
    /// After which revision it was to begin.
    pub from: Revision,
    /// What came, by revision, from whichever nodes it was taken up on.
    pub delivered: Vec<Arc<[Change]>>,
}

/// All that was recorded.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// By the order in which they were begun.
    pub operations: Vec<Operation>,
    /// By watcher.
    pub watches: Vec<Watched>,
}
