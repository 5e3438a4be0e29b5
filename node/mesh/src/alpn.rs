//! What a connection is for: one ALPN per purpose (RFC 7301), so that one port serves them all.

use std::fmt;

/// A purpose. Ordered, so that maps of connections have one order everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// Between nodes: Raft, forwarded requests, watches, logs, exec.
    Peer,
    /// Between nodes: carried connections, so that bulk shares no window and no lock with heartbeats.
    Data,
    /// From clients, or from nodes as clients.
    Client,
    /// From who is not yet a member.
    Join,
    /// DNS over QUIC (RFC 9250).
    Doq,
}

impl Alpn {
    /// All purposes.
    pub const ALL: [Self; 5] = [Self::Peer, Self::Data, Self::Client, Self::Join, Self::Doq];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "quorate-peer/1",
            Self::Data => "quorate-data/1",
            Self::Client => "quorate-client/1",
            Self::Join => "quorate-join/1",
            Self::Doq => "doq",
        }
    }

    pub(crate) fn from_wire(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.name().as_bytes() == name)
    }
}

impl fmt::Display for Alpn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
