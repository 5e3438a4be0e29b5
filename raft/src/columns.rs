//! The one list of column families and how their keys are written.
//!
//! | column | key | value |
//! |---|---|---|
//! | `raft_log` | index, big endian | checksum and entry |
//! | `raft_meta` | `vote`, `purged`, `committed`, `node_id`, `cluster_id` | own structs |
//! | `sm_meta` | `applied` …, see `machine/meta.rs`; `generation` | own structs, in every batch of the state |
//! | `kv_cur` | key | row: the present |
//! | `kv_hist` | escaped key, then the revision inverted | row or tombstone: reads at an older revision |
//! | `kv_rev` | revision, operation, both big endian | key: replay for watches, cheap deletion when compacting |
//! | `lease` | lease id; lease id and key | see `machine/leases.rs`; nothing: one row for each attached key |
//! | `dedup` | place in the order of applying | requests and outcomes from that place on |
//!
//! Invariant: whatever belongs to the state machine is in [`Column::STATE`] or `sm_meta`; snapshots carry exactly those.

use quorate_proto::{ids::RequestId, txn::Revision};

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    RaftLog,
    RaftMeta,
    StateMeta,
    Current,
    History,
    Revisions,
    Lease,
    Dedup,
}

impl Column {
    /// Every column.
    pub(crate) const ALL: [Self; 8] = [
        Self::RaftLog,
        Self::RaftMeta,
        Self::StateMeta,
        Self::Current,
        Self::History,
        Self::Revisions,
        Self::Lease,
        Self::Dedup,
    ];

    /// The columns that a Raft snapshot replaces as a whole.
    pub(crate) const STATE: [Self; 5] = [Self::Current, Self::History, Self::Revisions, Self::Lease, Self::Dedup];

    /// The name on disk.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RaftLog => "raft_log",
            Self::RaftMeta => "raft_meta",
            Self::StateMeta => "sm_meta",
            Self::Current => "kv_cur",
            Self::History => "kv_hist",
            Self::Revisions => "kv_rev",
            Self::Lease => "lease",
            Self::Dedup => "dedup",
        }
    }

    /// The number a snapshot writes for it. Never reused.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// The column of a number in a snapshot.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.number() == number)
    }
}

/// A key of `raft_log`.
pub(crate) fn log_key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

/// Reads a key of `raft_log`.
pub(crate) fn log_index(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// A key of `kv_hist`: newest first. User keys are escaped so that none is the beginning of another: a zero byte becomes `00 ff`, and
/// `00 00` ends the key.
pub(crate) fn history_key(key: &str, revision: Revision) -> Vec<u8> {
    let mut bytes = history_start(key);
    bytes.extend([0, 0]);
    bytes.extend((!revision.0).to_be_bytes());
    bytes
}

/// Where in `kv_hist` the versions of all keys from a text on begin.
pub(crate) fn history_start(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 10);
    for byte in text.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes
}

/// Reads a key of `kv_hist`: the escaped user key and the revision.
pub(crate) fn version_of(key: &[u8]) -> Option<(&[u8], Revision)> {
    let (name, revision) = key.split_last_chunk::<8>()?;
    Some((name.strip_suffix(&[0, 0])?, Revision(!u64::from_be_bytes(*revision))))
}

/// A user key as it was before it was escaped; `None` if it was not escaped so.
pub(crate) fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(byte) = rest.next() {
        bytes.push(*byte);
        if *byte == 0 && rest.next() != Some(&0xff) {
            return None;
        }
    }
    Some(bytes)
}

/// A key of `kv_rev`.
pub(crate) fn revision_key(revision: Revision, operation: u32) -> Vec<u8> {
    let mut bytes = revision.0.to_be_bytes().to_vec();
    bytes.extend(operation.to_be_bytes());
    bytes
}

/// Reads a key of `kv_rev`.
pub(crate) fn revision_of(key: &[u8]) -> Option<(Revision, u32)> {
    let (revision, operation) = key.split_first_chunk::<8>()?;
    Some((Revision(u64::from_be_bytes(*revision)), u32::from_be_bytes(operation.try_into().ok()?)))
}

/// The key of a row of answers in `dedup`: the place of the first.
pub(crate) fn answers_key(first: u64) -> Vec<u8> {
    let mut bytes = vec![b'a'];
    bytes.extend(first.to_be_bytes());
    bytes
}

/// Reads the key of a row of answers.
pub(crate) fn answers_of(key: &[u8]) -> Option<u64> {
    key.strip_prefix(b"a")?.try_into().ok().map(u64::from_be_bytes)
}

/// The key of an answer in `dedup`, in the first format.
pub(crate) fn request_key(request: RequestId) -> Vec<u8> {
    let mut bytes = vec![b'r'];
    bytes.extend(request.0.to_be_bytes());
    bytes
}

/// The key of a request's place in the order of applying, in `dedup`, in the first format.
pub(crate) fn place_key(place: u64) -> Vec<u8> {
    let mut bytes = vec![b'o'];
    bytes.extend(place.to_be_bytes());
    bytes
}

/// The first key that does not begin with `prefix`; `None` if there is no such key.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_listed_once_and_keeps_its_number() {
        let numbers: Vec<u8> = Column::ALL.into_iter().map(Column::number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
        let raft = [Column::RaftLog, Column::RaftMeta, Column::StateMeta];
        assert_eq!(Column::ALL.len(), Column::STATE.len() + raft.len());
    }

    #[test]
    fn versions_of_a_key_are_adjacent_and_newest_first() {
        let mut keys = vec![
            history_key("/a", Revision(2)),
            history_key("/a\0b", Revision(9)),
            history_key("/a", Revision(1)),
            history_key("/ab", Revision(5)),
        ];
        keys.sort();
        let expected = [("/a", 2), ("/a", 1), ("/a\0b", 9), ("/ab", 5)];
        assert_eq!(keys, expected.map(|(key, revision)| history_key(key, Revision(revision))));
    }

    #[test]
    fn a_version_gives_back_its_key_and_its_revision() {
        for key in ["/a", "/a\0b", "\0\0", ""] {
            let stored = history_key(key, Revision(300));
            let (name, revision) = version_of(&stored).unwrap();
            assert_eq!((unescape(name), revision), (Some(key.as_bytes().to_vec()), Revision(300)));
        }
        assert_eq!(version_of(b"short"), None);
        assert_eq!(unescape(&[b'a', 0, 1]), None, "an escape that is none");
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(end_of(b"/a"), Some(b"/b".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), None);
        assert_eq!(end_of(b""), None);
    }
}
