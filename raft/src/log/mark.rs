//! The mark: a small file beside the database that says how far the log had come.
//!
//! RocksDB cannot tell a write-ahead log that was cut short from one that never was longer. The mark can: a store that is newer than its
//! mark is normal, one that is older has lost data. The file has two slots, written in turn, `crc32 | generation | length | envelope`.
//!
//! Invariant: the mark is raised only after what it speaks of is durable, and lowered, durably, before the log is cut.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use quorate_proto::ids::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::record::{self, LogId, Vote};

/// Bytes of a slot. Each has a sector of its own, so that a torn write spares the other.
const SLOT: usize = 512;
const SLOT_HEADER: usize = 16;

/// While the log moves, the mark is made durable this often: after a power cut it is at most so old.
pub(crate) const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) vote: Option<Vote>,
    pub(crate) last: Option<LogId>,
}

/// The mark of a store that is open.
pub(crate) struct Mark {
    file: File,
    generation: u64,
    level: Level,
    /// Since when the file holds something that is not durable.
    moved: Option<Instant>,
}

impl Mark {
    /// Makes the mark of a new store.
    pub(crate) fn create(path: &Path, cluster: ClusterId, node: NodeId) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let level = Level { cluster, node, vote: None, last: None };
        let mut mark = Self { file, generation: 0, level, moved: None };
        mark.write()?;
        mark.sync()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(mark)
    }

    /// Reads the mark of a store.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let newest = (0..2).filter_map(|slot| intact(&file, slot)).max_by_key(|(generation, _)| *generation);
        let (generation, body) = newest.ok_or_else(|| record::damaged("neither slot can be read".to_owned()))?;
        Ok(Self { file, generation, level: record::decode(&body)?, moved: None })
    }

    /// What it says.
    pub(crate) const fn level(&self) -> &Level {
        &self.level
    }

    /// Raises or lowers the last log id; durable after the next [`Mark::sync`].
    pub(crate) fn set_last(&mut self, last: Option<LogId>) -> io::Result<()> {
        if self.level.last != last {
            self.level.last = last;
            self.write()?;
        }
        Ok(())
    }

    /// Sets the vote, durably.
    pub(crate) fn set_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.level.vote = Some(vote);
        self.write()?;
        self.sync()
    }

    /// Makes durable what has been pending for [`SYNC_EVERY`]. How long something may still be pending, if there is anything.
    pub(crate) fn settle(&mut self) -> io::Result<Option<Duration>> {
        match self.moved {
            Some(moved) if moved.elapsed() < SYNC_EVERY => Ok(Some(SYNC_EVERY.saturating_sub(moved.elapsed()))),
            Some(_) => self.sync().map(|()| None),
            None => Ok(None),
        }
    }

    /// Makes the file durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.moved.is_some() {
            self.file.sync_data()?;
            self.moved = None;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.generation += 1;
        let body = record::encode(&self.level)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut slot = vec![0; 4];
        slot.extend(self.generation.to_be_bytes());
        slot.extend(length.to_be_bytes());
        slot.extend_from_slice(&body);
        if slot.len() > SLOT {
            return Err(io::Error::other("a mark does not fit its slot"));
        }
        let crc = crc32fast::hash(&slot[4..]);
        slot[..4].copy_from_slice(&crc.to_be_bytes());
        slot.resize(SLOT, 0);
        self.file.write_all_at(&slot, (self.generation % 2) * SLOT as u64)?;
        self.moved.get_or_insert_with(Instant::now);
        Ok(())
    }
}

/// The generation and the envelope of a slot whose checksum is right.
fn intact(file: &File, slot: u64) -> Option<(u64, Vec<u8>)> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let body = rest.get(..length)?;
    let intact = crc32fast::hash(&bytes[4..SLOT_HEADER + length]) == u32::from_be_bytes(*crc);
    intact.then(|| (u64::from_be_bytes(*generation), body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> Option<LogId> {
        Some(LogId { term: 1, node: NodeId(1), index })
    }

    #[test]
    fn a_mark_with_a_torn_slot_still_says_what_it_said_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        let mut mark = Mark::create(&path, ClusterId(1), NodeId(1)).unwrap();
        mark.set_last(id(4)).unwrap();
        mark.set_last(id(5)).unwrap();
        let newest = (mark.generation % 2) * SLOT as u64;
        drop(mark);
        assert_eq!(Mark::open(&path).unwrap().level().last, id(5));
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xaa; 30], newest).unwrap();
        assert_eq!(Mark::open(&path).unwrap().level().last, id(4));
    }

    #[test]
    fn a_mark_of_which_nothing_is_left_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        std::fs::write(&path, [0; 2 * SLOT]).unwrap();
        assert_eq!(Mark::open(&path).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    }
}
