//! The arguments of `quorate backup` and `quorate cluster recover`.
//!
//! Invariant: as in `args.rs`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Save the whole state of the cluster, secrets included, while it runs
    Save {
        /// The file, or - for standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
        /// Take what the asked node has, also when there is no quorum
        #[arg(long)]
        stale: bool,
    },
    /// Read a backup whole, and show what it holds; needs no cluster
    Inspect {
        /// The file, or - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a new cluster of one node on this machine from a backup
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Read and check everything, show what it would come to, write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where the node will keep its state; must hold none
    #[arg(long, value_name = "DIR", default_value = "/var/lib/quorate")]
    pub(crate) data_dir: PathBuf,
    /// The one port, UDP, as `quorate up` will be given it
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// Where other nodes will reach this one, if not at the addresses of this machine; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) advertise: Vec<SocketAddr>,
    /// The node's name [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Where the node keeps its state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/quorate")]
    pub(crate) data_dir: PathBuf,
    /// What is kept of the log
    #[arg(long, value_enum, default_value_t = Cut::Last)]
    pub(crate) cut: Cut,
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What is kept of a survivor's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// All of it, also what nobody had acknowledged yet
    Last,
    /// Only what is in the state: some of what was acknowledged last may be lost
    Applied,
}
