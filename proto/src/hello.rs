//! The first frame each side of a connection between nodes sends: who it is, and how to tell this connection from others.
//!
//! Invariant: who the peer is comes from its certificate; a hello that says otherwise ends the connection.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, NodeId};

/// The most addresses a node tells of itself.
pub const MAX_ADDRESSES: usize = 16;

/// Sent by both sides, the dialling one first. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hello {
    /// Since 0.1.
    V1(Introduction),
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
