//! What carrying connections needs to know, and its bounds.

use std::{net::SocketAddrV4, time::Duration};

use ipnet::Ipv4Net;

/// What carrying connections needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name, as endpoints have it.
    pub node: String,
    /// The addresses that may be services'. Services with other addresses are not listened for.
    pub service_range: Ipv4Net,
    /// Service addresses and ports that other parts of this node listen on: where names are answered, where the API is.
    pub reserved: Vec<SocketAddrV4>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what clients and other nodes can make us hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once through one service port; beyond, new ones are reset.
    pub connections_per_service: usize,
    /// UDP sessions at once through one service port; beyond, datagrams of new ones are dropped.
    pub sessions_per_service: usize,
    /// Streams one other node may have open here; beyond, new ones are refused.
    pub streams_per_peer: usize,
    /// How many endpoints are tried for one connection.
    pub attempts: usize,
    /// How long one endpoint may take to accept.
    pub dial: Duration,
    /// How long a connection may carry nothing either way. It ends between once and twice this.
    pub idle: Duration,
    /// The same for a UDP session.
    pub session_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_service: 8192,
            sessions_per_service: 1024,
            streams_per_peer: 4096,
            attempts: 3,
            dial: Duration::from_secs(2),
            idle: Duration::from_secs(3600),
            session_idle: Duration::from_secs(30),
        }
    }
}
