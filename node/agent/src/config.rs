//! What the agent must know about its node before it starts.
//!
//! Invariant: nothing here changes while the agent runs; what may change comes with the snapshot.

use std::{net::Ipv4Addr, time::Duration};

use quorate_proto::ids::ClusterId;

/// Which node this is, and how its pods see the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The cluster. Containers of other clusters are never touched.
    pub cluster: ClusterId,
    /// The node's name: only pods whose `spec.nodeName` is this are run.
    pub node: String,
    /// The node's own address: `status.hostIP`, and the address of pods with `hostNetwork`.
    pub host_address: Ipv4Addr,
    /// Where the cluster's names are resolved: the pods' only name server.
    pub dns: Ipv4Addr,
    /// The cluster zone, for example `cluster.local`.
    pub zone: String,
    /// How long a ready pod that is to be deleted is left alone at most, until every node's routes have forgotten it. Counts within its
    /// grace period, and takes no more than half of it.
    pub drain: Duration,
    /// The most containers that are started at the same time.
    pub parallel_starts: usize,
}

impl Config {
    /// Nodes that hear each other say within milliseconds that they have forgotten a pod; one that died a moment ago never does.
    pub const DRAIN: Duration = Duration::from_secs(5);

    /// Half again as many starts as cores keep the engine busy; more only make each one wait longer (measured on Docker 20.10).
    #[must_use]
    pub const fn parallel_starts(cores: usize) -> usize {
        let starts = cores.saturating_mul(3) / 2;
        if starts == 0 { 1 } else { starts }
    }
}
