//! Rows in memory, on two planes: what was written, and what of it a power cut would leave. It can be as slow, as full and as broken as
//! a disk.
//!
//! Invariant: all planes are prefixes of the same history of batches, `synced` never ahead of `pending`.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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
    /// What the batches since the last sync made of it, one by one.
    unsynced: Vec<Plane>,
    snapshot: Option<SnapshotFile>,
    free: u64,
    broken: Option<io::ErrorKind>,
    syncs: u64,
    trouble: Trouble,
}

impl Default for Planes {
    fn default() -> Self {
        Self {
            pending: Plane::new(),
            synced: Plane::new(),
            unsynced: Vec::new(),
            snapshot: None,
            free: u64::MAX,
            broken: None,
            syncs: 0,
            trouble: Trouble::default(),
        }
    }
}

/// What is wrong with a simulated disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trouble {
    /// How long a sync takes.
    pub delay: Duration,
    /// The next sync fails, and nobody knows what it left on the disk.
    pub sync_fails: bool,
    /// There is no room: whatever would be written is refused.
    pub full: bool,
    /// Nothing can be read.
    pub unreadable: bool,
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
        self.crash_keeping(0)
    }

    /// What a power cut leaves if so many of the batches that were not synced had reached the disk all the same, the oldest first.
    #[must_use]
    pub fn crash_keeping(&self, batches: usize) -> Self {
        let planes = self.planes();
        let kept = batches.checked_sub(1).and_then(|last| planes.unsynced.get(last).or(planes.unsynced.last()));
        let synced = kept.unwrap_or(&planes.synced).clone();
        let (snapshot, free) = (planes.snapshot.clone(), planes.free);
        let planes = Planes { pending: synced.clone(), synced, snapshot, free, ..Planes::default() };
        Self(Arc::new(Mutex::new(planes)))
    }

    /// How many batches were written since the last sync.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.planes().unsynced.len()
    }

    /// From now on the disk is like this.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.planes().trouble = trouble;
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
        let plane = {
            let planes = self.planes();
            if planes.trouble.unreadable {
                return Err(io::Error::other("the simulated disk cannot be read"));
            }
            planes.pending.clone()
        };
        look(&plane)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut planes = self.planes();
        planes.room()?;
        batch.ops.into_iter().for_each(|op| apply(&mut planes.pending, op));
        let written = planes.pending.clone();
        planes.unsynced.push(written);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut planes = self.planes();
        planes.syncs += 1;
        if let Some(how) = planes.broken {
            return Err(how.into());
        }
        if planes.trouble.sync_fails {
            return Err(io::Error::other("the simulated disk failed to sync"));
        }
        planes.synced = planes.pending.clone();
        planes.unsynced.clear();
        Ok(())
    }

    fn delay(&self) -> Duration {
        self.planes().trouble.delay
    }

    fn replace(&self, rows: &mut dyn Iterator<Item = io::Result<Row>>, meta: Batch) -> io::Result<()> {
        let mut planes = self.planes();
        planes.room()?;
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
        planes.unsynced.clear();
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

impl Planes {
    fn room(&self) -> io::Result<()> {
        if self.trouble.full {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"));
        }
        Ok(())
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
