//! The arguments of `quorate dev`.
//!
//! Invariant: what only one of the two kinds of cluster has, real hosts or simulated ones, is refused for the other.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;

#[derive(Debug, Subcommand)]
pub(crate) enum Dev {
    /// Make the cluster, or what is missing of it
    Up(DevUp),
    /// Remove all of it
    Down(DevWhich),
    /// Show hosts, processes, addresses, leader, memory
    Status(DevWhich),
    /// Load image archives (docker save) into every host's Docker Engine
    Load {
        /// The archives
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
    },
    /// Cut a host's power: daemon, Docker Engine and containers end at once
    Kill {
        #[command(flatten)]
        which: DevWhich,
        /// The host: n1, n2 ...
        host: String,
    },
    /// Switch a host on again
    Start {
        #[command(flatten)]
        which: DevWhich,
        /// The host: n1, n2 ...
        host: String,
    },
    /// Run a command on a host
    Exec {
        /// The host: n1, n2 ...
        host: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevUp {
    /// How many hosts [default: 3, or as many as there are]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) nodes: Option<u8>,
    #[command(flatten)]
    pub(crate) which: DevWhich,
    /// The hosts' network, a /24 no route of this machine leads to
    #[arg(long, value_name = "CIDR", default_value = "10.99.0.0/24", conflicts_with = "simulated")]
    pub(crate) range: Ipv4Net,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevWhich {
    /// The one on loopback with simulated pods, without root and Docker Engine
    #[arg(long)]
    pub(crate) simulated: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DevInit {
    /// The host's name
    pub(crate) host: String,
}
