//! A node's data directory: who it is, in files that appear whole or not at all, and a lock so that one process uses it.
//!
//! ```text
//! lock            held while a daemon runs
//! identity.pem    key and certificate (quorate-mesh)
//! cluster.key     what seals the cluster's secrets
//! node.json       name, starts, pod range, the cluster's settings, where peers were
//! restoring/      there while a backup is made into this directory (backup.rs)
//! store/          the Raft group's log and state (quorate-raft)
//! pods/           volumes (quorate-agent)
//! fenced.json     while the store is damaged: why, and the request by which the node begins anew
//! damaged-TIME/   a store that was set aside, and whose it was
//! ```
//!
//! Invariant: the directory is 0700 and its secrets 0600; a node id never leaves its directory. What could be read wrong has a checksum; what
//! is damaged is set aside, never deleted.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use quorate_mesh::{ClusterKey, join::Peer};
use quorate_proto::{
    hello::Epoch,
    ids::{NodeId, RequestId},
    refusal::{Reason, Refusal, chain},
};
use quorate_raft::{Measured, Pace};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use crate::{adoption::Adoption, settings::ClusterSettings};

/// The largest `node.json` that is read, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// Bytes of `cluster.key`: the key, and a checksum.
const KEY_FILE: usize = 36;

/// The field of a JSON file that holds its checksum.
const CHECKSUM: &str = "checksum";

/// What a node remembers of itself between starts. Stored as JSON: fields may be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Its name.
    pub name: String,
    /// How often it was started.
    pub incarnation: u64,
    /// Its part of the pod range.
    pub pod_range: Ipv4Net,
    /// What the cluster agreed on.
    pub cluster: ClusterSettings,
    /// Where the others were last.
    pub peers: Vec<Peer>,
    /// While the cluster is being founded: its sealed secrets, to be put into the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding: Option<Value>,
    /// Whether this node's store was there once: if it is not any more, it was lost.
    #[serde(default)]
    pub has_store: bool,
    /// What the last run measured of disk and network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// How fast elections were in the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Set once the node has left the cluster: it does not start again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// The cluster's epoch: a new one begins when a survivor goes on alone.
    #[serde(default)]
    pub epoch: Epoch,
    /// While this node's store is made a survivor's: the epoch that begins then. The daemon does not start meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovering: Option<Epoch>,
    /// What the store is still to be told of the members that it goes on without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
}

/// A node whose store is of no more use: why, and how it begins anew. Stored as JSON: fields may be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fenced {
    /// What is damaged.
    pub because: String,
    /// The id whose data it was.
    pub node: NodeId,
    /// By which request it asks for another id.
    pub request: RequestId,
    /// When it was noticed (RFC 3339).
    pub since: String,
}

/// The data directory, locked.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub(crate) enum HomeError {
    /// Another process uses it.
    #[error("another daemon uses {}", .0.display())]
    Locked(PathBuf),
    /// A file cannot be read or written.
    #[error("{} cannot be {doing}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// `read`, `written`, `made`, `removed`.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A backup was being restored into it, and that was not finished.
    #[error("a backup was being restored into {}, and that was not finished", .0.display())]
    Restoring(PathBuf),
    /// This node was being made to go on alone, and that was not finished.
    #[error("the cluster was being recovered on {}, and that was not finished", .0.display())]
    Recovering(PathBuf),
    /// A file is not what it should be.
    #[error("{} is damaged: {because}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        because: String,
    },
}

impl HomeError {
    /// The same for a person, with what to do about it.
    #[must_use]
    pub(crate) fn refusal(&self, what: &str) -> Refusal {
        let hint = match self {
            Self::Locked(path) => {
                format!("is `quorate up` running already? if not, choose another --data-dir than {}", path.display())
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on that disk; nothing was changed".to_owned()
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as root, or choose another --data-dir".to_owned()
            }
            Self::File { .. } => "check the disk and --data-dir".to_owned(),
            Self::Restoring(_) => "run the same `quorate backup restore` again: it begins anew".to_owned(),
            Self::Recovering(_) => "run `quorate cluster recover --yes` again: it finishes what was begun".to_owned(),
            Self::Damaged { .. } => "set the data directory aside and join the cluster again as a new node".to_owned(),
        };
        Refusal::new(Reason::Invalid, what, chain(self)).hint(hint)
    }
}

impl Home {
    /// Opens the directory, making it if need be, and locks it.
    ///
    /// # Errors
    /// If it cannot be made or locked, or another process holds it.
    pub(crate) fn open(path: &Path) -> Result<Self, HomeError> {
        let failed = |path: &Path, source| HomeError::File { path: path.to_owned(), doing: "made", source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| failed(path, source))?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&file)
            .map_err(|source| failed(&file, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(HomeError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(&file, source)),
        }
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft group's log and state live.
    #[must_use]
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where pods' volumes live.
    #[must_use]
    pub(crate) fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }

    /// Where a restore is prepared. While it is there without a record, what is in the directory counts for nothing.
    #[must_use]
    pub(crate) fn restoring(&self) -> PathBuf {
        self.path.join("restoring")
    }

    /// What the node remembers of itself, if it may start with that; `None` if it is no member yet.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or something was begun with it that has to be finished first.
    pub(crate) fn startable(&self) -> Result<Option<Record>, HomeError> {
        match self.record()? {
            None if self.restoring().exists() => Err(HomeError::Restoring(self.path.clone())),
            Some(Record { recovering: Some(_), .. }) => Err(HomeError::Recovering(self.path.clone())),
            record => Ok(record),
        }
    }

    /// What the node remembers of itself; `None` if it is no member yet.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub(crate) fn record(&self) -> Result<Option<Record>, HomeError> {
        self.json("node.json")
    }

    /// Forgets the node that lived here, its store included: what it was, it has left to others. The record goes first, so that a
    /// directory that is half cleared is one of no node.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(crate) fn forget(&self) -> Result<(), HomeError> {
        let gone = |path: PathBuf, result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| HomeError::File { path, doing: "removed", source }),
        };
        for name in ["node.json", "identity.pem", "cluster.key", "fenced.json"] {
            let path = self.path.join(name);
            let removed = fs::remove_file(&path);
            gone(path, removed)?;
        }
        let (store, removed) = (self.store(), fs::remove_dir_all(self.store()));
        gone(store, removed)
    }

    /// Remembers it.
    ///
    /// # Errors
    /// If it cannot be written; what was remembered before is then still there.
    pub(crate) fn remember(&self, record: &Record) -> Result<(), HomeError> {
        self.keep_json("node.json", record)
    }

    /// Why this node's store is of no more use, if it was found to be damaged.
    ///
    /// # Errors
    /// If it cannot be read, or is itself damaged.
    pub(crate) fn fenced(&self) -> Result<Option<Fenced>, HomeError> {
        self.json("fenced.json")
    }

    /// Writes down that the store is not to be opened again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn fence(&self, fenced: &Fenced) -> Result<(), HomeError> {
        self.keep_json("fenced.json", fenced)
    }

    /// Sets the damaged store aside, with what says whose it was. Where it is then; `None` if that was done before.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub(crate) fn set_aside(&self, fenced: &Fenced) -> Result<Option<PathBuf>, HomeError> {
        if !self.store().exists() {
            return Ok(None);
        }
        let aside = self.path.join(format!("damaged-{}", fenced.since.replace(':', "-")));
        let moved = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&aside)?;
            fs::copy(self.path.join("fenced.json"), aside.join("fenced.json"))?;
            fs::rename(self.store(), aside.join("store"))?;
            File::open(&aside)?.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        moved().map_err(|source| HomeError::File { path: aside.clone(), doing: "made", source })?;
        Ok(Some(aside))
    }

    /// Forgets that the store was damaged: the node has another one now.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub(crate) fn unfence(&self) -> Result<(), HomeError> {
        let path = self.path.join("fenced.json");
        let removed = fs::remove_file(&path).and_then(|()| File::open(&self.path)?.sync_all());
        removed.map_err(|source| HomeError::File { path, doing: "removed", source })
    }

    /// The cluster key.
    ///
    /// # Errors
    /// If there is none, or it is not what was kept.
    pub(crate) fn cluster_key(&self) -> Result<ClusterKey, HomeError> {
        let path = self.path.join("cluster.key");
        let damaged = |because: &str| HomeError::Damaged { path: path.clone(), because: because.to_owned() };
        let bytes = read(&path, KEY_FILE as u64)?.ok_or_else(|| damaged("it is missing"))?;
        let length = bytes.len();
        let bytes =
            <[u8; KEY_FILE]>::try_from(bytes).map_err(|_| damaged(&format!("it has {length} bytes, of {KEY_FILE}")))?;
        match bytes.split_last_chunk::<4>() {
            Some((key, crc)) if crc32fast::hash(key) == u32::from_be_bytes(*crc) => {
                let key = key.try_into().map_err(|_| damaged("it is no key"))?;
                Ok(ClusterKey::from_bytes(key))
            }
            _ => Err(damaged("its checksum does not fit")),
        }
    }

    /// Keeps the cluster key, and a checksum behind it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn keep_cluster_key(&self, key: &ClusterKey) -> Result<(), HomeError> {
        let crc = crc32fast::hash(key.as_bytes());
        self.write(&self.path.join("cluster.key"), &[key.as_bytes().as_slice(), &crc.to_be_bytes()].concat())
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, HomeError> {
        let path = self.path.join(name);
        let damaged = |because: String| HomeError::Damaged { path: path.clone(), because };
        let Some(bytes) = read(&path, MAX_RECORD)? else { return Ok(None) };
        let mut value: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let kept = value.as_object_mut().and_then(|fields| fields.remove(CHECKSUM));
        if kept.as_ref().and_then(Value::as_str) != Some(&checksum(&value)) {
            return Err(damaged("its checksum does not fit".to_owned()));
        }
        T::deserialize(value).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Keeps a value as a JSON object with a checksum over its other fields, whatever wrote them.
    fn keep_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), HomeError> {
        let path = self.path.join(name);
        let failed = |error: serde_json::Error| HomeError::Damaged { path: path.clone(), because: error.to_string() };
        let mut value = serde_json::to_value(value).map_err(failed)?;
        let checksum = checksum(&value);
        if let Some(fields) = value.as_object_mut() {
            fields.insert(CHECKSUM.to_owned(), checksum.into());
        }
        let bytes = serde_json::to_vec_pretty(&value).map_err(failed)?;
        self.write(&path, &bytes)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.path)?;
            file.as_file().set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| HomeError::File { path: path.to_owned(), doing: "written", source })
    }
}

/// The checksum of a JSON value: fields are sorted, so it does not depend on how it was written.
fn checksum(value: &Value) -> String {
    format!("crc32:{:08x}", crc32fast::hash(value.to_string().as_bytes()))
}

fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, HomeError> {
    let failed = |source| HomeError::File { path: path.to_owned(), doing: "read", source };
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let because = format!("it is larger than {most} bytes");
        return Err(HomeError::Damaged { path: path.to_owned(), because });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use quorate_proto::ids::ClusterId;

    use super::*;

    fn record() -> Record {
        Record {
            name: "n1".to_owned(),
            incarnation: 3,
            pod_range: "10.214.1.0/24".parse().unwrap(),
            cluster: ClusterSettings {
                cluster_id: ClusterId(7),
                service_range: "10.213.0.0/16".parse().unwrap(),
                pod_range: "10.214.0.0/16".parse().unwrap(),
                zone: "cluster.local".to_owned(),
            },
            peers: Vec::new(),
            founding: None,
            has_store: true,
            measured: None,
            pace: None,
            left: false,
            epoch: Epoch::default(),
            recovering: None,
            adoption: None,
        }
    }

    #[test]
    fn what_a_node_remembers_is_there_at_the_next_start_for_nobody_else_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let home = Home::open(&path).unwrap();
        assert_eq!(home.record().unwrap(), None);
        home.remember(&record()).unwrap();
        home.keep_cluster_key(&ClusterKey::from_bytes([7; 32])).unwrap();
        drop(home);

        let home = Home::open(&path).unwrap();
        assert_eq!(home.record().unwrap(), Some(record()));
        assert_eq!(home.cluster_key().unwrap().as_bytes(), &[7; 32]);
        let mode = |name| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("node.json"), mode("cluster.key")], [0o700, 0o600, 0o600]);
    }

    #[test]
    fn a_node_that_is_forgotten_leaves_nothing_of_itself() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        home.forget().unwrap();
        home.remember(&record()).unwrap();
        home.keep_cluster_key(&ClusterKey::from_bytes([7; 32])).unwrap();
        fs::create_dir(home.store()).unwrap();
        fs::write(home.store().join("CURRENT"), "old").unwrap();
        home.forget().unwrap();
        assert_eq!(home.record().unwrap(), None);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Home::open(directory.path()).unwrap();
        let error = Home::open(directory.path()).unwrap_err();
        assert!(error.refusal("the daemon did not start").to_string().contains("another daemon uses"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_told_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        fs::write(directory.path().join("node.json"), "{").unwrap();
        fs::write(directory.path().join("cluster.key"), "short").unwrap();
        assert!(home.record().unwrap_err().to_string().contains("node.json is damaged: EOF"));
        let error = home.cluster_key().unwrap_err().to_string();
        assert!(error.ends_with("cluster.key is damaged: it has 5 bytes, of 36"), "{error}");
    }

    #[test]
    fn a_bit_that_flips_in_any_file_of_the_home_is_noticed_or_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        home.remember(&record()).unwrap();
        home.keep_cluster_key(&ClusterKey::from_bytes([7; 32])).unwrap();
        let mut noticed = 0;
        for name in ["node.json", "cluster.key"] {
            let path = directory.path().join(name);
            let intact = fs::read(&path).unwrap();
            for bit in 0..intact.len() * 8 {
                let mut torn = intact.clone();
                torn[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, torn).unwrap();
                // A space that becomes another one is none that matters.
                let same = match name {
                    "node.json" => home.record().map(|read| read == Some(record())),
                    _ => home.cluster_key().map(|read| read == ClusterKey::from_bytes([7; 32])),
                };
                noticed += u32::from(same.is_err());
                assert!(same.unwrap_or(true), "bit {bit} of {name} was read as something else");
            }
            for length in 0..intact.len() {
                fs::write(&path, &intact[..length]).unwrap();
                let read = if name == "node.json" { home.record().map(drop) } else { home.cluster_key().map(drop) };
                assert!(read.is_err(), "{name} cut at {length}");
            }
            fs::write(&path, intact).unwrap();
        }
        assert!(noticed > 1000, "{noticed}");
    }

    #[test]
    fn a_damaged_store_is_set_aside_once_and_never_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        assert_eq!(home.fenced().unwrap(), None);
        let since = "2027-01-15T08:00:00Z".to_owned();
        let fenced = Fenced { because: "mark is damaged".to_owned(), node: NodeId(3), request: RequestId(5), since };
        home.fence(&fenced).unwrap();
        assert_eq!(home.fenced().unwrap(), Some(fenced.clone()));
        fs::create_dir(home.store()).unwrap();
        fs::write(home.store().join("mark"), "what is left").unwrap();
        let aside = home.set_aside(&fenced).unwrap().unwrap();
        assert!(aside.ends_with("damaged-2027-01-15T08-00-00Z"), "{}", aside.display());
        assert_eq!(fs::read(aside.join("store/mark")).unwrap(), b"what is left");
        assert_eq!(home.set_aside(&fenced).unwrap(), None, "a second time there is nothing to move");
        home.unfence().unwrap();
        assert_eq!(home.fenced().unwrap(), None);
    }
}
