//! Opens what a store left behind, and refuses what is not whole.
//!
//! A directory holds `mark`, `db/` and `snapshots/`. The mark is made first, so a database without one has lost it.
//!
//! Invariant: a store that lost something never opens: it would vote against what it had promised. It comes back empty, under a new node
//! id, filled by its peers.

use std::{
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
    engine::{self, Batch, Disk, Engine, Memory, look},
    log::{Log, WriterLoop, mark::Mark},
    machine::{self, Meta},
    record,
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
    /// The timing contradicts itself.
    #[error("the timing cannot be used")]
    Timing(#[source] openraft::ConfigError),
    /// Raft does not start on what was found.
    #[error("agreement does not start: {0}")]
    Raft(String),
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
    /// Whether the writer waits for a disk, and so needs a thread of its own.
    pub(crate) blocking: bool,
}

/// Opens storage and checks it whole.
pub(crate) fn open(config: &Config, storage: Storage) -> Result<Opened, OpenError> {
    match storage {
        Storage::Memory(memory) => {
            let path = PathBuf::from("memory");
            let engine: Arc<dyn Engine> = Arc::new(memory.clone());
            let (log, writer, meta) = check(config, &engine, None, &path)?;
            Ok(Opened { engine, vault: Vault::memory(memory), log, writer, meta, blocking: false })
        }
        Storage::Disk(path) => {
            let (mark_path, database) = (path.join("mark"), path.join("db"));
            let vault = Vault::disk(path.join("snapshots"));
            std::fs::create_dir_all(&database).map_err(at(&database))?;
            vault.clean().map_err(at(&path))?;
            let mark = if mark_path.exists() {
                Mark::open(&mark_path).map_err(at(&mark_path))?
            } else if engine::exists(&database) {
                return Err(OpenError::Behind { path, what: "its file `mark` is missing".to_owned() });
            } else {
                Mark::create(&mark_path, config.cluster, config.node).map_err(at(&mark_path))?
            };
            belongs(config, &path, mark.level().cluster, mark.level().node)?;
            let engine: Arc<dyn Engine> = Arc::new(Disk::open(&database).map_err(at(&database))?);
            let (log, writer, meta) = check(config, &engine, Some(mark), &path)?;
            Ok(Opened { engine, vault, log, writer, meta, blocking: true })
        }
    }
}

fn check(
    config: &Config,
    engine: &Arc<dyn Engine>,
    mark: Option<Mark>,
    path: &Path,
) -> Result<(Log, WriterLoop, Meta), OpenError> {
    let owner = look(&**engine, |view| {
        let cluster = view.get(Column::RaftMeta, b"cluster_id")?.map(|row| record::decode(&row)).transpose()?;
        let node = view.get(Column::RaftMeta, b"node_id")?.map(|row| record::decode(&row)).transpose()?;
        Ok(cluster.zip(node))
    });
    match owner.map_err(at(path))? {
        Some((cluster, node)) => belongs(config, path, cluster, node)?,
        None => claim(config, &**engine).map_err(at(path))?,
    }
    let meta = look(&**engine, |view| machine::check(view)).map_err(at(path))?;
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
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => OpenError::Damaged { path: path.clone(), source },
        _ => OpenError::Io { path: path.clone(), source },
    }
}
