//! Why the port could not be opened, and why a peer could not be reached.

use std::{fmt, io, net::SocketAddr};

use quorate_proto::ids::NodeId;
use thiserror::Error;

use crate::identity::IdentityError;

/// Why the port is not open.
#[derive(Debug, Error)]
pub enum PortError {
    /// Something else has it.
    #[error("UDP {listen} is in use: is Quorate running already? Otherwise choose another port")]
    InUse {
        /// The address.
        listen: SocketAddr,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Not allowed.
    #[error("UDP {listen} may not be opened by this user: ports below 1024 need root or CAP_NET_BIND_SERVICE")]
    Permission {
        /// The address.
        listen: SocketAddr,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Not an address of this machine.
    #[error("{} is not an address of this machine: use one of its own, or `[::]` for all", listen.ip())]
    NotOurs {
        /// The address.
        listen: SocketAddr,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("UDP {listen} cannot be opened")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The identity cannot be used.
    #[error("this node's identity cannot be used")]
    Identity(#[from] IdentityError),
}

/// An address that was dialled, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The address, as it was given.
    pub address: String,
    /// Why it did not work.
    pub because: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.address, self.because)
    }
}

/// Shows all that was tried, in the order it was.
pub(crate) fn list(tried: &[Tried]) -> String {
    tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why there is no stream to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeshError {
    /// It is not a member, or not any more.
    #[error("node {0} is not a member of this cluster")]
    NotMember(NodeId),
    /// Nobody told where it is, and it has not called.
    #[error("no address of node {0} is known yet")]
    NoAddress(NodeId),
    /// It does not answer anywhere.
    #[error("node {node} cannot be reached ({})", list(tried))]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Where it was looked for.
        tried: Vec<Tried>,
    },
    /// The purpose is not one between nodes.
    #[error("{0} is not spoken between nodes")]
    Purpose(crate::Alpn),
    /// The mesh is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Says why a connection ended, in words for people.
pub(crate) fn because(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::TimedOut => "no answer".to_owned(),
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!("refused: {}", String::from_utf8_lossy(&close.reason))
        }
        quinn::ConnectionError::ConnectionClosed(close) => {
            format!("refused in the handshake: {}", String::from_utf8_lossy(&close.reason))
        }
        other => other.to_string(),
    }
}
