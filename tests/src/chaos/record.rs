//! What clients and watchers were told in one section, as it happened.
//!
//! Invariant: times are microseconds of this process's monotonic clock: an operation began before it was sent, and ended after it was
//! answered.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_proto::{
    key::Key,
    txn::{Change, Revision},
};
use tokio::time::Instant;

use crate::{
    store_sim::history::{History, Operation, Watched, What},
    stores::Failure,
};

/// A section's history, and its keys.
pub(super) struct Record {
    /// All of its keys begin so.
    pub(super) prefix: String,
    /// What was decided before it began.
    pub(super) from: Revision,
    begun: Instant,
    history: Mutex<History>,
}

impl Record {
    /// Of the section of a number, which begins after a revision.
    pub(super) fn new(section: u64, from: Revision, begun: Instant) -> Arc<Self> {
        Arc::new(Self { prefix: format!("/kv/chaos-{section}/_/"), from, begun, history: Mutex::default() })
    }

    /// A key of this section.
    pub(super) fn key(&self, name: &str) -> Result<Key, Failure> {
        Ok(Key::parse(&format!("{}{name}", self.prefix))?)
    }

    /// The time.
    pub(super) fn now(&self) -> u64 {
        micros(self.begun)
    }

    fn note<T>(&self, note: impl FnOnce(&mut History) -> T) -> T {
        note(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down that something is asked for.
    pub(super) fn called(&self, operation: Operation) -> usize {
        self.note(|history| {
            history.operations.push(operation);
            history.operations.len() - 1
        })
    }

    /// Writes down the answer.
    pub(super) fn returned(&self, number: usize, what: What) {
        let now = self.now();
        self.note(|history| {
            let operation = &mut history.operations[number];
            operation.returned = Some(now);
            operation.what = what;
        });
    }

    /// A new watch, from the beginning of the section on.
    pub(super) fn watch(&self) -> usize {
        self.note(|history| {
            history.watches.push(Watched { from: self.from, delivered: Vec::new() });
            history.watches.len() - 1
        })
    }

    /// Writes down what a watch delivered.
    pub(super) fn delivered(&self, watch: usize, changes: Arc<[Change]>) {
        self.note(|history| history.watches[watch].delivered.push(changes));
    }

    /// Up to which revision a watch has delivered.
    pub(super) fn upto(&self, watch: usize) -> Revision {
        self.note(|history| {
            let last = history.watches[watch].delivered.last().and_then(|changes| changes.first());
            last.map_or(self.from, |change| change.revision)
        })
    }

    /// All that was recorded.
    pub(super) fn history(&self) -> History {
        self.note(|history| history.clone())
    }
}

/// Microseconds since a moment.
pub(super) fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}
