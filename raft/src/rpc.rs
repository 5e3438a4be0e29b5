//! What stores say to each other, and its bytes.
//!
//! Invariant: variants are only ever added at the end. An error of openraft's never crosses the wire, only our own few.

use bytes::Bytes;
use quorate_proto::{
    ids::NodeId,
    lease::LeaseId,
    txn::{CommandOutcome, Revision},
    wire::{self, WireError, cap},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::record::{Entry, LogId, Vote};

/// Asked of a node by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Entries, or none: a heartbeat. Answer: `Appended`.
    Append(Append),
    /// Asks for a vote. Answer: `Voted`.
    Vote(Ballot),
    /// Asks whether a vote would be given. Answer: `Voted`.
    PreVote(Ballot),
    /// The leader hands over. Answer: `Transferred`.
    Transfer { from: Vote, to: NodeId, last: Option<LogId> },
    /// Announces a snapshot, or asks how much of it has arrived. Answer: `Have`.
    Snapshot(SnapshotId),
    /// One block of an announced snapshot. Answer: `Have`.
    Block { snapshot: SnapshotId, index: u64, crc: u32, bytes: Bytes },
    /// All blocks have arrived: install. Answer: `Installed`.
    Install { snapshot: SnapshotId, vote: Vote },
    /// The envelope of a `proto::txn::Command`, for the leader. Answer: `Outcome`.
    Propose(Bytes),
    /// Up to which entry a read must have applied, for the leader. Answer: `ReadAt`.
    ReadIndex,
    /// Several commands, for the leader. Answer: `All`, or one refusal for all of them.
    ProposeAll(Vec<Bytes>),
    /// How long a lease has left, for the leader; kept alive first, if that is asked for. Answer: `Lease`.
    Lease { lease: LeaseId, keep_alive: bool },
    /// The hash of the state at a revision. Answer: `Hash`.
    Hash(Revision),
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Appended(Appended),
    Voted {
        vote: Vote,
        granted: bool,
        last: Option<LogId>,
    },
    Transferred(bool),
    /// So many blocks have arrived, without a gap.
    Have(u64),
    Installed(Vote),
    Outcome(CommandOutcome),
    ReadAt(LogId),
    Refused(Refused),
    /// To each command what it would have been answered alone, in their order. No answer holds another: the stack is no frame's to use up.
    All(Vec<Result<CommandOutcome, Refused>>),
    /// `None`: there is no such lease.
    Lease(Option<Left>),
    /// `None`: the revision is not reached, or too long ago.
    Hash(Option<u32>),
}

impl From<Result<CommandOutcome, Refused>> for Answer {
    fn from(answered: Result<CommandOutcome, Refused>) -> Self {
        match answered {
            Ok(outcome) => Self::Outcome(outcome),
            Err(refused) => Self::Refused(refused),
        }
    }
}

/// What a lease has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) ttl_seconds: u64,
    pub(crate) remaining_millis: u64,
}

/// Why a node does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refused {
    /// The caller does not belong to the cluster, as far as this node knows.
    Stranger,
    /// Not the leader; nothing was done.
    NotLeader(Option<NodeId>),
    /// It may have been done, or may yet be.
    Unknown,
    /// The store stops, or has failed.
    Stopped,
    /// Not understood, or beyond a limit.
    Malformed(String),
    /// The disk has so little room, in bytes, that this is not written. Nothing was done.
    Full(u64),
}

/// Entries that follow `previous`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) previous: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) committed: Option<LogId>,
}

impl Append {
    /// Whether the entries follow on what is before them, and on each other: what is read from a log that is cut meanwhile does not.
    pub(crate) fn is_whole(&self) -> bool {
        let first = self.previous.map_or(0, |id| id.index + 1);
        (first..).zip(&self.entries).all(|(index, entry)| entry.id.index == index)
    }
}

/// What became of entries: on the way of a pipe, one for each [`Append`], in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Appended {
    /// Durable up to here.
    Upto(Option<LogId>),
    /// The log differs at this entry.
    Conflict(Option<LogId>),
    /// There is a newer vote.
    HigherVote(Vote),
    /// The caller is refused, or the store has stopped.
    Refused(Refused),
}

/// A candidate and how far its log reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
    /// The leader itself asked for this election.
    pub(crate) transfer: bool,
}

/// Tells snapshots apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotId {
    pub(crate) last: Option<LogId>,
    pub(crate) digest: u32,
    pub(crate) blocks: u64,
}

/// Writes a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, WireError> {
    wire::encode(message, cap::APPEND)
}

/// Reads a message.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    wire::decode(bytes, cap::APPEND)
}
