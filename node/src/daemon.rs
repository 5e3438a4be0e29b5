//! The daemon: one process, one data directory, one port. Builds the parts in order and stops them in reverse.
//!
//! [`up`] founds a cluster on an empty data directory, or goes on where the last run stopped; [`join`] makes this machine a member first.
//!
//! Invariant: whatever can refuse (the engine, the port, the ranges) is asked before anything is written, so that a refused start
//! leaves nothing behind but an empty directory.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
};

use ipnet::Ipv4Net;
use quorate_agent::{
    Runtime,
    runtime::{
        docker::{self, Docker},
        simulated::{self, Simulated},
    },
};
use quorate_mesh::{ClusterKey, Identity, UserIdentity, join};
use quorate_proto::{
    ids::ClusterId,
    refusal::{Reason, Refusal, chain},
    token::Token,
    world::{Clock, Random},
};
use quorate_raft::Timing;
use tokio_util::sync::CancellationToken;

use crate::{
    addresses,
    admission::Place,
    founding,
    home::{Home, Record},
    registration,
    settings::ClusterSettings,
    world::{SystemClock, SystemRandom},
};

mod ending;
mod fenced;
mod first;
mod pace;
mod renewal;
mod run;
mod start;

/// What is refused when the daemon does not start.
const NOT_STARTED: &str = "the daemon did not start";

/// The pods' network on the Docker Engine, and its bridge.
const NETWORK: &str = "quorate";
const BRIDGE: &str = "quorate0";

/// How much memory a simulated node says it has, in bytes.
const SIMULATED_MEMORY: u64 = 16 << 30;

/// What runs this node's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// A Docker Engine, by the path of its socket.
    Docker(PathBuf),
    /// Nothing: pods are simulated, and every table says so.
    Simulated,
}

/// Every setting of a daemon.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything is kept. Default `/var/lib/quorate`.
    pub data: PathBuf,
    /// The one port, UDP. Default `0.0.0.0:7443`.
    pub listen: SocketAddr,
    /// Where others can dial it; empty: this machine's addresses.
    pub advertise: Vec<SocketAddr>,
    /// The node's name; default: the host's.
    pub name: Option<String>,
    /// What runs containers.
    pub engine: Engine,
    /// Where service addresses come from, when a cluster is founded. Default `10.213.0.0/16`.
    pub service_range: Ipv4Net,
    /// Where pod addresses come from, when a cluster is founded. Default `10.214.0.0/16`.
    pub pod_range: Ipv4Net,
    /// What cluster names end in, when a cluster is founded. Default `cluster.local`.
    pub zone: String,
    /// How fast elections are; `None`: as disk and network allow.
    pub timing: Option<Timing>,
    /// The local socket for root's commands on this machine.
    pub socket: PathBuf,
}

/// What the founder of a cluster gets, once: the way in as an administrator.
#[derive(Debug)]
pub struct Founded {
    /// The cluster.
    pub cluster: ClusterId,
    /// Where it can be reached.
    pub endpoints: Vec<SocketAddr>,
    /// Who the administrator is.
    pub administrator: UserIdentity,
}

/// Founds a cluster if this machine is in none, and runs its node until `shutdown` is cancelled. `founded` is called once, before the
/// node serves anybody.
///
/// # Errors
/// One clear refusal: what, because, hint.
pub async fn up(
    settings: Settings,
    founded: impl FnOnce(Founded) -> Result<(), Refusal>,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    let daemon = Daemon::prepare(settings)?;
    let record = match daemon.remembered()? {
        Some(record) => daemon.not_left(record)?,
        None => {
            daemon.engine_answers().await?;
            let (record, administrator) = daemon.found()?;
            founded(Founded {
                cluster: record.cluster.cluster_id,
                endpoints: daemon.addresses.clone(),
                administrator,
            })?;
            record
        }
    };
    run::run(daemon, record, shutdown).await
}

/// Joins the cluster of a token if this machine is in none, and runs its node until `shutdown` is cancelled. With `fresh` it joins
/// whatever it was before: what it was is forgotten once it is admitted.
///
/// # Errors
/// One clear refusal: what, because, hint. Nothing was changed then, unless it says so.
pub async fn join(settings: Settings, token: &str, fresh: bool, shutdown: CancellationToken) -> Result<(), Refusal> {
    let token: Token = token.parse().map_err(|error: quorate_proto::token::TokenError| {
        Refusal::new(Reason::BadRequest, registration::NOT_JOINED, error.to_string())
            .hint("copy the whole token as `quorate token create` printed it")
    })?;
    let daemon = Daemon::prepare(settings)?;
    let remembered = if fresh { None } else { daemon.remembered()? };
    let record = match remembered {
        Some(record) => {
            daemon.check_same_cluster(&token)?;
            daemon.not_left(record)?
        }
        None => {
            daemon.engine_answers().await?;
            daemon.join(&token, fresh).await?
        }
    };
    run::run(daemon, record, shutdown).await
}

/// What is there before it is known whose node this is.
struct Daemon {
    settings: Settings,
    home: Arc<Home>,
    name: String,
    addresses: Vec<SocketAddr>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Daemon {
    fn prepare(settings: Settings) -> Result<Self, Refusal> {
        let home = Home::open(&settings.data).map_err(|error| error.refusal(NOT_STARTED))?;
        let addresses = addresses::told(settings.listen, &settings.advertise);
        let name = settings.name.clone().unwrap_or_else(addresses::host_name);
        let daemon = Self {
            home: Arc::new(home),
            name,
            addresses,
            clock: Arc::new(SystemClock::start()),
            random: Arc::new(SystemRandom),
            settings,
        };
        daemon.port_is_free()?;
        Ok(daemon)
    }

    /// Asks for the port before anything is spent or written.
    fn port_is_free(&self) -> Result<(), Refusal> {
        let listen = self.settings.listen;
        UdpSocket::bind(listen).map(drop).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "is another daemon running? else choose another port with --listen",
                io::ErrorKind::AddrNotAvailable => {
                    "choose an address of this machine with --listen, or 0.0.0.0 for all"
                }
                io::ErrorKind::PermissionDenied => "run it as root, or choose a port above 1023 with --listen",
                _ => "choose another address with --listen",
            };
            Refusal::new(Reason::Invalid, NOT_STARTED, format!("UDP port {listen} cannot be opened: {error}"))
                .hint(hint)
        })
    }

    fn remembered(&self) -> Result<Option<Record>, Refusal> {
        self.home.startable().map_err(|error| error.refusal(NOT_STARTED))
    }

    /// A node that has left its cluster does not come back as what it was: its vote and its name are others'.
    fn not_left(&self, record: Record) -> Result<Record, Refusal> {
        if !record.left {
            return Ok(record);
        }
        let because = format!("node {} has left cluster {}", record.name, record.cluster.cluster_id);
        let hint = format!(
            "to become a node again: `quorate join TOKEN --fresh`; to found another cluster, clear {} first",
            self.settings.data.display()
        );
        Err(Refusal::new(Reason::Conflict, NOT_STARTED, because).hint(hint))
    }

    /// A runtime for this node's pods; on a machine that is to become a member it must answer.
    async fn engine_answers(&self) -> Result<(), Refusal> {
        let probe = self.runtime(ClusterId(0), "", self.settings.pod_range);
        probe.info().await.map(drop).map_err(|error| {
            Refusal::new(Reason::Invalid, NOT_STARTED, chain(&error)).hint(
                "install and start it (`apt-get install docker.io`), point --docker at its socket, or try --simulated",
            )
        })
    }

    fn runtime(&self, cluster: ClusterId, name: &str, pod_range: Ipv4Net) -> Arc<dyn Runtime> {
        let node = name.to_owned();
        match &self.settings.engine {
            Engine::Docker(socket) => Arc::new(Docker::new(docker::Config {
                socket: socket.clone(),
                cluster,
                node,
                dir: self.home.pods(),
                network: NETWORK.to_owned(),
                bridge: BRIDGE.to_owned(),
                pod_range,
            })),
            Engine::Simulated => {
                let cpus = std::thread::available_parallelism().map_or(1, usize::from);
                let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
                let config = simulated::Config { node, pod_range, cpus, memory: SIMULATED_MEMORY };
                // The simulated runtime's own tasks share it.
                Arc::new(Arc::new(Simulated::new(config, Arc::clone(&self.clock))))
            }
        }
    }

    /// Makes a cluster and writes down what this node is in it; the store gets the rest when it is there.
    fn found(&self) -> Result<(Record, UserIdentity), Refusal> {
        let settings = ClusterSettings {
            cluster_id: ClusterId(self.random.id()),
            service_range: self.settings.service_range,
            pod_range: self.settings.pod_range,
            zone: self.settings.zone.clone(),
        };
        registration::check_name(&self.name)?;
        let made = founding::make(settings, &self.name, &self.random, self.clock.wall());
        let founding::Founding { identity, key, record, administrator } = made.map_err(|error| {
            Refusal::new(Reason::Invalid, "the cluster was not founded", chain(&error))
                .hint("see --service-range and --pod-range")
        })?;
        self.write_down(&identity, &key, &record)?;
        Ok((record, administrator))
    }

    async fn join(&self, token: &Token, fresh: bool) -> Result<Record, Refusal> {
        registration::check_name(&self.name)?;
        let build = env!("CARGO_PKG_VERSION");
        let (clock, random) = (Arc::clone(&self.clock), &*self.random);
        let grant = join::join(token, &self.name, self.addresses.clone(), build, clock, random).await?;
        let place: Place = serde_json::from_slice(&grant.settings).map_err(|error| {
            Refusal::new(Reason::Internal, registration::NOT_JOINED, format!("the answer cannot be used: {error}"))
                .hint("both machines should run the same version of quorate")
        })?;
        let record = Record {
            name: grant.name,
            incarnation: 0,
            pod_range: place.pod_range,
            cluster: place.cluster,
            peers: grant.peers,
            founding: None,
            has_store: false,
            measured: None,
            pace: None,
            left: false,
            epoch: place.epoch,
            recovering: None,
            adoption: None,
        };
        if fresh {
            self.home.forget().map_err(|error| error.refusal(NOT_STARTED))?;
        }
        self.write_down(&grant.identity, &grant.cluster_key, &record)?;
        Ok(record)
    }

    /// The record comes last: with it, this machine is a member.
    fn write_down(&self, identity: &Identity, key: &ClusterKey, record: &Record) -> Result<(), Refusal> {
        identity.store(self.home.path()).map_err(|error| not_started(&error))?;
        self.home.keep_cluster_key(key).map_err(|error| error.refusal(NOT_STARTED))?;
        self.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))
    }

    /// A member that is told to join goes on if it is its own cluster's token, and is refused otherwise.
    fn check_same_cluster(&self, token: &Token) -> Result<(), Refusal> {
        let identity = Identity::load(self.home.path()).map_err(|error| not_started(&error))?;
        let pins = identity.pins().map_err(|error| not_started(&error))?;
        if pins.contains(&token.pin) {
            return Ok(());
        }
        let because = format!("its data directory belongs to a node of cluster {}", identity.cluster);
        Err(Refusal::new(Reason::Conflict, registration::NOT_JOINED, because)
            .hint("run `quorate up` to go on in that cluster, or add --fresh to join another as a new node"))
    }
}

fn not_started(error: &dyn std::error::Error) -> Refusal {
    let because = chain(error);
    // RocksDB passes on only the words.
    let hint = if because.contains(nix::errno::Errno::ENOSPC.desc()) {
        "make room on the disk of --data-dir, and start it again"
    } else {
        "check --data-dir, or set it aside and join again"
    };
    Refusal::new(Reason::Internal, NOT_STARTED, because).hint(hint)
}

fn gave_up(because: &str) -> Refusal {
    Refusal::new(Reason::Internal, "the daemon cannot go on", because)
        .hint("its containers go on; check the disk, then start it again with `quorate up`")
}
