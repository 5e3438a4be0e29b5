//! Rows on disk: one RocksDB with one write-ahead log, so that a crash leaves a prefix of all batches, whatever their columns.
//!
//! A Raft snapshot is installed into column families of a new generation; one synced batch then makes it the present one.
//!
//! Invariant: state columns of any generation but the one `sm_meta` names are garbage: they are dropped after a flip, and at open.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    DBWithThreadMode, ErrorKind, MultiThreaded, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch,
};

use super::{Batch, Each, Engine, Op, Row, View};
use crate::{columns::Column, record};

type Db = DBWithThreadMode<MultiThreaded>;

/// Where `sm_meta` keeps which generation of the state is the present one.
const GENERATION: &[u8] = b"generation";

/// Rows of a snapshot are written in batches of this many bytes.
const INSTALL_BATCH: usize = 1 << 20;

/// A store's rows on disk.
pub(crate) struct Disk {
    directory: PathBuf,
    open: RwLock<Option<Arc<Open>>>,
    held: Weak<()>,
}

struct Open {
    db: Db,
    cache: Cache,
    /// Locked for writing while a snapshot becomes the state.
    generation: RwLock<u64>,
    /// Dropped last, when the database is closed: whoever drops it may be another thread than the one that waits for that.
    held: Arc<()>,
}

/// Whether a directory holds a database.
pub(crate) fn exists(directory: &Path) -> bool {
    directory.join("CURRENT").exists()
}

impl Disk {
    /// Opens the database in a directory, or makes one.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let cache = Cache::new_lru_cache(8 << 20);
        let options = database_options();
        let fresh = !exists(directory);
        let mut names = if fresh { Vec::new() } else { Db::list_cf(&options, directory).map_err(io_error)? };
        if fresh {
            names.extend(Column::STATE.map(|column| family(column, 0)));
        }
        let fixed = Column::ALL.into_iter().filter(|column| !Column::STATE.contains(column));
        names.extend(fixed.map(|column| column.name().to_owned()));
        names.push("default".to_owned());
        names.sort();
        names.dedup();
        let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, family_options(name, &cache)));
        let db = Db::open_cf_descriptors(&options, directory, families).map_err(io_error)?;
        let open = Open { db, cache, generation: RwLock::new(0), held: Arc::default() };
        open.settle(&names)?;
        let held = Arc::downgrade(&open.held);
        Ok(Self { directory: directory.to_owned(), held, open: RwLock::new(Some(Arc::new(open))) })
    }

    fn get(&self) -> io::Result<Arc<Open>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the store is closed"))
    }
}

impl Open {
    /// Finds the present generation, and drops what an interrupted install left behind.
    fn settle(&self, names: &[String]) -> io::Result<()> {
        let meta = self.family(Column::StateMeta, 0)?;
        let generation = match self.db.get_cf(&meta, GENERATION).map_err(io_error)? {
            Some(bytes) => record::decode(&bytes)?,
            None => 0,
        };
        let written = self.db.get_cf(&meta, b"applied").map_err(io_error)?.is_some();
        for column in Column::STATE {
            let name = family(column, generation);
            if !names.contains(&name) {
                if written {
                    return Err(record::damaged(format!("column family {name} is missing")));
                }
                self.db.create_cf(&name, &family_options(&name, &self.cache)).map_err(io_error)?;
            }
        }
        for name in names {
            let state = Column::STATE.iter().any(|column| name.split('@').next() == Some(column.name()));
            if state && !Column::STATE.iter().any(|column| *name == family(*column, generation)) {
                self.db.drop_cf(name).map_err(io_error)?;
            }
        }
        *self.generation.write().unwrap_or_else(PoisonError::into_inner) = generation;
        Ok(())
    }

    fn generation(&self) -> u64 {
        *self.generation.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn family(&self, column: Column, generation: u64) -> io::Result<Arc<BoundColumnFamily<'_>>> {
        let name = if Column::STATE.contains(&column) { family(column, generation) } else { column.name().to_owned() };
        self.db.cf_handle(&name).ok_or_else(|| record::damaged(format!("column family {name} is missing")))
    }

    fn put(&self, batch: Batch, generation: u64) -> io::Result<()> {
        let mut handles = Vec::with_capacity(Column::ALL.len());
        for column in Column::ALL {
            handles.push(self.family(column, generation)?);
        }
        let handle = |column: Column| &handles[usize::from(column.number())];
        let mut writes = WriteBatch::default();
        for op in batch.ops {
            match op {
                Op::Put(column, key, value) => writes.put_cf(handle(column), key, value),
                Op::Delete(column, key) => writes.delete_cf(handle(column), key),
                Op::DeleteRange(column, from, to) => writes.delete_range_cf(handle(column), from, to),
            }
        }
        self.db.write(writes).map_err(io_error)
    }
}

impl Engine for Disk {
    fn view(&self, look: &mut dyn FnMut(&dyn View) -> io::Result<()>) -> io::Result<()> {
        let open = self.get()?;
        let view = {
            let generation = open.generation.read().unwrap_or_else(PoisonError::into_inner);
            let mut families = Vec::with_capacity(Column::ALL.len());
            for column in Column::ALL {
                families.push(open.family(column, *generation)?);
            }
            DiskView { snapshot: open.db.snapshot(), families }
        };
        look(&view)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let open = self.get()?;
        open.put(batch, open.generation())
    }

    fn sync(&self) -> io::Result<()> {
        self.get()?.db.flush_wal(true).map_err(io_error)
    }

    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    fn replace(&self, rows: &mut dyn Iterator<Item = io::Result<Row>>, mut meta: Batch) -> io::Result<()> {
        let open = self.get()?;
        let present = open.generation();
        let next = present + 1;
        for column in Column::STATE {
            let name = family(column, next);
            // Left by an install that failed before, in this same process.
            if open.db.cf_handle(&name).is_some() {
                open.db.drop_cf(&name).map_err(io_error)?;
            }
            open.db.create_cf(&name, &family_options(&name, &open.cache)).map_err(io_error)?;
        }
        let mut batch = Batch::default();
        for row in rows {
            let Row { column, key, value } = row?;
            batch.put(column, key, value);
            if batch.size >= INSTALL_BATCH {
                open.put(std::mem::take(&mut batch), next)?;
            }
        }
        open.put(batch, next)?;
        meta.put(Column::StateMeta, GENERATION.to_vec(), record::encode(&next)?);
        {
            let mut generation = open.generation.write().unwrap_or_else(PoisonError::into_inner);
            open.put(meta, next)?;
            open.db.flush_wal(true).map_err(io_error)?;
            *generation = next;
        }
        for column in Column::STATE {
            open.db.drop_cf(&family(column, present)).map_err(io_error)?;
        }
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        let disk = nix::sys::statvfs::statvfs(&self.directory)?;
        Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn close(&self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            open.db.cancel_all_background_work(true);
        }
    }

    fn closed(&self) -> bool {
        self.held.strong_count() == 0
    }
}

struct DiskView<'a> {
    snapshot: SnapshotWithThreadMode<'a, Db>,
    families: Vec<Arc<BoundColumnFamily<'a>>>,
}

impl View for DiskView<'_> {
    fn get(&self, column: Column, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.snapshot.get_cf(self.family(column), key).map_err(io_error)?.map(Bytes::from))
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>, each: &mut Each<'_>) -> io::Result<()> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        self.rows(column, from, options, each)
    }

    fn sweep(&self, column: Column, each: &mut Each<'_>) -> io::Result<()> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        self.rows(column, &[], options, each)
    }
}

impl DiskView<'_> {
    fn family(&self, column: Column) -> &Arc<BoundColumnFamily<'_>> {
        &self.families[usize::from(column.number())]
    }

    fn rows(&self, column: Column, from: &[u8], options: ReadOptions, each: &mut Each<'_>) -> io::Result<()> {
        let mut rows = self.snapshot.raw_iterator_cf_opt(self.family(column), options);
        rows.seek(from);
        while let (Some(key), Some(value)) = (rows.key(), rows.value()) {
            if each(key, value)? == ControlFlow::Break(()) {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(io_error)
    }
}

fn family(column: Column, generation: u64) -> String {
    match generation {
        0 => column.name().to_owned(),
        _ => format!("{}@{generation}", column.name()),
    }
}

/// What holds for the whole database: nothing is lost without notice, an idle node writes nothing, memory is small.
fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // The default mode takes any damage for the end of the log, and silently drops all that follows.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    // Flushing pages before the sync that orders them would break the prefix.
    options.set_wal_bytes_per_sync(0);
    options.set_paranoid_checks(true);
    options.set_use_fsync(false);
    options.set_atomic_flush(false);
    options.set_manual_wal_flush(false);
    options.set_max_total_wal_size(64 << 20);
    options.set_max_manifest_file_size(16 << 20);
    options.set_db_write_buffer_size(48 << 20);
    options.set_max_open_files(128);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options.set_keep_log_file_num(3);
    options.set_max_log_file_size(4 << 20);
    options
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    let raft = name == Column::RaftLog.name();
    let small =
        [Column::RaftMeta, Column::StateMeta, Column::Lease].iter().any(|column| name.starts_with(column.name()));
    if !raft {
        blocks.set_bloom_filter(10.0, false);
        blocks.set_optimize_filters_for_memory(true);
    }
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(if raft { DBCompressionType::None } else { DBCompressionType::Lz4 });
    // Large enough that under load rows are not merged again and again; an idle store fills none of it.
    options.set_write_buffer_size(if small { 1 << 20 } else { 16 << 20 });
    options.set_max_write_buffer_number(2);
    // Nothing is compacted only because time has passed: an idle node writes nothing.
    options.set_periodic_compaction_seconds(0);
    options.set_ttl(0);
    options
}

fn io_error(error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Corruption => io::ErrorKind::InvalidData,
        ErrorKind::IOError if error.to_string().contains("No space left") => io::ErrorKind::StorageFull,
        // RocksDB deletes its own files only when it needs them no more: one that it misses was lost.
        ErrorKind::IOError if error.to_string().contains("No such file") => io::ErrorKind::InvalidData,
        ErrorKind::ShutdownInProgress => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
