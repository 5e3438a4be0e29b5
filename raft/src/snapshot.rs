//! Raft snapshots: the whole state as a file of checked blocks.
//!
//! A file is a row of blocks, each `length | crc32 | bytes` (big endian, all but the last full), so that any can be read and sent by
//! itself. Together the blocks are a header and then the rows, `column | key length | value length | key | value`, ended by the number
//! `0xff` and their count.
//!
//! Invariant: a snapshot is kept only after it was read back whole; it appears under its name by a rename, or not at all.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_proto::{key::MAX_KEY, txn::MAX_TXN};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::NamedTempFile;

use crate::{
    columns::Column,
    engine::{Memory, Row},
    fault::Fence,
    record,
};

/// Bytes of a full block.
pub(crate) const BLOCK: usize = 256 << 10;

/// Bytes before each block: its length and its checksum.
pub(crate) const BLOCK_HEADER: usize = 8;

/// The largest snapshot that is accepted, in blocks: 16 GiB.
pub(crate) const MAX_BLOCKS: u64 = 65_536;

/// The longest key of a row: an escaped user key, and what is around it.
const MAX_ROW_KEY: usize = 2 * MAX_KEY + 64;

/// The longest value of a row: a document, and what is around it.
const MAX_ROW_VALUE: usize = MAX_TXN + (64 << 10);

/// Marks the end of the rows.
const END: u8 = 0xff;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The last entry that is in it.
    pub(crate) last: Option<record::LogId>,
    /// The membership as of then.
    pub(crate) membership: record::StoredMembership,
    /// The rows of `sm_meta`, which are written last of all.
    pub(crate) meta: Vec<(Vec<u8>, Bytes)>,
}

/// A finished snapshot, kept readable while anyone holds it.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    data: Data,
    blocks: u64,
    /// Raised by damage, once the snapshot is one that is kept.
    fence: Option<Fence>,
}

#[derive(Debug, Clone)]
enum Data {
    Disk(Arc<File>),
    Memory(Arc<Vec<Bytes>>),
}

/// Where snapshots are kept: the newest, and those that are being written. Clones are the same vault.
#[derive(Clone)]
pub(crate) struct Vault {
    place: Place,
    /// Held while a snapshot becomes the newest.
    keeping: Arc<Mutex<()>>,
    fence: Fence,
}

#[derive(Clone)]
enum Place {
    /// In a directory, as the file `current`.
    Disk(PathBuf),
    /// With the rows.
    Memory(Memory),
}

/// A snapshot that is being written, block by block.
pub(crate) struct Draft {
    target: Target,
    blocks: u64,
}

enum Target {
    Disk(NamedTempFile),
    Memory(Vec<Bytes>),
}

impl Vault {
    /// A directory of this vault alone. It is made with the first snapshot.
    pub(crate) fn disk(directory: PathBuf, fence: Fence) -> Self {
        Self { place: Place::Disk(directory), keeping: Arc::default(), fence }
    }

    /// Beside the rows of a store in memory.
    pub(crate) fn memory(memory: Memory, fence: Fence) -> Self {
        Self { place: Place::Memory(memory), keeping: Arc::default(), fence }
    }

    /// Whether writing a snapshot waits for a disk.
    pub(crate) const fn waits(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// Begins a snapshot.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let target = match &self.place {
            Place::Disk(directory) => {
                fs::create_dir_all(directory)?;
                Target::Disk(tempfile::Builder::new().prefix("partial-").tempfile_in(directory)?)
            }
            Place::Memory(_) => Target::Memory(Vec::new()),
        };
        Ok(Draft { target, blocks: 0 })
    }

    /// Checks a finished draft and makes it the newest snapshot, unless there is a newer one already.
    pub(crate) fn keep(&self, draft: Draft) -> io::Result<SnapshotFile> {
        let Draft { target, blocks } = draft;
        let data = match &target {
            Target::Disk(file) => {
                file.as_file().sync_all()?;
                Data::Disk(Arc::new(file.reopen()?))
            }
            Target::Memory(bytes) => Data::Memory(Arc::new(bytes.clone())),
        };
        let mut snapshot = SnapshotFile { data, blocks, fence: None };
        let header = snapshot.verify()?;
        // One that is built and one that is received may be finished at once: the older must not take the newer's place in between.
        let _one_at_a_time = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = self.current()?
            && current.read()?.0.last > header.last
        {
            return Ok(current);
        }
        match (&self.place, target) {
            (Place::Disk(directory), Target::Disk(file)) => {
                file.persist(directory.join("current")).map_err(|error| error.error)?;
                File::open(directory)?.sync_all()?;
            }
            (Place::Memory(memory), Target::Memory(_)) => memory.keep(snapshot.clone()),
            _ => return Err(io::Error::other("a snapshot is kept where it was begun")),
        }
        snapshot.fence = Some(self.fence.clone());
        Ok(snapshot)
    }

    /// Keeps a snapshot that came from elsewhere; one that was received through this vault is kept already.
    pub(crate) fn adopt(&self, snapshot: &SnapshotFile, header: &Header) -> io::Result<()> {
        if let Some(current) = self.current()?
            && current.read()?.0 == *header
        {
            return Ok(());
        }
        let mut draft = self.draft()?;
        for index in 0..snapshot.blocks {
            draft.push(snapshot.block(index)?)?;
        }
        self.keep(draft).map(drop)
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> io::Result<Option<SnapshotFile>> {
        match &self.place {
            Place::Disk(directory) => match File::open(directory.join("current")) {
                Ok(file) => {
                    let blocks = file.metadata()?.len().div_ceil((BLOCK + BLOCK_HEADER) as u64);
                    Ok(Some(SnapshotFile { data: Data::Disk(Arc::new(file)), blocks, fence: Some(self.fence.clone()) }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Place::Memory(memory) => Ok(memory.kept()),
        }
    }

    /// How many bytes the newest snapshot has; 0 if there is none.
    pub(crate) fn size(&self) -> u64 {
        match &self.place {
            // One that cannot be asked is found out by whoever needs it.
            Place::Disk(directory) => fs::metadata(directory.join("current")).map_or(0, |file| file.len()),
            Place::Memory(memory) => memory.kept().map_or(0, |snapshot| match &snapshot.data {
                Data::Memory(blocks) => blocks.iter().map(|block| block.len() as u64).sum(),
                Data::Disk(_) => 0,
            }),
        }
    }

    /// Forgets the newest snapshot, durably: it is of a past that does not count any more.
    pub(crate) fn discard(&self) -> io::Result<()> {
        let Place::Disk(directory) = &self.place else { return Ok(()) };
        match fs::remove_file(directory.join("current")) {
            Ok(()) => File::open(directory)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what an interrupted build or transfer left behind.
    pub(crate) fn clean(&self) -> io::Result<()> {
        let Place::Disk(directory) = &self.place else { return Ok(()) };
        if !directory.exists() {
            return Ok(());
        }
        for file in fs::read_dir(directory)? {
            let path = file?.path();
            let partial = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("partial-"));
            if partial {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Draft {
    /// How many blocks it has so far.
    pub(crate) const fn blocks(&self) -> u64 {
        self.blocks
    }
}

impl Sink for Draft {
    fn push(&mut self, block: Bytes) -> io::Result<()> {
        if block.is_empty() || block.len() > BLOCK || self.blocks >= MAX_BLOCKS {
            return Err(record::damaged(format!("block {} of {} bytes", self.blocks, block.len())));
        }
        self.blocks += 1;
        match &mut self.target {
            Target::Disk(file) => {
                let length = u32::try_from(block.len()).map_err(io::Error::other)?;
                file.write_all(&length.to_be_bytes())?;
                file.write_all(&crc32fast::hash(&block).to_be_bytes())?;
                file.write_all(&block)
            }
            Target::Memory(blocks) => {
                blocks.push(block);
                Ok(())
            }
        }
    }
}

impl SnapshotFile {
    /// How many blocks there are.
    pub(crate) const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// A checksum over all blocks: tells two snapshots of the same state apart.
    pub(crate) fn digest(&self) -> io::Result<u32> {
        let mut digest = crc32fast::Hasher::new();
        for index in 0..self.blocks {
            digest.update(&self.block(index)?);
        }
        Ok(digest.finalize())
    }

    /// Reads one block and checks it.
    pub(crate) fn block(&self, index: u64) -> io::Result<Bytes> {
        let block = self.unguarded(index);
        match &self.fence {
            Some(fence) => fence.read(block),
            None => block,
        }
    }

    fn unguarded(&self, index: u64) -> io::Result<Bytes> {
        let torn = || record::damaged(format!("block {index} of a snapshot is damaged"));
        match &self.data {
            Data::Memory(blocks) => {
                let index = usize::try_from(index).map_err(io::Error::other)?;
                blocks.get(index).cloned().ok_or_else(torn)
            }
            Data::Disk(file) => {
                let at = index * (BLOCK + BLOCK_HEADER) as u64;
                let mut header = [0; BLOCK_HEADER];
                file.read_exact_at(&mut header, at)?;
                let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
                let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
                if length > BLOCK {
                    return Err(torn());
                }
                let mut block = vec![0; length];
                file.read_exact_at(&mut block, at + BLOCK_HEADER as u64)?;
                if crc32fast::hash(&block) == u32::from_be_bytes([c0, c1, c2, c3]) {
                    Ok(block.into())
                } else {
                    Err(torn())
                }
            }
        }
    }

    /// Its header, and its rows behind it.
    pub(crate) fn read(&self) -> io::Result<(Header, Rows)> {
        read(Blocks { snapshot: self.clone(), next: 0, block: Bytes::new() })
    }

    /// Reads it whole; an error if anything is damaged or missing.
    pub(crate) fn verify(&self) -> io::Result<Header> {
        let (header, rows) = self.read()?;
        for row in rows {
            row?;
        }
        Ok(header)
    }
}

/// Takes blocks: each full, but for the last.
pub(crate) trait Sink {
    fn push(&mut self, block: Bytes) -> io::Result<()>;
}

/// Writes a header and rows into blocks: of a draft, or of whatever else takes them.
pub(crate) struct Writer<S = Draft> {
    sink: S,
    buffer: BytesMut,
    count: u64,
}

impl<S: Sink> Writer<S> {
    pub(crate) fn new(sink: S, header: &impl Serialize) -> io::Result<Self> {
        let mut writer = Self { sink, buffer: BytesMut::with_capacity(BLOCK * 2), count: 0 };
        let header = record::encode(header)?;
        writer.buffer.put_u32(u32::try_from(header.len()).map_err(io::Error::other)?);
        writer.buffer.extend_from_slice(&header);
        writer.spill()?;
        Ok(writer)
    }

    pub(crate) fn row(&mut self, column: Column, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.buffer.put_u8(column.number());
        self.buffer.put_u32(u32::try_from(key.len()).map_err(io::Error::other)?);
        self.buffer.put_u32(u32::try_from(value.len()).map_err(io::Error::other)?);
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        self.count += 1;
        self.spill()
    }

    pub(crate) fn finish(mut self) -> io::Result<S> {
        self.buffer.put_u8(END);
        self.buffer.put_u64(self.count);
        self.spill()?;
        if !self.buffer.is_empty() {
            self.sink.push(self.buffer.split().freeze())?;
        }
        Ok(self.sink)
    }

    fn spill(&mut self) -> io::Result<()> {
        while self.buffer.len() >= BLOCK {
            self.sink.push(self.buffer.split_to(BLOCK).freeze())?;
        }
        Ok(())
    }
}

/// Reads a header, and the rows behind it, from what the blocks hold together.
pub(crate) fn read<H: DeserializeOwned, R: Read>(mut blocks: R) -> io::Result<(H, Rows<R>)> {
    let length = length(&mut blocks)?;
    let mut header = vec![0; bounded(length, MAX_ROW_VALUE)?];
    blocks.read_exact(&mut header)?;
    Ok((record::decode(&header)?, Rows { blocks, count: 0, done: false }))
}

/// The rows of a snapshot, in order; ends with an error if any is missing.
pub(crate) struct Rows<R = Blocks> {
    blocks: R,
    count: u64,
    done: bool,
}

/// What the blocks of a snapshot hold together.
pub(crate) struct Blocks {
    snapshot: SnapshotFile,
    next: u64,
    block: Bytes,
}

fn length(source: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    source.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.next < self.snapshot.blocks {
            self.block = self.snapshot.block(self.next)?;
            self.next += 1;
        }
        let count = buffer.len().min(self.block.len());
        buffer[..count].copy_from_slice(&self.block.split_to(count));
        Ok(count)
    }
}

impl<R: Read> Rows<R> {
    /// What they were read from.
    pub(crate) fn into_blocks(self) -> R {
        self.blocks
    }

    fn row(&mut self) -> io::Result<Option<Row>> {
        let mut number = [0];
        self.blocks.read_exact(&mut number)?;
        if number == [END] {
            let mut count = [0; 8];
            self.blocks.read_exact(&mut count)?;
            let missing = u64::from_be_bytes(count) != self.count || self.blocks.read(&mut [0])? != 0;
            return if missing { Err(record::damaged("rows of a snapshot are missing".to_owned())) } else { Ok(None) };
        }
        let column = Column::from_number(number[0])
            .filter(|column| Column::STATE.contains(column))
            .ok_or_else(|| record::damaged(format!("a snapshot with column {}, which is not known here", number[0])))?;
        let (key, value) = (length(&mut self.blocks)?, length(&mut self.blocks)?);
        let mut key = vec![0; bounded(key, MAX_ROW_KEY)?];
        let mut value = vec![0; bounded(value, MAX_ROW_VALUE)?];
        self.blocks.read_exact(&mut key)?;
        self.blocks.read_exact(&mut value)?;
        self.count += 1;
        Ok(Some(Row { column, key, value: value.into() }))
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<io::Result<Row>> {
        if self.done {
            return None;
        }
        let row = self.row();
        self.done = !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

fn bounded(length: u32, limit: usize) -> io::Result<usize> {
    let length = length as usize;
    if length > limit { Err(record::damaged(format!("{length} bytes, of at most {limit}"))) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quorate_proto::ids::NodeId;

    use super::*;

    fn header() -> Header {
        header_at(None)
    }

    fn header_at(last: Option<record::LogId>) -> Header {
        let membership = record::Membership { voters: Vec::new(), members: BTreeSet::new() };
        Header { last, membership: record::StoredMembership { log: None, membership }, meta: Vec::new() }
    }

    fn written(vault: &Vault, rows: u32) -> SnapshotFile {
        let mut writer = Writer::new(vault.draft().unwrap(), &header()).unwrap();
        for row in 0..rows {
            writer.row(Column::Current, &row.to_be_bytes(), &[7; 100_000]).unwrap();
        }
        vault.keep(writer.finish().unwrap()).unwrap()
    }

    #[test]
    fn a_snapshot_gives_back_its_rows_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        for vault in
            [Vault::disk(directory.path().join("snapshots"), Fence::new()), Vault::memory(Memory::new(), Fence::new())]
        {
            written(&vault, 20);
            let current = vault.current().unwrap().unwrap();
            assert!(current.blocks() > 5);
            let (read, rows) = current.read().unwrap();
            assert_eq!(read, header());
            let keys: Vec<_> = rows.map(|row| row.unwrap().key).collect();
            assert_eq!(keys, (0..20_u32).map(|row| row.to_be_bytes().to_vec()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn of_snapshots_that_are_finished_at_once_the_newest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let vaults = [
            (Vault::disk(directory.path().to_path_buf(), Fence::new()), 20_u64),
            (Vault::memory(Memory::new(), Fence::new()), 2_000),
        ];
        for (vault, rounds) in vaults {
            for round in 0..rounds {
                let last = |step| Some(record::LogId { term: 1, node: NodeId(1), index: round * 10 + step });
                let begin = std::sync::Barrier::new(4);
                std::thread::scope(|scope| {
                    for step in 0..4 {
                        let (vault, begin) = (&vault, &begin);
                        let draft =
                            Writer::new(vault.draft().unwrap(), &header_at(last(step))).unwrap().finish().unwrap();
                        scope.spawn(move || {
                            begin.wait();
                            vault.keep(draft).unwrap();
                        });
                    }
                });
                let (kept, _) = vault.current().unwrap().unwrap().read().unwrap();
                assert_eq!(kept.last, last(3), "an older one took its place");
            }
        }
    }

    #[test]
    fn a_snapshot_that_is_damaged_or_cut_short_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::disk(directory.path().join("snapshots"), Fence::new());
        written(&vault, 20);
        let path = directory.path().join("snapshots/current");
        let intact = fs::read(&path).unwrap();
        for step in 0..16 {
            let at = intact.len() * step / 16;
            let mut flipped = intact.clone();
            flipped[at] ^= 1;
            for (what, bytes) in [("flipped", flipped), ("cut", intact[..at].to_vec())] {
                fs::write(&path, bytes).unwrap();
                assert!(vault.current().unwrap().unwrap().verify().is_err(), "{what} at {at}");
            }
        }
    }

    #[test]
    fn what_an_interrupted_transfer_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::disk(directory.path().to_path_buf(), Fence::new());
        fs::write(directory.path().join("partial-x"), b"half").unwrap();
        written(&vault, 1);
        vault.clean().unwrap();
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["current"]);
    }
}
