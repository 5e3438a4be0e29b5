//! The types openraft is told to use.
//!
//! Nothing here is written to disk or sent: `record.rs` has our own types for that, since openraft's serde output is no stable format.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias;
use quorate_proto::{ids::NodeId, txn::CommandOutcome};
use serde::{Deserialize, Serialize};

pub(crate) use crate::runtime::Runtime;

openraft::declare_raft_types!(
    /// Membership carries no addresses: those are soft state, learnt and re-learnt (D5). Random numbers come from one seed, so that a
    /// simulated run repeats.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = NodeId,
        Node = openraft::EmptyNode,
        AsyncRuntime = Runtime,
);

pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type LeaderId = alias::LeaderIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Payload = alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, openraft::EmptyNode>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotFile>;

/// A command as the log carries it: its envelope, encoded once by whoever proposed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a command of {} bytes", self.0.len())
    }
}

/// What applying an entry answers: an outcome for a command, nothing for what Raft writes for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply(pub(crate) Option<CommandOutcome>);
