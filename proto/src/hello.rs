//! The first frame each side of a connection between nodes sends: who it is, and how to tell this connection from others.
//!
//! Invariant: who the peer is comes from its certificate; a hello that says otherwise ends the connection.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, NodeId};

/// The most addresses a node tells of itself.
pub const MAX_ADDRESSES: usize = 16;

/// Sent by both sides, the dialling one first. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hello {
    /// Since 0.1; from a node of the first epoch.
    V1(Introduction),
    /// Since 0.1; from a node of any later epoch.
    V2 {
        /// Its epoch.
        epoch: Epoch,
        /// Who it is.
        introduction: Introduction,
    },
}

impl Hello {
    /// The hello of a node of an epoch.
    #[must_use]
    pub fn new(epoch: Epoch, introduction: Introduction) -> Self {
        if epoch == Epoch::default() { Self::V1(introduction) } else { Self::V2 { epoch, introduction } }
    }

    /// What it says.
    #[must_use]
    pub fn into_parts(self) -> (Epoch, Introduction) {
        match self {
            Self::V1(introduction) => (Epoch::default(), introduction),
            Self::V2 { epoch, introduction } => (epoch, introduction),
        }
    }
}

/// An age of a cluster. A new one begins whenever a survivor goes on alone because the quorum was lost for good; nodes of different
/// epochs are of one cluster, and must not agree on anything any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// How many began before; 0 for the one the cluster was founded in.
    pub number: u64,
    /// The node that began it, so that two survivors which both go on alone are told apart; zero in the first.
    pub survivor: NodeId,
}

impl Epoch {
    /// The epoch that this survivor begins.
    #[must_use]
    pub const fn after(self, survivor: NodeId) -> Self {
        Self { number: self.number + 1, survivor }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => formatter.write_str("0"),
            number => write!(formatter, "{number}, begun by node {}", self.survivor),
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Who it is: as in its certificate.
    pub node: NodeId,
    /// Counts its starts, and is stored: a higher one replaces all connections of a lower one.
    pub incarnation: u64,
    /// From the dialling side: this connection's number among all between the two nodes. From the other side: the same number back.
    pub dial: u64,
    /// The version of its binary.
    pub build: String,
    /// Where it may be dialled, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// Where it sees the other side.
    pub seen: SocketAddr,
    /// Its wall clock, in seconds since the Unix epoch: for a warning about clocks that disagree, nothing else.
    pub wall: i64,
}
