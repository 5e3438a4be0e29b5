//! Rows in memory, on two planes: what was written, and what of it a power cut would leave.
//!
//! Invariant: both planes are prefixes of the same history of batches, `synced` never ahead of `pending`.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use imbl::OrdMap;

use super::{Batch, Each, Engine, Op, Row, View};
use crate::{columns::Column, snapshot::SnapshotFile};

type Plane = OrdMap<(Column, Bytes), Bytes>;

/// A store's rows in memory, for the simulator. Clones are the same storage.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Planes>>);

struct Planes {
    pending: Plane,
    synced: Plane,
    snapshot: Option<SnapshotFile>,
    free: u64,
    broken: Option<io::ErrorKind>,
    syncs: u64,
}

impl Default for Planes {
    fn default() -> Self {
        Self { pending: Plane::new(), synced: Plane::new(), snapshot: None, free: u64::MAX, broken: None, syncs: 0 }
    }
}

impl Memory {
    /// Empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power cut leaves: a new storage with all that was synced. Whoever still writes to the old one writes to no avail.
    #[must_use]
    pub fn crash(&self) -> Self {
        let planes = self.planes();
        let (synced, snapshot, free) = (planes.synced.clone(), planes.snapshot.clone(), planes.free);
        Self(Arc::new(Mutex::new(Planes { pending: synced.clone(), synced, snapshot, free, ..Planes::default() })))
    }

    /// How much room this storage says it has left, in bytes. As much as can be said, unless it is told.
    pub fn set_free(&self, bytes: u64) {
        self.planes().free = bytes;
    }

    /// Makes every sync fail from now on; what was written since the last one is in doubt.
    pub fn break_syncs(&self, how: io::ErrorKind) {
        self.planes().broken = Some(how);
    }

    /// How often a sync was tried.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.planes().syncs
    }

    pub(crate) fn keep(&self, snapshot: SnapshotFile) {
        self.planes().snapshot = Some(snapshot);
    }

    pub(crate) fn kept(&self) -> Option<SnapshotFile> {
        self.planes().snapshot.clone()
    }

    fn planes(&self) -> MutexGuard<'_, Planes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Memory {
    fn view(&self, look: &mut dyn FnMut(&dyn View) -> io::Result<()>) -> io::Result<()> {
        let plane = self.planes().pending.clone();
        look(&plane)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut planes = self.planes();
        batch.ops.into_iter().for_each(|op| apply(&mut planes.pending, op));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut planes = self.planes();
        planes.syncs += 1;
        if let Some(how) = planes.broken {
            return Err(how.into());
        }
        planes.synced = planes.pending.clone();
        Ok(())
    }

    fn replace(&self, rows: &mut dyn Iterator<Item = io::Result<Row>>, meta: Batch) -> io::Result<()> {
        let mut planes = self.planes();
        let mut next: Plane = planes
            .pending
            .iter()
            .filter(|((column, _), _)| !Column::STATE.contains(column))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for row in rows {
            let Row { column, key, value } = row?;
            next.insert((column, Bytes::from(key)), value);
        }
        meta.ops.into_iter().for_each(|op| apply(&mut next, op));
        planes.synced = next.clone();
        planes.pending = next;
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.planes().free)
    }

    fn close(&self) {}

    fn closed(&self) -> bool {
        true
    }
}

fn apply(plane: &mut Plane, op: Op) {
    match op {
        Op::Put(column, key, value) => {
            plane.insert((column, Bytes::from(key)), value);
        }
        Op::Delete(column, key) => {
            plane.remove(&(column, Bytes::from(key)));
        }
        Op::DeleteRange(column, from, to) => {
            let range = (column, Bytes::from(from))..(column, Bytes::from(to));
            let keys: Vec<_> = plane.range(range).map(|(key, _)| key.clone()).collect();
            for key in keys {
                plane.remove(&key);
            }
        }
    }
}

impl View for Plane {
    fn get(&self, column: Column, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(OrdMap::get(self, &(column, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, each: &mut Each<'_>) -> io::Result<()> {
        for ((at, key), value) in self.range((column, Bytes::copy_from_slice(from))..) {
            if *at != column || to.is_some_and(|to| key.as_ref() >= to) {
                break;
            }
            if each(key, value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn sweep(&self, column: Column, each: &mut Each<'_>) -> io::Result<()> {
        self.scan(column, &[], None, each)
    }
}
