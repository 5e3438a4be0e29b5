//! How many connections each endpoint, or each peer, has open: counted while they last.
//!
//! Invariant: a count falls when its [`Load`] is dropped, whatever ended the connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts by key. Cheap to clone; clones share their counts.
#[derive(Debug)]
pub(crate) struct Loads<K: Ord>(Arc<Mutex<BTreeMap<K, usize>>>);

/// One connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Load<K: Ord> {
    key: K,
    loads: Loads<K>,
}

impl<K: Ord> Loads<K> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(BTreeMap::new())))
    }

    /// How many there are of a key.
    pub(crate) fn of(&self, key: &K) -> usize {
        self.lock().get(key).copied().unwrap_or_default()
    }

    /// Counts one more, unless there are as many as may be.
    pub(crate) fn add(&self, key: K, most: usize) -> Option<Load<K>>
    where
        K: Clone,
    {
        let mut counts = self.lock();
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Load { key, loads: Self(Arc::clone(&self.0)) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, usize>> {
        // A count stays usable whoever panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Drop for Load<K> {
    fn drop(&mut self) {
        let mut counts = self.loads.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
