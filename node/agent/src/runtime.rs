//! The seam to what runs containers: everything the agent does to its machine goes through this trait.
//!
//! Two implementations, one suite: the Docker Engine ([`docker`]) and a simulated one ([`simulated`]).
//!
//! Invariant: a runtime shows and touches only containers that carry the label of its own cluster.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use quorate_proto::{refusal, world::Timestamp};
use thiserror::Error;

use crate::{probe::Check, resources::Limits};

#[cfg(test)]
mod conformance;
pub mod docker;
#[cfg(test)]
pub(crate) mod hanging;
pub mod simulated;

/// What runs containers on this node.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// What it is, and what the machine has. Also tells whether it answers.
    async fn info(&self) -> Result<Info, RuntimeError>;

    /// Makes what every pod needs: the pods' network, the holder's image. Does nothing if it is there.
    async fn prepare(&self) -> Result<(), RuntimeError>;

    /// The containers of this cluster, whatever their state.
    async fn list(&self) -> Result<Vec<Container>, RuntimeError>;

    /// One item whenever a container of this cluster changed. It ends, or fails, when the runtime goes away; then list and ask again.
    async fn events(&self) -> Result<BoxStream<'static, Result<(), RuntimeError>>, RuntimeError>;

    /// The id of an image that is here.
    async fn image(&self, reference: &str) -> Result<Option<String>, RuntimeError>;

    /// Fetches an image and answers its id. `credentials` are tried in order, then none.
    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<String, RuntimeError>;

    /// Makes a pod's volumes, or brings their files up to date; answers where each one is.
    async fn mount(&self, pod: &PodRef, volumes: &[Volume]) -> Result<BTreeMap<String, String>, RuntimeError>;

    /// Removes a pod's volumes. Does nothing if there are none.
    async fn unmount(&self, uid: &str) -> Result<(), RuntimeError>;

    /// The uids of the pods that have volumes here.
    async fn mounted(&self) -> Result<Vec<String>, RuntimeError>;

    /// Makes and starts a pod's holder. One of the same pod and attempt that is not running is replaced.
    async fn start_holder(&self, holder: &HolderSpec) -> Result<(), RuntimeError>;

    /// Makes a container and answers its id. One of the same name that is not running is replaced.
    async fn create(&self, container: &ContainerSpec) -> Result<String, RuntimeError>;

    /// Starts a container that was made.
    async fn start(&self, id: &str) -> Result<(), RuntimeError>;

    /// Asks a container to stop and, after the grace period, kills it. Does nothing if it is not running or gone.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes a container, killing it if it runs. Does nothing if it is gone.
    async fn remove(&self, id: &str) -> Result<(), RuntimeError>;

    /// Checks once whether a container is well; `Ok(Err(why))` if it is not. An answer takes no longer than `timeout`, or it is not well.
    async fn check(
        &self,
        id: &str,
        address: Ipv4Addr,
        check: &Check,
        timeout: Duration,
    ) -> Result<Result<(), String>, RuntimeError>;

    /// What a container wrote.
    async fn logs(
        &self,
        id: &str,
        lines: &LogLines,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError>;
}

/// What runs the containers, and what the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Name and version: `docker://20.10.24`.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system, for people.
    pub os_image: String,
    /// `amd64`, `arm64`: as Kubernetes writes it.
    pub architecture: String,
    /// Cores.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
}

/// A pod, by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a container is to its pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It holds the pod's network namespace.
    Holder,
    /// It is one of the pod's containers.
    Container {
        /// Its name in the pod.
        name: String,
        /// Fingerprint of what it was made from.
        hash: String,
        /// The id of the holder it joined.
        holder: String,
    },
}

/// A container as the runtime shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// The name of the node that made it.
    pub node: String,
    /// Its pod.
    pub pod: PodRef,
    /// What it is to its pod.
    pub role: Role,
    /// Counts up with each restart, from 0.
    pub attempt: u32,
    /// The grace period it was made with: for when its pod is not known any more.
    pub grace: Duration,
    /// The image, as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// Its address, if it is a holder in the pods' network and runs.
    pub address: Option<Ipv4Addr>,
    /// What it does.
    pub state: State,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made and never started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Not running any more.
    Exited {
        /// Since when it ran.
        started: Timestamp,
        /// Until when it ran.
        finished: Timestamp,
        /// Its exit code; 128 and the signal's number if a signal ended it.
        code: i32,
        /// Whether it was ended for using more memory than it may.
        out_of_memory: bool,
        /// What the runtime says about it; mostly empty.
        message: String,
        /// What the container itself left as its last words; mostly empty.
        words: String,
    },
}

/// What a holder is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderSpec {
    /// The pod.
    pub pod: PodRef,
    /// How often this pod got a holder before.
    pub attempt: u32,
    /// The pod's grace period.
    pub grace: Duration,
    /// The pod uses the node's network instead of one of its own.
    pub host_network: bool,
    /// The pod's hostname, at most 63 bytes.
    pub hostname: String,
    /// How the pod resolves names; `None`: as the node does.
    pub dns: Option<DnsConfig>,
    /// Lines of `/etc/hosts`: name and address.
    pub hosts: Vec<(String, String)>,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Containers see each other's processes.
    pub share_processes: bool,
}

/// How a pod resolves names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Domains to search.
    pub searches: Vec<String>,
    /// Options of `resolv.conf`.
    pub options: Vec<String>,
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSpec {
    /// Its name in the pod.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// How often it was started before.
    pub attempt: u32,
    /// Fingerprint of the container in the pod's spec.
    pub hash: String,
    /// The pod's grace period.
    pub grace: Duration,
    /// The id of the holder whose network it joins.
    pub holder: String,
    /// The image, as it is named in the pod.
    pub image: String,
    /// Instead of the image's entry point; empty: the image's.
    pub command: Vec<String>,
    /// Instead of the image's arguments; empty: the image's, if there is no command either.
    pub args: Vec<String>,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
    /// Instead of the image's.
    pub working_dir: Option<String>,
    /// `uid` or `uid:gid`, instead of the image's.
    pub user: Option<String>,
    /// Further groups of its processes.
    pub groups: Vec<i64>,
    /// What it sees of the pod's volumes.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: Limits,
    /// It cannot write to its root.
    pub read_only_root: bool,
    /// It may do what the node may do.
    pub privileged: bool,
    /// It cannot gain privileges by running a set-user-id program.
    pub no_new_privileges: bool,
    /// Capabilities it has beyond the usual ones.
    pub add_capabilities: Vec<String>,
    /// Usual capabilities it does not have.
    pub drop_capabilities: Vec<String>,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input is open.
    pub stdin: bool,
    /// It sees the processes of the pod's other containers.
    pub share_processes: bool,
    /// It sees the node's processes.
    pub host_processes: bool,
    /// Where it writes why it ended; empty: nowhere.
    pub message_path: String,
    /// If it failed and wrote nothing there, the end of its log says why.
    pub message_from_log: bool,
}

impl ContainerSpec {
    /// The pod it belongs to.
    #[must_use]
    pub fn pod_ref(&self) -> PodRef {
        PodRef { namespace: self.namespace.clone(), name: self.pod.clone(), uid: self.uid.clone() }
    }
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// A path on the node.
    pub source: String,
    /// A path in the container.
    pub target: String,
    /// It cannot write there.
    pub read_only: bool,
}

/// A volume of a pod, with everything it is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it is.
    pub source: VolumeSource,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeSource {
    /// Files of the cluster's: a config map, a secret, the pod's own fields.
    Files {
        /// By path below the volume: content and mode.
        files: BTreeMap<String, File>,
        /// Kept in memory only.
        secret: bool,
    },
    /// An empty directory that lives as long as the pod.
    Empty {
        /// Kept in memory.
        memory: bool,
        /// The most bytes it may hold, where that can be enforced (in memory).
        size: Option<u64>,
    },
    /// A path of the node.
    Host {
        /// The path.
        path: String,
        /// What must be there, in Kubernetes' words: `Directory`, `FileOrCreate` …; empty: anything.
        kind: String,
    },
}

/// A file in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct File {
    /// What is in it.
    pub content: Bytes,
    /// Its permission bits.
    pub mode: u32,
}

/// A name and a secret for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The registry they are for: `registry.example.com`.
    pub registry: String,
    /// The name.
    pub username: String,
    /// The secret.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "credentials of {} for {}", self.username, self.registry)
    }
}

/// Which lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogLines {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Only the last ones.
    pub tail: Option<u32>,
    /// Only those written since then.
    pub since: Option<Timestamp>,
    /// Each with its time.
    pub timestamps: bool,
}

/// Why the runtime did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuntimeError {
    /// Nothing answers.
    #[error("{runtime} does not answer: {because}")]
    Absent {
        /// What was asked.
        runtime: String,
        /// What happened instead of an answer.
        because: String,
        /// What to do about it.
        hint: String,
    },
    /// It took too long. Whether it was done is not known.
    #[error("{what} took longer than {seconds} s")]
    Timeout {
        /// What was asked for.
        what: String,
        /// How long it could have taken.
        seconds: u64,
    },
    /// It was refused, in the runtime's words.
    #[error("{0}")]
    Refused(String),
    /// There is no such container or image.
    #[error("{0}")]
    NotFound(String),
    /// The machine is not as it should be: a network of the same name, a volume that cannot be made.
    #[error("{what}: {because}")]
    Machine {
        /// What could not be done.
        what: String,
        /// Because of what.
        because: String,
    },
}

impl RuntimeError {
    /// As a refusal to a user who wanted `what`.
    #[must_use]
    pub fn refusal(self, what: impl Into<String>) -> refusal::Refusal {
        let because = self.to_string();
        match self {
            Self::Absent { hint, .. } => refusal::Refusal::new(refusal::Reason::Unavailable, what, because).hint(hint),
            Self::Timeout { .. } => refusal::Refusal::new(refusal::Reason::Timeout, what, because),
            Self::NotFound(_) => refusal::Refusal::new(refusal::Reason::NotFound, what, because),
            Self::Refused(_) | Self::Machine { .. } => refusal::Refusal::new(refusal::Reason::Internal, what, because),
        }
    }
}

/// The name of a container: the same for the same attempt, so that making it twice is noticed.
fn name(container: &str, pod: &PodRef, attempt: u32) -> String {
    let PodRef { namespace, name, uid } = pod;
    format!("quorate_{container}_{name}_{namespace}_{uid}_{attempt}")
}
