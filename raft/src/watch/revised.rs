//! One revision, as all watches of a node share it.
//!
//! Invariant: whatever is made of it is made once, however many watches want it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quorate_proto::{
    txn::{Change, Revision},
    watch::{Delivery, Event, Update, WatchSpec},
    wire::{self, WireError, cap},
};

/// What one revision did, and what was made of it for watches so far.
pub(super) struct Revised {
    update: Arc<Update>,
    weight: usize,
    changes: OnceLock<Arc<[Change]>>,
    plain: OnceLock<Arc<SharedUpdate>>,
    previous: OnceLock<Arc<SharedUpdate>>,
}

/// An update, and its frame once somebody has asked for that. All watches that want the whole of a revision hold the same.
#[derive(Debug)]
pub struct SharedUpdate {
    update: Arc<Update>,
    frame: OnceLock<Bytes>,
}

impl SharedUpdate {
    const fn new(update: Arc<Update>) -> Self {
        Self { update, frame: OnceLock::new() }
    }

    /// What the revision did.
    #[must_use]
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// The envelope of its [`Delivery`], encoded at most once for all watches.
    ///
    /// # Errors
    /// If it is beyond `proto::wire::cap::APPEND`: a deletion of very many keys, with what was there before.
    pub fn frame(&self) -> Result<Bytes, WireError> {
        if let Some(frame) = self.frame.get() {
            return Ok(frame.clone());
        }
        let frame = wire::encode(&Delivery::Update(Update::clone(&self.update)), cap::APPEND)?;
        Ok(self.frame.get_or_init(|| frame).clone())
    }
}

impl Revised {
    pub(super) fn new(update: Arc<Update>) -> Self {
        let weight = super::weight(&update);
        Self { update, weight, changes: OnceLock::new(), plain: OnceLock::new(), previous: OnceLock::new() }
    }

    pub(super) fn revision(&self) -> Revision {
        self.update.revision
    }

    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn changes(&self) -> Arc<[Change]> {
        Arc::clone(self.changes.get_or_init(|| self.update.changes().collect()))
    }

    /// The changes of keys that do not begin with a prefix; `None` if there are none.
    pub(super) fn changes_outside(&self, prefix: &str) -> Option<Arc<[Change]>> {
        let inside = |event: &&Event| event.key.as_str().starts_with(prefix);
        match self.update.events.iter().filter(inside).count() {
            0 => Some(self.changes()),
            count if count == self.update.events.len() => None,
            _ => Some(self.update.changes().filter(|change| !change.key.as_str().starts_with(prefix)).collect()),
        }
    }

    /// What a watch wants of it; `None` if that is nothing.
    pub(super) fn within(&self, spec: &WatchSpec) -> Option<Arc<SharedUpdate>> {
        let wanted = self.update.events.iter().filter(|event| spec.wants(event));
        let count = wanted.clone().count();
        if count == 0 {
            return None;
        }
        if count < self.update.events.len() {
            let events = wanted.map(|event| if spec.previous { event.clone() } else { plain(event) }).collect();
            return Some(Arc::new(SharedUpdate::new(Arc::new(Update { revision: self.update.revision, events }))));
        }
        let shared = if spec.previous {
            self.previous.get_or_init(|| Arc::new(SharedUpdate::new(Arc::clone(&self.update))))
        } else {
            self.plain.get_or_init(|| {
                let events = self.update.events.iter().map(plain).collect();
                Arc::new(SharedUpdate::new(Arc::new(Update { revision: self.update.revision, events })))
            })
        };
        Some(Arc::clone(shared))
    }
}

/// An event without what was there before.
fn plain(event: &Event) -> Event {
    Event { key: event.key.clone(), now: event.now.clone(), before: None }
}
