//! Makes the store of a new cluster from a backup.
//!
//! Invariant: only a directory that holds nothing is written to. What is there after an error is of no use, and to be removed.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use quorate_proto::ids::{ClusterId, NodeId};
use thiserror::Error;

use super::{Backup, BackupError, Summary};
use crate::{
    alone,
    columns::Column,
    config::{Config, Timing},
    engine::{Batch, look},
    machine,
    open::{self, OpenError, Opened, Storage},
    record::{LogId, Vote},
};

/// Why a backup was not made into a store.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error("the backup cannot be used")]
    Backup(#[from] BackupError),
    /// There is something already.
    #[error("{} is not empty", .0.display())]
    Occupied(PathBuf),
    /// The store cannot be written.
    #[error("the store cannot be made")]
    Store(#[from] OpenError),
}

/// Makes a store of one node, in a new cluster, whose state is the backup's: the same revision, the same hash.
///
/// `directory` is made; it may exist if it is empty. Blocks the thread until all is durable.
///
/// # Errors
/// If the backup is damaged, or the directory cannot be used.
pub fn restore<R: Read>(
    backup: Backup<R>,
    directory: &Path,
    cluster: ClusterId,
    node: NodeId,
) -> Result<Summary, RestoreError> {
    let failed = |source| OpenError::Io { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    if fs::read_dir(directory).map_err(failed)?.next().is_some() {
        return Err(RestoreError::Occupied(directory.to_owned()));
    }
    // The timing is of no importance: nothing runs.
    let config = Config::new(cluster, node, Timing::CAREFUL);
    let Opened { engine, log, writer, .. } = open::open(&config, Storage::Disk(directory.to_owned()))?;
    drop((log, writer));
    // The state counts as the work of one entry: the second, as founding a cluster takes two.
    let (last, vote) = (LogId { term: 1, node, index: 1 }, Vote { term: 1, node, committed: false });
    let mut meta = Batch::default();
    for (name, row) in backup.meta.clone() {
        meta.put(Column::StateMeta, name, row);
    }
    alone::rows(&mut meta, node, last, vote).map_err(failed)?;
    let mut meta = Some(meta);
    let made = backup.rows(|rows, tally| {
        let mut counted = rows.map(|row| {
            let row = row?;
            tally.object(&row)?;
            Ok(row)
        });
        engine.replace(&mut counted, meta.take().unwrap_or_default())?;
        // A state that would not open is no backup either.
        look(&*engine, |view| machine::check(view)).map(drop)
    });
    engine.close();
    Ok(made?)
}
