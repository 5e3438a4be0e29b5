//! Backups as files: what one holds, and a new cluster made from it.
//!
//! ```text
//! DATA/restoring/store     the store, from the backup; while `restoring` is there without a record, the rest counts for nothing
//! DATA/store               by a rename
//! identity, cluster key    new ones: whoever has only the backup cannot pass for a member
//! node.json                comes last; the first start then removes what belonged to the old members (adoption.rs)
//! ```
//!
//! Invariant: a file is read whole, and found whole, before anything is made of it; a restore that was interrupted begins anew.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_proto::{
    ids::ClusterId,
    key::Key,
    refusal::{Reason, Refusal, chain},
    snapshot::Snapshot,
    store,
    world::{Clock, Random},
};
use quorate_raft::backup::{self, Backup, BackupError};

pub use quorate_raft::backup::{Origin, Summary};

pub use crate::adoption::Left;
use crate::{
    addresses,
    adoption::{self, Adoption, Heir},
    daemon::Founded,
    founding::{self, Founding},
    home::{Home, HomeError},
    registration,
    settings::ClusterSettings,
};

/// What is refused.
const NOT_RESTORED: &str = "the backup was not restored";

/// Where a backup is restored to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The data directory of the new cluster's first node: one that holds none.
    pub data: PathBuf,
    /// The node's name.
    pub name: String,
    /// Where it will be reached.
    pub addresses: Vec<SocketAddr>,
}

impl Target {
    /// A directory, and what `quorate up` makes of the same settings: this machine's name and addresses where nothing is said.
    #[must_use]
    pub fn new(data: PathBuf, name: Option<String>, listen: SocketAddr, advertise: &[SocketAddr]) -> Self {
        let name = name.unwrap_or_else(addresses::host_name);
        Self { data, name, addresses: addresses::told(listen, advertise) }
    }
}

/// What a restore comes to.
#[derive(Debug, Clone)]
pub struct Restoration {
    /// What the backup holds.
    pub summary: Summary,
    /// The new cluster; `None` in a dry run.
    pub cluster: Option<ClusterId>,
    /// What of it belonged to the old members.
    pub left: Left,
}

/// Reads a backup to its end, and says what it holds.
///
/// # Errors
/// If it is none, or not whole.
pub fn inspect(source: impl Read, name: &str, what: &str) -> Result<Summary, Refusal> {
    let read = Backup::open(BufReader::new(source)).and_then(|backup| backup.objects(|_, _| {}));
    read.map_err(|error| unusable(&error, name, what))
}

/// Makes a cluster of one node from a backup, or with `dry_run` says what that would come to. `founded` is called once, when the node's
/// files are written, with the way in as an administrator.
///
/// # Errors
/// If the backup is not whole, or the data directory is in use.
pub fn restore(
    file: &Path,
    target: &Target,
    dry_run: bool,
    clock: &dyn Clock,
    random: &Arc<dyn Random>,
    founded: impl FnOnce(Founded) -> Result<(), Refusal>,
) -> Result<Restoration, Refusal> {
    let name = file.display().to_string();
    let unusable = |error: &BackupError| unusable(error, &name, NOT_RESTORED);
    let mut source = open(file)?;
    let (summary, snapshot) = load(&source).map_err(|error| match error {
        LoadError::Backup(error) => unusable(&error),
        LoadError::Object(because) => refuse(Reason::Invalid, format!("{name}: {because}")),
    })?;
    registration::check_name(&target.name)?;
    let old = ClusterSettings::read(&snapshot)
        .ok_or_else(|| refuse(Reason::Invalid, format!("{name}: its state has no record of a cluster")))?;
    let settings = ClusterSettings { cluster_id: ClusterId(random.id()), ..old };
    let Founding { identity, key, mut record, administrator } =
        founding::make(settings, &target.name, random, clock.wall())
            .map_err(|error| refuse(Reason::Invalid, chain(&error)))?;
    let adoption = Adoption::Restored { secrets: record.founding.take().unwrap_or_default() };
    let heir = Heir { settings: &record.cluster, node: identity.node, name: &target.name, adoption: &adoption };
    let left = adoption::left(&snapshot, &heir);
    if dry_run {
        free(&target.data)?;
        return Ok(Restoration { summary, cluster: None, left });
    }

    let home = Home::open(&target.data).map_err(|error| not_restored(&error))?;
    free(&target.data)?;
    let place = home.restoring();
    let failed = |path: &Path, error: &io::Error| {
        refuse(Reason::Internal, format!("{}: {error}", path.display())).hint("check the disk, and run it again")
    };
    begin(&home).map_err(|error| failed(&place, &error))?;
    source.rewind().map_err(|error| failed(file, &error))?;
    let again = Backup::open(BufReader::new(&source)).map_err(|error| unusable(&error))?;
    let cluster = record.cluster.cluster_id;
    let made = backup::restore(again, &place.join("store"), cluster, identity.node);
    if made.map_err(|error| refuse(Reason::Internal, chain(&error)))? != summary {
        return Err(refuse(Reason::Conflict, format!("{name} was changed while it was read")));
    }
    fs::rename(place.join("store"), home.store())
        .and_then(|()| File::open(home.path())?.sync_all())
        .map_err(|error| failed(&place, &error))?;
    identity.store(home.path()).map_err(|error| refuse(Reason::Internal, chain(&error)))?;
    home.keep_cluster_key(&key).map_err(|error| not_restored(&error))?;
    record.adoption = Some(adoption);
    home.remember(&record).map_err(|error| not_restored(&error))?;
    fs::remove_dir_all(&place).map_err(|error| failed(&place, &error))?;
    founded(Founded { cluster, endpoints: target.addresses.clone(), administrator })?;
    Ok(Restoration { summary, cluster: Some(cluster), left })
}

fn open(file: &Path) -> Result<File, Refusal> {
    File::open(file).map_err(|error| refuse(Reason::NotFound, format!("{}: {error}", file.display())))
}

enum LoadError {
    Backup(BackupError),
    Object(String),
}

/// Reads all objects into memory, where every node has them anyway.
fn load(source: &File) -> Result<(Summary, Snapshot), LoadError> {
    let mut rows = Vec::new();
    let backup = Backup::open(BufReader::new(source)).map_err(LoadError::Backup)?;
    let object = |key: &Key| !store::is_users(key);
    let summary = backup.objects(|key, versioned| rows.extend(object(&key).then_some((key, versioned))));
    let summary = summary.map_err(LoadError::Backup)?;
    let snapshot = Snapshot::load(summary.origin.revision, rows).map_err(|error| LoadError::Object(chain(&error)))?;
    Ok((summary, snapshot))
}

/// Refuses a data directory that holds a node, or anything that might be of one.
fn free(data: &Path) -> Result<(), Refusal> {
    let hint = "choose another --data-dir, or set this one aside";
    if data.join("node.json").exists() {
        return Err(refuse(Reason::Conflict, format!("{} holds a node", data.display())).hint(hint));
    }
    let unfinished = data.join("restoring").exists();
    if !unfinished && data.join("store").exists() {
        let because = format!("{} holds a store, although no node", data.display());
        return Err(refuse(Reason::Conflict, because).hint(hint));
    }
    Ok(())
}

/// Removes what an interrupted restore left, and says that one begins.
fn begin(home: &Home) -> io::Result<()> {
    for left in [home.restoring().join("store"), home.store()] {
        match fs::remove_dir_all(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir_all(home.restoring())?;
    File::open(home.path())?.sync_all()
}

fn refuse(reason: Reason, because: impl Into<String>) -> Refusal {
    Refusal::new(reason, NOT_RESTORED, because)
}

fn not_restored(error: &HomeError) -> Refusal {
    error.refusal(NOT_RESTORED)
}

fn unusable(error: &BackupError, name: &str, what: &str) -> Refusal {
    let hint = match error {
        BackupError::Io(_) => "check the file and the disk it is on",
        BackupError::Foreign => "`quorate backup save FILE` makes one",
        BackupError::Version(_) => "use a version of quorate that knows it: `quorate --version`",
        _ => "use another copy, or an older backup",
    };
    Refusal::new(Reason::Invalid, what, format!("{name}: {}", chain(error))).hint(hint)
}

#[cfg(test)]
mod tests;
