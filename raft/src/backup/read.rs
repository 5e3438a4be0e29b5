//! Reads a backup, and checks it while it does.
//!
//! Invariant: a summary is given only of a file that was read to its last byte and whose every checksum fits.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use bytes::Bytes;
use quorate_proto::{
    key::Key,
    txn::{Revision, Versioned},
};
use ring::digest::{Context, SHA256};

use super::{BackupError, Header, MAGIC, Origin, SUM, VERSION, fault, fill};
use crate::{
    columns::Column,
    engine::Row,
    machine::{self, Current},
    record,
    snapshot::{self, BLOCK, BLOCK_HEADER, Rows},
};

/// A backup that is being read: its beginning is known, its rows are still to come.
pub struct Backup<R> {
    origin: Origin,
    pub(super) meta: Vec<(Vec<u8>, Bytes)>,
    rows: Rows<Blocks<R>>,
}

/// What a backup holds, known when it was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub origin: Origin,
    /// How many objects it holds.
    pub objects: u64,
    /// How many of each resource: `pods`, `deployments.apps`.
    pub resources: BTreeMap<String, u64>,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The SHA-256 at its end, over all before.
    pub sum: [u8; SUM],
}

impl<R: Read> Backup<R> {
    /// Reads what it is of.
    ///
    /// # Errors
    /// If it is no backup, or damaged already in its beginning.
    pub fn open(source: R) -> Result<Self, BackupError> {
        let blocks = Blocks::begin(source)?;
        let (Header::V1(origin, meta), rows) = snapshot::read(blocks).map_err(fault)?;
        let revision = meta.iter().find(|(name, _)| name == b"rev").map(|(_, row)| record::decode::<Revision>(row));
        match revision.transpose().map_err(fault)? {
            Some(revision) if revision == origin.revision => Ok(Self { origin, meta, rows }),
            _ => Err(BackupError::Malformed("its header contradicts itself".to_owned())),
        }
    }

    /// What it says it is of. To be believed when it was read whole.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Reads it whole, and hands on every object.
    ///
    /// # Errors
    /// If anything of it is damaged or missing: what was handed on is then worth nothing.
    pub fn objects(self, mut each: impl FnMut(Key, Versioned)) -> Result<Summary, BackupError> {
        self.rows(|rows, tally| {
            for row in rows {
                if let Some((key, versioned)) = tally.object(&row?)? {
                    each(key, versioned);
                }
            }
            Ok(())
        })
    }

    /// Hands the rows on, then says what they came to.
    pub(super) fn rows(
        mut self,
        take: impl FnOnce(&mut dyn Iterator<Item = io::Result<Row>>, &mut Tally) -> io::Result<()>,
    ) -> Result<Summary, BackupError> {
        let mut tally = Tally::default();
        take(&mut self.rows, &mut tally).map_err(fault)?;
        let blocks = self.rows.into_blocks();
        let sum = blocks.sum.ok_or(BackupError::Cut(blocks.at))?;
        let Tally { objects, resources } = tally;
        Ok(Summary { origin: self.origin, objects, resources, bytes: blocks.at, sum })
    }
}

/// Counts objects.
#[derive(Default)]
pub(super) struct Tally {
    objects: u64,
    resources: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts a row if it is an object's present, and reads it.
    pub(super) fn object(&mut self, row: &Row) -> io::Result<Option<(Key, Versioned)>> {
        if row.column != Column::Current {
            return Ok(None);
        }
        let key = machine::stored_key(&row.key)?;
        let current: Current = record::decode(&row.value)?;
        let resource = match key.group() {
            "" => key.resource().to_owned(),
            group => format!("{}.{group}", key.resource()),
        };
        self.objects += 1;
        *self.resources.entry(resource).or_default() += 1;
        Ok(Some((key, current.versioned())))
    }
}

/// What the blocks of a backup hold together; each is checked before any of it is given out.
pub(super) struct Blocks<R> {
    source: R,
    digest: Context,
    /// Bytes read so far.
    at: u64,
    block: Bytes,
    /// The sum at the end, once it was read and fits.
    sum: Option<[u8; SUM]>,
}

impl<R: Read> Blocks<R> {
    fn begin(source: R) -> Result<Self, BackupError> {
        let mut blocks = Self { source, digest: Context::new(&SHA256), at: 0, block: Bytes::new(), sum: None };
        let mut magic = [0; MAGIC.len()];
        let mut known = 0;
        // Byte by byte, so that a short file that is something else is not taken for a backup that was cut.
        while known < magic.len() {
            fill(&mut blocks.source, &mut magic[known..=known], known as u64)?;
            if magic[known] != MAGIC[known] {
                return Err(BackupError::Foreign);
            }
            known += 1;
        }
        blocks.took(&magic);
        let mut version = [0];
        blocks.fill(&mut version)?;
        if version == [VERSION] { Ok(blocks) } else { Err(BackupError::Version(version[0])) }
    }

    fn took(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        fill(&mut self.source, buffer, self.at)?;
        self.took(buffer);
        Ok(())
    }

    /// Reads the next block; an empty one at the end.
    fn next(&mut self) -> Result<Bytes, BackupError> {
        let mut header = [0; BLOCK_HEADER];
        self.fill(&mut header)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let (length, crc) = (u32::from_be_bytes([l0, l1, l2, l3]) as usize, u32::from_be_bytes([c0, c1, c2, c3]));
        if length > BLOCK {
            return Err(BackupError::Damaged(self.at));
        }
        if length == 0 {
            return self.end().map(|()| Bytes::new());
        }
        let mut block = vec![0; length];
        self.fill(&mut block)?;
        if crc32fast::hash(&block) == crc { Ok(block.into()) } else { Err(BackupError::Damaged(self.at)) }
    }

    /// Reads the sum, and that nothing follows it.
    fn end(&mut self) -> Result<(), BackupError> {
        let expected = self.digest.clone().finish();
        let mut sum = [0; SUM];
        self.fill(&mut sum)?;
        if sum != expected.as_ref() {
            return Err(BackupError::Damaged(self.at));
        }
        match fill(&mut self.source, &mut [0], self.at) {
            Err(BackupError::Cut(_)) => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(BackupError::Longer(self.at)),
        }
        self.sum = Some(sum);
        Ok(())
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.sum.is_none() {
            self.block = self.next().map_err(io::Error::other)?;
        }
        let count = buffer.len().min(self.block.len());
        buffer[..count].copy_from_slice(&self.block.split_to(count));
        Ok(count)
    }
}
