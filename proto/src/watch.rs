//! Watches: what to be told of, and what one is told.
//!
//! Invariant: an [`Update`] is all that one revision did within the watch's range and filters, never a part of it.

use serde::{Deserialize, Serialize};

use crate::{
    key::Key,
    query::Row,
    range::KeyRange,
    txn::{Change, Revision},
};

/// Asks to be told of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// Of which keys.
    pub range: KeyRange,
    /// From when on.
    pub from: WatchFrom,
    /// Leaves puts out.
    pub no_puts: bool,
    /// Leaves deletions out.
    pub no_deletes: bool,
    /// Whether to be told what was there before, too.
    pub previous: bool,
    /// Says after so many milliseconds without an update how far the watch has come; `None`: never.
    pub progress_millis: Option<u64>,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchFrom {
    /// What is newer than the state of the node that is asked.
    Now,
    /// What is newer than this revision, past or future.
    After(Revision),
}

/// What a watch is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// What one revision did.
    Update(Update),
    /// There is nothing up to this revision that was not delivered: a watch may be resumed after it.
    Progress(Revision),
}

/// What one revision did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The revision.
    pub revision: Revision,
    /// At least one, in the order of its transaction.
    pub events: Vec<Event>,
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// What it is now; `None` if it was deleted.
    pub now: Option<Row>,
    /// What it was before. `None` if it did not exist, if that was not asked for, or if that revision is compacted.
    pub before: Option<Row>,
}

impl WatchSpec {
    /// Asks to be told of everything that happens in a range.
    #[must_use]
    pub const fn new(range: KeyRange, from: WatchFrom) -> Self {
        Self { range, from, no_puts: false, no_deletes: false, previous: false, progress_millis: None }
    }

    /// Whether an event is within range and filters.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let filtered = if event.now.is_some() { self.no_puts } else { self.no_deletes };
        !filtered && self.range.contains(&event.key)
    }
}

impl Event {
    /// Whether the key was created by it.
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.now.as_ref().is_some_and(|row| row.created == row.modified)
    }

    /// What it weighs in a buffer, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let row = |row: &Option<Row>| row.as_ref().map_or(0, Row::weight);
        64 + self.key.as_str().len() + row(&self.now) + row(&self.before)
    }
}

impl Update {
    /// The same as changes.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.events.iter().map(|event| Change {
            revision: self.revision,
            key: event.key.clone(),
            now: event.now.as_ref().and_then(Row::versioned),
        })
    }
}
