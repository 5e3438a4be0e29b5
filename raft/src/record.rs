//! What this crate stores and sends about agreement, in types of its own, and their conversions from and to openraft's.
//!
//! Each is kept inside an envelope of `proto::wire`, behind its version byte.
//!
//! Invariant: fields and variants are only ever added at the end, as new variants; a value survives the way there and back unchanged.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EmptyNode;
use quorate_proto::{
    ids::NodeId,
    wire::{self, WireError, cap},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::types::{self, Payload, Proposal};

/// Where an entry is in the log, and who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogId {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) index: u64,
}

/// A vote: for whom, in which term, and whether a majority gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) committed: bool,
}

/// Who votes, and who belongs to the cluster at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// One set, or two while voters change.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    /// Voters and learners.
    pub(crate) members: BTreeSet<NodeId>,
}

/// A membership and the entry that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembership {
    pub(crate) log: Option<LogId>,
    pub(crate) membership: Membership,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: LogId,
    pub(crate) body: Body,
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// A new leader's first entry.
    Blank,
    /// The envelope of a `proto::txn::Command`.
    Command(Bytes),
    /// A change of membership.
    Membership(Membership),
}

impl From<types::LogId> for LogId {
    fn from(id: types::LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> Self {
        Self::new(types::LeaderId { term: id.term, node_id: id.node }, id.index)
    }
}

impl From<types::Vote> for Vote {
    fn from(vote: types::Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        Self { leader_id: types::LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
    }
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(node, _)| *node).collect(),
        }
    }
}

impl Membership {
    pub(crate) fn restore(self) -> io::Result<types::Membership> {
        let nodes: BTreeMap<NodeId, EmptyNode> = self.members.into_iter().map(|node| (node, EmptyNode {})).collect();
        types::Membership::new(self.voters, nodes)
            .map_err(|error| damaged(format!("a membership that cannot be: {error}")))
    }
}

impl From<&types::StoredMembership> for StoredMembership {
    fn from(stored: &types::StoredMembership) -> Self {
        Self { log: stored.log_id().map(LogId::from), membership: stored.membership().into() }
    }
}

impl StoredMembership {
    pub(crate) fn restore(self) -> io::Result<types::StoredMembership> {
        Ok(types::StoredMembership::new(self.log.map(types::LogId::from), self.membership.restore()?))
    }
}

impl From<&types::Entry> for Entry {
    fn from(entry: &types::Entry) -> Self {
        let body = match &entry.payload {
            Payload::Blank => Body::Blank,
            Payload::Normal(Proposal(command)) => Body::Command(command.clone()),
            Payload::Membership(membership) => Body::Membership(membership.into()),
        };
        Self { id: entry.log_id.into(), body }
    }
}

impl Entry {
    pub(crate) fn restore(self) -> io::Result<types::Entry> {
        let payload = match self.body {
            Body::Blank => Payload::Blank,
            Body::Command(command) => Payload::Normal(Proposal(command)),
            Body::Membership(membership) => Payload::Membership(membership.restore()?),
        };
        Ok(types::Entry { log_id: self.id.into(), payload })
    }
}

/// Writes a row: its envelope.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Bytes> {
    wire::encode(value, cap::APPEND).map_err(io::Error::other)
}

/// Reads a row. One of a version that is not known here is `Unsupported`; whatever else cannot be read is damaged.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    wire::decode(bytes, cap::APPEND).map_err(|error| match error {
        WireError::Version(_) => io::Error::new(io::ErrorKind::Unsupported, error),
        _ => damaged(error.to_string()),
    })
}

/// Reads a command of the log. Its checksum has held, so one that is not understood was written by a newer version.
pub(crate) fn command<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    wire::decode(bytes, cap::APPEND).map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))
}

/// Writes a row behind a checksum: `crc32 (big endian) | envelope`.
pub(crate) fn seal<T: Serialize>(value: &T) -> io::Result<Bytes> {
    let body = encode(value)?;
    let mut row = BytesMut::with_capacity(body.len() + 4);
    row.put_u32(crc32fast::hash(&body));
    row.extend_from_slice(&body);
    Ok(row.freeze())
}

/// Reads a row behind a checksum.
pub(crate) fn unseal<T: DeserializeOwned>(row: &[u8]) -> io::Result<T> {
    match row.split_first_chunk::<4>() {
        Some((crc, body)) if crc32fast::hash(body) == u32::from_be_bytes(*crc) => decode(body),
        Some(_) => Err(damaged("its checksum does not fit".to_owned())),
        None => Err(damaged("it is too short for a checksum".to_owned())),
    }
}

/// Stored bytes that are not what was written.
pub(crate) fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, node: NodeId(7), index }
    }

    #[test]
    fn an_entry_survives_the_way_to_disk_and_back() {
        let membership =
            Membership { voters: vec![[NodeId(1)].into(), [NodeId(2)].into()], members: [NodeId(1), NodeId(2)].into() };
        for body in [Body::Blank, Body::Command(Bytes::from_static(b"x")), Body::Membership(membership)] {
            let entry = Entry { id: id(3, 9), body };
            let read: Entry = unseal(&seal(&entry).unwrap()).unwrap();
            assert_eq!(Entry::from(&read.clone().restore().unwrap()), entry);
            assert_eq!(read, entry);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let row = seal(&Entry { id: id(1, 2), body: Body::Command(Bytes::from_static(b"hello")) }).unwrap();
        for bit in 0..row.len() * 8 {
            let mut torn = row.to_vec();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal::<Entry>(&torn).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn log_ids_compare_as_raft_compares_them() {
        assert!(id(2, 1) > id(1, 9) && id(1, 2) > id(1, 1));
    }
}
