//! A Raft snapshot on its way in: its blocks, until all are there.
//!
//! One at a time. A transfer that broke off goes on where it stopped, if the leader still has the same snapshot.
//!
//! Invariant: a block is kept only in its place and with its checksum right; a snapshot is handed on only whole and verified.

use std::io;

use bytes::Bytes;

use crate::{
    record,
    rpc::SnapshotId,
    snapshot::{Draft, MAX_BLOCKS, Sink, SnapshotFile, Vault},
};

/// What has arrived so far.
pub(crate) struct Inbound {
    vault: Vault,
    arriving: Option<(SnapshotId, Draft)>,
}

impl Inbound {
    pub(crate) const fn new(vault: Vault) -> Self {
        Self { vault, arriving: None }
    }

    /// How many blocks of a snapshot are here. One that was not heard of before takes the place of any other.
    ///
    /// # Errors
    /// If it is too large, or cannot be stored.
    pub(crate) fn announce(&mut self, id: SnapshotId) -> io::Result<u64> {
        if let Some((arriving, draft)) = &self.arriving
            && *arriving == id
        {
            return Ok(draft.blocks());
        }
        if id.blocks > MAX_BLOCKS {
            return Err(record::damaged(format!(
                "a snapshot of {} blocks is beyond the limit of {MAX_BLOCKS}",
                id.blocks
            )));
        }
        self.arriving = Some((id, self.vault.draft()?));
        Ok(0)
    }

    /// Takes a block; how many are here then. One that is not the next changes nothing.
    ///
    /// # Errors
    /// If the block is damaged, or cannot be stored.
    pub(crate) fn block(&mut self, id: &SnapshotId, index: u64, crc: u32, bytes: Bytes) -> io::Result<u64> {
        let Some((_, draft)) = self.arriving.as_mut().filter(|(arriving, _)| arriving == id) else {
            return self.announce(id.clone());
        };
        if crc32fast::hash(&bytes) != crc {
            return Err(record::damaged(format!("block {index} of a snapshot was damaged on its way")));
        }
        if index == draft.blocks() && index < id.blocks {
            draft.push(bytes)?;
        }
        Ok(draft.blocks())
    }

    /// The snapshot, if all of it is here: checked and kept.
    ///
    /// # Errors
    /// If it is not whole, or not what was announced.
    pub(crate) fn finish(&mut self, id: &SnapshotId) -> io::Result<SnapshotFile> {
        match self.arriving.take() {
            Some((arriving, draft)) if arriving == *id && draft.blocks() == id.blocks => self.vault.keep(draft),
            other => {
                self.arriving = other;
                Err(record::damaged("a snapshot that has not arrived whole".to_owned()))
            }
        }
    }
}
