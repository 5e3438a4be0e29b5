//! The cluster at a glance: who belongs to it, who leads and votes, what may be lost now, and what is about to change.
//!
//! Sent as JSON, so that fields may be added. What only the leader knows is missing from what another node tells by itself.
//!
//! Invariant: whatever is not known is absent, never zero.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClusterId, NodeId},
    txn::Revision,
};

/// The answer to [`crate::request::Request::Overview`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The cluster.
    pub cluster: ClusterId,
    /// The name of the node that answers.
    pub answered: String,
    /// What this node is to the cluster.
    pub standing: Standing,
    /// The leader's name, as far as the node knows.
    pub leader: Option<String>,
    /// The Raft term.
    pub term: u64,
    /// The revision the node has applied.
    pub revision: Revision,
    /// Whether pods are simulated.
    pub simulated: bool,
    /// All members of the Raft group, by name.
    pub members: Vec<OverviewMember>,
    /// How many voters may be lost now, whichever they are, without stopping writes.
    pub tolerates: Option<usize>,
    /// The same in a sentence.
    pub tolerance: Option<String>,
    /// The next change of the membership, and why.
    pub next: Option<String>,
    /// What waits, and for what: a sentence each.
    #[serde(default)]
    pub waits: Vec<String>,
    /// What somebody has to do something about, of the node that answers and of the leader: a sentence each.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// How fast elections are on the node that answers.
    pub elections: Option<Elections>,
    /// Why what only the leader knows is missing.
    pub problem: Option<String>,
}

/// How fast elections are, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Elections {
    /// Between two heartbeats of a leader.
    pub heartbeat: u64,
    /// The shortest time without one before a node stands for election.
    pub shortest: u64,
    /// The longest.
    pub longest: u64,
}

/// What a node is to its cluster, as it knows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It belongs to it.
    Member,
    /// It was asked to leave, and does.
    Leaving,
    /// It has left.
    Left,
    /// It was deleted while it lived: the others do not talk with it any more.
    Removed,
}

/// What a member does in the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Leads, and votes.
    Leader,
    /// Votes.
    Voter,
    /// Receives the log, without a vote.
    Learner,
}

/// A member of the Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverviewMember {
    /// Its name; without a node object, its id.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// What it does.
    pub role: Role,
    /// Its node's `Ready` condition: `True`, `False` or `Unknown`.
    pub ready: Option<String>,
    /// Whether it was asked to leave.
    #[serde(default)]
    pub leaving: bool,
    /// By how many entries its log is behind the leader's.
    pub lag: Option<u64>,
    /// How long ago the leader last heard it, in milliseconds.
    pub heard_millis: Option<u64>,
    /// How long entries take of late until they are on its disk, as the leader sees it, in milliseconds.
    pub disk_millis: Option<u64>,
    /// Its zone.
    pub zone: Option<String>,
    /// The version of its binary.
    pub version: Option<String>,
}

impl std::fmt::Display for Role {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Learner => "learner",
        })
    }
}
