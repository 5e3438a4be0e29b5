//! Opens what a store left behind, and refuses what is not whole.
//!
//! A directory holds `mark`, `db/` and `snapshots/`, and `running` while a process uses it. The mark is made first, so a database without
//! one has lost it; a mark that speaks of anything has a database.
//!
//! Invariant: a store that lost something never opens: it would vote against what it had promised. It comes back empty, under a new node
//! id, filled by its peers.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::errors::Fatal;
use quorate_proto::ids::{ClusterId, NodeId};
use thiserror::Error;

use crate::{
    columns::Column,
    config::Config,
    engine::{self, Batch, Disk, Engine, Guarded, Memory, look},
    fault::{Fence, is_damage},
    format,
    log::{Log, WriterLoop, mark::Mark},
    machine::{self, Meta},
    record, scrub,
    snapshot::Vault,
    types::TypeConfig,
};

/// Where log and state live.
pub enum Storage {
    /// In a directory of this store alone. It is made if it is not there.
    Disk(PathBuf),
    /// In memory, for the simulator: what was not synced is lost in a [`Memory::crash`].
    Memory(Memory),
}

/// Why a store does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file cannot be read or written.
    #[error("{} cannot be used", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory belongs to another store.
    #[error("{} belongs to {found}, not to {expected}: a node id is bound to its data", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// `cluster …` or `node …`.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Something is damaged or missing. Taking part again could undo what was acknowledged.
    #[error("{} is damaged: set the directory aside and join the cluster again as a new node", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// Everything can be read, but the end is missing.
    #[error(
        "{} has lost what it had acknowledged ({what}): set the directory aside and join the cluster again as a new node",
        path.display()
    )]
    Behind {
        /// The directory.
        path: PathBuf,
        /// What is older than the mark says.
        what: String,
    },
    /// A newer version of Quorate wrote it.
    #[error("{} was written by a newer version of quorate: run that version", path.display())]
    Newer {
        /// The file or directory.
        path: PathBuf,
        /// Which version it has, and which are known here.
        #[source]
        source: io::Error,
    },
    /// The timing contradicts itself.
    #[error("the timing cannot be used")]
    Timing(#[source] openraft::ConfigError),
    /// Raft does not start on what was found.
    #[error("agreement does not start: {0}")]
    Raft(String),
}

impl OpenError {
    /// Whether the data is of no more use: this node may come back only as a new member that is filled by its peers.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Behind { .. })
    }
}

impl From<Fatal<TypeConfig>> for OpenError {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        Self::Raft(fatal.to_string())
    }
}

/// What opening comes to.
pub(crate) struct Opened {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) vault: Vault,
    pub(crate) log: Log,
    pub(crate) writer: WriterLoop,
    pub(crate) meta: Meta,
    pub(crate) fence: Fence,
    /// Is there while a process uses the directory.
    pub(crate) running: Option<PathBuf>,
    /// Whether the last process that used it did not close it.
    pub(crate) killed: bool,
    /// Whether the writer waits for a disk, and so needs a thread of its own.
    pub(crate) blocking: bool,
}

/// Whether a directory holds a store, whole or not. A node that has opened its store once and finds none has lost it.
#[must_use]
pub fn is_store(directory: &Path) -> bool {
    directory.join("mark").exists() || directory.join("db").exists()
}

/// Opens storage and checks it whole.
pub(crate) fn open(config: &Config, storage: Storage) -> Result<Opened, OpenError> {
    let fence = Fence::new();
    match storage {
        Storage::Memory(memory) => {
            let path = PathBuf::from("memory");
            let engine: Arc<dyn Engine> = Arc::new(Guarded::new(Arc::new(memory.clone()), fence.clone()));
            let (log, writer, meta) = check(config, &engine, None, &path, false)?;
            let vault = Vault::memory(memory, fence.clone());
            Ok(Opened { engine, vault, log, writer, meta, fence, running: None, killed: false, blocking: false })
        }
        Storage::Disk(path) => {
            let (database, running) = (path.join("db"), path.join("running"));
            let vault = Vault::disk(path.join("snapshots"), fence.clone());
            std::fs::create_dir_all(&database).map_err(at(&database))?;
            vault.clean().map_err(at(&path))?;
            let mark = mark(config, &path, &database)?;
            belongs(config, &path, mark.level().cluster, mark.level().node)?;
            // Before anything is read: what a killed process left is checked whole.
            let killed = running.exists();
            std::fs::write(&running, []).and_then(|()| File::open(&path)?.sync_all()).map_err(at(&running))?;
            let disk = Arc::new(Disk::open(&database).map_err(at(&database))?);
            let engine: Arc<dyn Engine> = Arc::new(Guarded::new(disk, fence.clone()));
            let (log, writer, meta) = check(config, &engine, Some(mark), &path, killed)?;
            vault
                .current()
                .and_then(|kept| kept.map_or(Ok(()), |kept| kept.read().map(drop)))
                .map_err(at(&path.join("snapshots")))?;
            Ok(Opened { engine, vault, log, writer, meta, fence, running: Some(running), killed, blocking: true })
        }
    }
}

/// The mark of a directory; a new one for a directory that is new.
fn mark(config: &Config, path: &Path, database: &Path) -> Result<Mark, OpenError> {
    let behind = |what: &str| OpenError::Behind { path: path.to_path_buf(), what: what.to_owned() };
    let file = path.join("mark");
    if !file.exists() {
        let mut files = std::fs::read_dir(database).map_err(at(database))?;
        return match files.next() {
            None => Mark::create(&file, config.cluster, config.node).map_err(at(&file)),
            Some(_) => Err(behind("its file `mark` is missing")),
        };
    }
    let mark = Mark::open(&file).map_err(at(&file))?;
    let says_something = mark.level().vote.is_some() || mark.level().last.is_some();
    if says_something && !engine::exists(database) {
        // RocksDB would make a new database in its place.
        return Err(behind("its file `db/CURRENT` is missing"));
    }
    Ok(mark)
}

fn check(
    config: &Config,
    engine: &Arc<dyn Engine>,
    mark: Option<Mark>,
    path: &Path,
    whole: bool,
) -> Result<(Log, WriterLoop, Meta), OpenError> {
    let owner = look(&**engine, |view| {
        let older = format::check(view)?;
        let cluster = view.get(Column::RaftMeta, b"cluster_id")?.map(|row| record::decode(&row)).transpose()?;
        let node = view.get(Column::RaftMeta, b"node_id")?.map(|row| record::decode(&row)).transpose()?;
        Ok(cluster.zip(node).map(|(cluster, node)| (cluster, node, older)))
    });
    match owner.map_err(at(path))? {
        Some((cluster, node, older)) => {
            belongs(config, path, cluster, node)?;
            if older {
                renew(&**engine).map_err(at(path))?;
            }
        }
        None => claim(config, &**engine).map_err(at(path))?,
    }
    let meta = look(&**engine, |view| machine::check(view)).map_err(at(path))?;
    if whole {
        look(&**engine, |view| scrub::state(view, &mut |_| Ok(()))).map_err(at(path))?;
    }
    let level = mark.as_ref().map(|mark| mark.level().clone());
    let (log, writer) = Log::open(Arc::clone(engine), mark).map_err(at(path))?;
    let found = log.found();
    if let Some(level) = level {
        let behind = |what: &str| OpenError::Behind { path: path.to_path_buf(), what: what.to_owned() };
        if found.vote < level.vote {
            return Err(behind("its vote is older than its mark"));
        }
        if found.last < level.last {
            return Err(behind("its log ends before its mark"));
        }
    }
    Ok((log, writer, meta))
}

/// Writes whose store this is, before anything else.
fn claim(config: &Config, engine: &dyn Engine) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.put(Column::RaftMeta, b"cluster_id".to_vec(), record::encode(&config.cluster)?);
    batch.put(Column::RaftMeta, b"node_id".to_vec(), record::encode(&config.node)?);
    format::claim(&mut batch)?;
    engine.write(batch)?;
    engine.sync()
}

/// Writes that the database is of the present format, before anything else is written in it.
fn renew(engine: &dyn Engine) -> io::Result<()> {
    let mut batch = Batch::default();
    format::claim(&mut batch)?;
    engine.write(batch)?;
    engine.sync()
}

fn belongs(config: &Config, path: &Path, cluster: ClusterId, node: NodeId) -> Result<(), OpenError> {
    let foreign = |found, expected| OpenError::Foreign { path: path.to_path_buf(), found, expected };
    if cluster != config.cluster {
        Err(foreign(format!("cluster {cluster}"), format!("cluster {}", config.cluster)))
    } else if node != config.node {
        Err(foreign(format!("node {node}"), format!("node {}", config.node)))
    } else {
        Ok(())
    }
}

pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        _ if is_damage(&source) => OpenError::Damaged { path: path.clone(), source },
        io::ErrorKind::Unsupported => OpenError::Newer { path: path.clone(), source },
        _ => OpenError::Io { path: path.clone(), source },
    }
}
