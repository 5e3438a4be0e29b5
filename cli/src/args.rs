//! The command line: every verb, its arguments, their defaults and their help.
//!
//! Words and flags are `kubectl`'s where it has them, so that fingers need not learn anew.
//!
//! Invariant: nothing here acts; what was typed is turned into values, and what makes no sense is refused with exit code 2.

mod backup;
mod dev;
mod values;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::Ipv4Net;

pub(crate) use self::backup::{Backup, Cut, Recover, Restore};
pub(crate) use self::dev::{Dev, DevInit, DevUp, DevWhich};
use self::values::{duration, endpoint};

/// Where service addresses come from, if nothing is said.
pub(crate) const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);

/// Where pod addresses come from, if nothing is said.
pub(crate) const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 214, 0, 0), 16);

/// Runs containers on a group of equal machines, without masters.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, max_term_width = 120, propagate_version = false, subcommand_required = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How to reach the cluster; good for every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The context to use, instead of the current one
    #[arg(long, global = true, value_name = "NAME", env = "QUORATE_CONTEXT", hide_env = true)]
    pub(crate) context: Option<String>,
    /// Ask this node, HOST:PORT or unix:///SOCKET, instead of those the context names; may be repeated
    #[arg(long, global = true, value_name = "NODE", value_parser = endpoint)]
    pub(crate) endpoint: Vec<String>,
    /// The namespace [default: the context's, or else `default`]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How long to wait for an answer: 500ms, 30s, 5m
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) request_timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Found a cluster on this machine, or start its node again
    Up(Up),
    /// Make this machine a node of a cluster
    Join(Join),
    /// Make, list and revoke the tokens with which nodes join
    #[command(subcommand)]
    Token(Token),
    /// Create or change objects to be as their manifests say
    Apply(Apply),
    /// Say of manifests what is done with each field, and what is wrong with them, without a cluster
    Check(Check),
    /// Show objects
    Get(Get),
    /// Show objects with all that matters about them, and their events
    Describe(Describe),
    /// Delete objects
    Delete(Delete),
    /// Set how many replicas there are to be
    Scale(Scale),
    /// Print what pods wrote
    Logs(Logs),
    /// Keep new pods off nodes
    Cordon(NodeNames),
    /// Let new pods on nodes again
    Uncordon(NodeNames),
    /// Show what happened
    Events(Events),
    /// Show the nodes
    Nodes(Nodes),
    /// Show who belongs to the cluster, who votes, and what may be lost now
    Status {
        /// How to print
        #[arg(short, long, value_enum, default_value_t = StatusOutput::Table)]
        output: StatusOutput,
    },
    /// What concerns the cluster as a whole
    #[command(subcommand)]
    Cluster(Cluster),
    /// Have a node leave the cluster: its vote and its pods go to others, then its daemon stops
    Leave(Leave),
    /// Save, inspect and restore the state of a cluster
    #[command(subcommand)]
    Backup(Backup),
    /// A cluster of several hosts on this machine, to try and to test
    #[command(subcommand)]
    Dev(Dev),
    /// List the clusters this user knows, and choose one
    #[command(subcommand)]
    Context(Context),
    /// The first process of a host that `quorate dev up` makes
    #[command(hide = true)]
    DevInit(DevInit),
}

/// What a node is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Node {
    /// Where the node keeps its state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/quorate")]
    pub(crate) data_dir: PathBuf,
    /// Where this node listens: the one port, UDP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// Where other nodes reach this one, if not at the addresses of this machine; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) advertise: Vec<SocketAddr>,
    /// The node's name [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The Docker Engine's socket
    #[arg(long, value_name = "URL", default_value = "unix:///var/run/docker.sock")]
    pub(crate) docker: String,
    /// Only pretend to run pods; needs no Docker Engine and no root
    #[arg(long)]
    pub(crate) simulated: bool,
    /// What is logged to stderr: error, warn, info, debug, trace, or by part: info,quorate_raft=debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info,openraft=warn,hickory_server=warn",
        env = "QUORATE_LOG",
        hide_env = true
    )]
    pub(crate) log: String,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) node: Node,
    /// Where service addresses come from; only when the cluster is founded
    #[arg(long, value_name = "CIDR", default_value_t = SERVICES)]
    pub(crate) service_range: Ipv4Net,
    /// Where pod addresses come from, a /24 a node; only when the cluster is founded
    #[arg(long, value_name = "CIDR", default_value_t = PODS)]
    pub(crate) pod_range: Ipv4Net,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// What `quorate token create` printed
    #[arg(env = "QUORATE_TOKEN", hide_env_values = true)]
    pub(crate) token: String,
    /// Forget which node this machine was: it joins as a new one
    #[arg(long)]
    pub(crate) fresh: bool,
    #[command(flatten)]
    pub(crate) node: Node,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show who belongs to the cluster, who votes, and what may be lost now
    Status {
        /// How to print
        #[arg(short, long, value_enum, default_value_t = StatusOutput::Table)]
        output: StatusOutput,
    },
    /// Go on alone with this machine's node, when the quorum is lost for good: shows what it has, changes nothing without --yes
    Recover(Recover),
}

/// How a status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusOutput {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// The node's name
    #[arg(value_name = "NODE")]
    pub(crate) name: String,
    /// Wait until it has left
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) wait: bool,
    /// How long to wait; 0s for ever
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it; it is shown only once
    Create {
        /// How long it is good for: 30m, 24h
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// How many nodes may join with it
        #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        uses: u32,
    },
    /// List tokens, without their secrets
    List,
    /// End a token
    Revoke {
        /// Its id, as `quorate token list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A file, a directory of files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Check everything, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// A file, a directory of files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Tell of every field, of those that are honoured too
    #[arg(long)]
    pub(crate) all: bool,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// Which objects of a kind.
#[derive(Debug, Args)]
pub(crate) struct Selectors {
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only those with these labels: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    /// Only those with these fields: metadata.name=web
    #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true)]
    pub(crate) field_selector: String,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What: pods; pods,services; pod web-1; deploy/web; or all
    #[arg(required = true, value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Go on and show every change, also when the node that is asked is lost
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Answer from what the asked node has, also when it is cut off
    #[arg(long)]
    pub(crate) stale: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// What: pod web-1; deploy/web; or nodes, for all of a kind
    #[arg(required = true, value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) selectors: Selectors,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// What: pod web-1 web-2; deploy/web
    #[arg(value_name = "WHAT", required_unless_present = "filename", conflicts_with = "filename")]
    pub(crate) what: Vec<String>,
    /// Delete what these manifests name
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    /// What is not there is no failure
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// Seconds a pod gets to stop
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace_period: Option<u32>,
    /// Wait until they are gone
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) wait: bool,
    /// How long to wait; 0s for ever
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// What: deploy web; deploy/web
    #[arg(required = true, value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// How many replicas there are to be
    #[arg(long, value_name = "NUMBER")]
    pub(crate) replicas: u32,
}

#[derive(Debug, Args)]
pub(crate) struct NodeNames {
    /// Their names
    #[arg(required = true, value_name = "NODE")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A pod, by NAME or pod/NAME; or one pod of what has several: deploy/NAME, rs/NAME, svc/NAME
    #[arg(value_name = "POD", required_unless_present = "selector", conflicts_with = "selector")]
    pub(crate) pod: Option<String>,
    /// All pods with these labels: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// The container; needed if a pod has several
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_containers")]
    pub(crate) container: Option<String>,
    /// All containers
    #[arg(long)]
    pub(crate) all_containers: bool,
    /// Each line with its pod and container
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Go on until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The container before its last restart
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Only the last lines of each; -1 for all [default: -1, or 10 with -l]
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub(crate) tail: Option<i64>,
    /// Only what was written in the last: 30s, 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Each line with its time
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// How many containers may be followed at once
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub(crate) max_log_requests: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only those of one object: KIND/NAME
    #[arg(long = "for", value_name = "KIND/NAME")]
    pub(crate) of: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Go on and show new ones
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Wide)]
    pub(crate) output: Output,
    /// Go on and show every change
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// List the contexts; * marks the current one
    List,
    /// Make a context the current one
    Use {
        /// Its name
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_dev_exec_is_the_hosts_command_with_its_flags() {
        let arguments = Arguments::try_parse_from(["quorate", "dev", "exec", "n2", "ls", "-l", "--all"]).unwrap();
        let Verb::Dev(Dev::Exec { host, command }) = arguments.verb else { panic!("another verb") };
        assert_eq!((host.as_str(), command), ("n2", vec!["ls".to_owned(), "-l".to_owned(), "--all".to_owned()]));
    }
}
