//! Runs a member's node: the port first, then the store, then everything else; and stops it in reverse.
//!
//! A node that finds its data damaged begins anew as another member (`fenced.rs`), one whose disk is full waits for room; both in this
//! same process, while its containers go on.
//!
//! Invariant: streams of others are answered only by parts that are whole; until then they wait.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use quorate_dns::{Names, Settings as NameSettings};
use quorate_mesh::{Handlers, Identity, LinkClass, Mesh, PortInUse, WeakMesh};
use quorate_proto::{
    ids::NodeId,
    kinds::NODES,
    overview::Standing,
    refusal::{Reason, Refusal, chain},
    request::Read,
    txn::Outcome,
};
use quorate_raft::{Config as StoreConfig, Fault, OpenError, Storage, Store, Timing};
use tokio::{
    net::UnixListener,
    sync::{SetOnce, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Daemon, Engine, NOT_STARTED, fenced, not_started, pace, renewal::Renewal};
use crate::{
    addresses,
    admission::{self, Gate, LateGate},
    adoption::{self, Heir},
    home::{Fenced, Record},
    loops::Snapshots,
    mesh_links::{self, MeshLinks, NamesOverQuic, Reception},
    node::{Node, Own, Parts},
    raft_network::RaftNetwork,
    registration::{self, Moment},
    replica,
    secrets::Vault,
    socket,
};

/// How long a store that goes on alone may take to lead: many times what an election takes.
const ALONE: Duration = Duration::from_secs(60);

/// How long the parts may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// How long a node that has left still answers on this machine.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often a disk that is full is looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// How a node's life ends.
enum Ended {
    /// It was told to.
    Stopped,
    /// Its data is damaged, and that is written down.
    Fenced,
    /// Its disk has no room.
    Full(String),
}

/// Runs the node until `shutdown` is cancelled or it cannot go on: again as often as it begins anew, or has room again.
pub(super) async fn run(daemon: Daemon, mut record: Record, shutdown: CancellationToken) -> Result<(), Refusal> {
    loop {
        if let Some(fenced) = daemon.fenced()? {
            let answering = answer_fenced(&daemon, &fenced);
            let renewed = tokio::select! {
                renewed = daemon.take_new_id(&fenced, &record, &shutdown) => renewed?,
                refusal = answering => return Err(refusal),
            };
            let Some(renewed) = renewed else { return Ok(()) };
            daemon.begin_anew(&fenced, &renewed)?;
            record = renewed;
        }
        if shutdown.run_until_cancelled(room(&daemon)).await.is_none() {
            return Ok(());
        }
        match live(&daemon, &mut record, &shutdown).await? {
            Ended::Stopped => return Ok(()),
            Ended::Fenced => {}
            Ended::Full(because) => tracing::error!(because, "this node waits until its disk has room"),
        }
    }
}

/// Waits until there is room to open the store.
async fn room(daemon: &Daemon) {
    let mut told = false;
    // A disk that cannot be asked is asked for more when it is used.
    while let Ok(disk) = nix::sys::statvfs::statvfs(daemon.home.path()) {
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free >= quorate_raft::FLOOR {
            return;
        }
        if !told {
            tracing::error!(
                mebibytes = free >> 20,
                "the disk is full: this node waits for {} MiB of room; its containers go on",
                quorate_raft::FLOOR >> 20
            );
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells whoever asks on this machine that the node is fenced; returns only if it cannot.
async fn answer_fenced(daemon: &Daemon, fenced: &Fenced) -> Refusal {
    match bind(daemon) {
        Ok(listener) => socket::refuse(listener, fenced::refusal(fenced)).await,
        Err(refusal) => refusal,
    }
}

/// Runs the node once.
async fn live(daemon: &Daemon, record: &mut Record, shutdown: &CancellationToken) -> Result<Ended, Refusal> {
    let identity = Identity::load(daemon.home.path()).map_err(|error| not_started(&error))?;
    if let Some(lost) = fenced::lost(daemon, record) {
        return daemon.fence(&identity, &lost).map(|_| Ended::Fenced);
    }
    record.incarnation += 1;
    let pace = pace::choose(record, daemon.home.path(), &*daemon.clock);
    let timing = daemon.settings.timing.unwrap_or_else(|| pace.timing());
    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))?;
    let key = daemon.home.cluster_key().map_err(|error| error.refusal(NOT_STARTED))?;
    let vault = Vault::new(key, Arc::clone(&daemon.random));

    let ending = Ending::default();
    let started = start(daemon, record, timing, identity.clone(), vault, &ending).await;
    let result = match started {
        Ok(started) => {
            tracing::info!(node = record.name, cluster = %record.cluster.cluster_id, "the node is up");
            let store = started.store.clone();
            let ended = watch_over(daemon, record, &identity, started, &ending.stop, shutdown).await;
            tracing::info!("the node stops; its containers go on");
            store.shutdown().await;
            remember_measured(daemon, record, &store);
            ended
        }
        Err(NotStarted::Damaged(because)) => daemon.fence(&identity, &because).map(|_| Ended::Fenced),
        Err(NotStarted::Refused(refusal)) => Err(refusal),
    };
    ending.wait().await;
    result
}

/// Waits for what ends the node, and remembers where its peers are meanwhile.
async fn watch_over(
    daemon: &Daemon,
    record: &mut Record,
    identity: &Identity,
    started: Started,
    stop: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<Ended, Refusal> {
    let Started { store, mut snapshots, mut standing } = started;
    let mut status = store.status();
    snapshots.mark_changed();
    let fault = loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Ended::Stopped),
            () = left(&mut standing) => {
                record.left = true;
                daemon.home.remember(record).map_err(|error| error.refusal("that this node has left was not written down"))?;
                return Ok(Ended::Stopped);
            }
            () = stop.cancelled() => return Err(gave_up("a part of the node failed; its log says which")),
            failed = status.wait_for(|status| status.fault.is_some()) => {
                break failed.ok().and_then(|status| status.fault.clone());
            }
            Ok(()) = snapshots.changed() => {
                let peers = admission::peers(&snapshots.borrow_and_update());
                if !peers.is_empty() && peers != record.peers {
                    record.peers = peers;
                    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))?;
                }
            }
        }
    };
    match fault {
        Some(fault) if fault.is_damage() => {
            let fenced = daemon.fence(identity, &fault.to_string())?;
            // Until there is a new id, pods, names and routes go on with what was known last.
            tokio::select! {
                () = stop.cancelled() => {}
                renewed = daemon.take_new_id(&fenced, record, shutdown) => match renewed? {
                    Some(renewed) => *record = renewed,
                    None => return Ok(Ended::Stopped),
                }
            }
            Ok(Ended::Fenced)
        }
        Some(Fault::Full(because)) => Ok(Ended::Full(because)),
        fault => Err(gave_up(&fault.map_or_else(|| "the store ended".to_owned(), |fault| fault.to_string()))),
    }
}

/// Keeps what this run measured for the next one, which may go on without it.
fn remember_measured(daemon: &Daemon, record: &mut Record, store: &Store) {
    let (sync, round_trip) = store.measured();
    let measured = record.measured.unwrap_or_default().renewed(sync, round_trip);
    if record.measured.replace(measured) != Some(measured)
        && let Err(error) = daemon.home.remember(record)
    {
        tracing::warn!(error = %chain(&error), "what was measured of disk and network was not kept");
    }
}

/// Waits until the node has left its cluster, and for a moment more, in which it can still say so.
async fn left(standing: &mut watch::Receiver<Standing>) {
    match standing.wait_for(|standing| *standing == Standing::Left).await {
        Ok(_) => tokio::time::sleep(FAREWELL).await,
        // Whoever told the standing has ended with the rest of the node.
        Err(_) => std::future::pending().await,
    }
}

fn gave_up(because: &str) -> Refusal {
    Refusal::new(Reason::Internal, "the daemon cannot go on", because)
        .hint("its containers go on; check the disk, then start it again with `quorate up`")
}

/// What has to end before the node may begin again in this same process.
#[derive(Default)]
struct Ending {
    tasks: TaskTracker,
    stop: CancellationToken,
    port: SetOnce<PortInUse>,
}

impl Ending {
    async fn wait(self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = async {
            self.tasks.wait().await;
            if let Some(port) = self.port.get() {
                port.freed().await;
            }
        };
        if tokio::time::timeout(STOP, ended).await.is_err() {
            tracing::warn!("{} tasks, or the port, did not end within {} s", self.tasks.len(), STOP.as_secs());
        }
    }
}

/// What is needed before it is there: the port accepts streams for parts that still have to be built over it.
#[derive(Default, Clone)]
struct Later {
    mesh: Arc<SetOnce<WeakMesh>>,
    services: Arc<SetOnce<crate::serve::Services>>,
    gate: Arc<SetOnce<Gate>>,
    snapshots: Arc<SetOnce<Snapshots>>,
}

/// What runs.
struct Started {
    store: Store,
    snapshots: Snapshots,
    standing: watch::Receiver<Standing>,
}

/// Why a node does not run.
enum NotStarted {
    /// Its store is damaged.
    Damaged(String),
    /// Anything else.
    Refused(Refusal),
}

impl From<Refusal> for NotStarted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<OpenError> for NotStarted {
    fn from(error: OpenError) -> Self {
        if error.is_damage() { Self::Damaged(chain(&error)) } else { Self::Refused(not_started(&error)) }
    }
}

fn bind(daemon: &Daemon) -> Result<UnixListener, Refusal> {
    socket::bind(&daemon.settings.socket).map_err(|error| {
        let path = daemon.settings.socket.display();
        Refusal::new(Reason::Invalid, NOT_STARTED, format!("the local socket {path} cannot be made: {error}"))
            .hint("run it as root, or choose another --socket")
    })
}

async fn start(
    daemon: &Daemon,
    record: &mut Record,
    timing: Timing,
    identity: Identity,
    vault: Vault,
    ending: &Ending,
) -> Result<Started, NotStarted> {
    let Ending { tasks, stop, .. } = ending;
    let simulated = daemon.settings.engine == Engine::Simulated;
    let (node, later) = (identity.node, Later::default());
    let listener = bind(daemon)?;
    let (names, name_settings) = names(daemon, record, simulated, tasks, stop).await?;
    let mesh = mesh(daemon, record, identity.clone(), &later, names.clone(), ending)?;

    let links = Arc::new(MeshLinks::new(Arc::clone(&later.mesh)));
    let store = Store::open(
        StoreConfig::new(record.cluster.cluster_id, node, timing),
        Storage::Disk(daemon.home.store()),
        Arc::new(RaftNetwork::new(Arc::clone(&links) as _)),
        Arc::clone(&daemon.random),
        tasks.clone(),
        stop.clone(),
    )
    .await?;
    if !record.has_store {
        record.has_store = true;
        daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))?;
    }
    found(daemon, record, node, &store).await?;
    adopt(daemon, record, node, &store).await?;

    let own =
        Own { node, name: record.name.clone(), incarnation: record.incarnation, addresses: daemon.addresses.clone() };
    let parts = Parts {
        own,
        settings: record.cluster.clone(),
        vault: vault.clone(),
        store: store.clone(),
        links,
        runtime: daemon.runtime(record.cluster.cluster_id, &record.name, record.pod_range),
        simulated,
        names: Some((names, name_settings)),
        carries: !simulated,
        decisions: quorate_control::Settings::default(),
        clock: Arc::clone(&daemon.clock),
        random: Arc::clone(&daemon.random),
    };
    let running = Node::start(parts, tasks, stop).map_err(|error| {
        // What was read may be what is damaged.
        let damage = store.fault().filter(Fault::is_damage);
        damage.map_or_else(|| NotStarted::Refused(not_started(&error)), |fault| NotStarted::Damaged(fault.to_string()))
    })?;
    let renewal = Renewal {
        identity: identity.clone(),
        home: Arc::clone(&daemon.home),
        vault: vault.clone(),
        snapshots: running.snapshots.clone(),
        mesh: mesh.clone(),
        clock: Arc::clone(&daemon.clock),
        random: Arc::clone(&daemon.random),
    };
    tasks.spawn(renewal.keep(stop.clone()));
    tasks.spawn(mesh_links::keep_refused(mesh.clone(), running.refused.clone(), stop.clone()));
    tasks.spawn(mesh_links::greet(mesh.clone(), store.clone(), running.snapshots.clone(), stop.clone()));
    tasks.spawn(mesh_links::keep_addresses(mesh, running.snapshots.clone(), stop.clone()));
    tasks.spawn(socket::serve(listener, running.services.clone(), tasks.clone(), stop.clone()));
    let gate = Gate::new(running.agreed, vault, record.epoch, Arc::clone(&daemon.clock), Arc::clone(&daemon.random));
    let (snapshots, standing) = (running.snapshots.clone(), running.standing);
    let set = [
        later.snapshots.set(running.snapshots).is_ok(),
        later.services.set(running.services).is_ok(),
        later.gate.set(gate).is_ok(),
    ];
    debug_assert!(set.iter().all(|set| *set), "each is set here only, once");
    Ok(Started { store, snapshots, standing })
}

/// Makes service addresses local to this machine, and answers names on one of them; a simulated node answers over QUIC only.
async fn names(
    daemon: &Daemon,
    record: &Record,
    simulated: bool,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(Names, Arc<NameSettings>), Refusal> {
    let cluster = &record.cluster;
    let (service, pods) = (cluster.service_range, cluster.pod_range);
    let server = cluster.dns_address();
    let settings =
        NameSettings::new(&cluster.zone, service, pods, server, &record.name).map_err(|error| not_started(&error))?;
    let settings = Arc::new(settings);
    let listen = if simulated {
        Vec::new()
    } else {
        quorate_traffic::route::add(service).await.map_err(|error| error.refusal())?;
        vec![SocketAddr::new(server.into(), 53)]
    };
    let config = quorate_dns::Config {
        settings: Arc::clone(&settings),
        listen,
        upstreams: addresses::resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        clients: Vec::new(),
        limits: quorate_dns::Limits::default(),
    };
    let names = Names::start(config, &*daemon.random, tasks, stop).map_err(|error| {
        Refusal::new(Reason::Invalid, NOT_STARTED, chain(&error))
            .hint("another DNS server on port 53 of every address (dnsmasq, bind) must be told to leave this one alone")
    })?;
    Ok((names, settings))
}

fn mesh(
    daemon: &Daemon,
    record: &Record,
    identity: Identity,
    later: &Later,
    names: Names,
    ending: &Ending,
) -> Result<Mesh, Refusal> {
    let Ending { tasks, stop, port } = ending;
    let reception = Arc::new(Reception::new(Arc::clone(&later.services)));
    let handlers = Handlers {
        peer: Arc::clone(&reception) as _,
        data: Arc::clone(&reception) as _,
        client: reception,
        doq: Some(Arc::new(NamesOverQuic(names))),
        admission: Some(Arc::new(LateGate(Arc::clone(&later.gate)))),
    };
    let config = quorate_mesh::Config {
        listen: daemon.settings.listen,
        addresses: daemon.addresses.clone(),
        identity,
        incarnation: record.incarnation,
        epoch: record.epoch,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        link: LinkClass::Lan,
        segmentation_offload: true,
    };
    let (clock, random) = (Arc::clone(&daemon.clock), Arc::clone(&daemon.random));
    let members = members(&record.name, record.peers.iter().map(|peer| peer.node).collect(), &later.snapshots);
    let mesh = Mesh::start(config, handlers, Arc::new(members), clock, random, tasks.clone(), stop.clone()).map_err(
        |error| {
            Refusal::new(Reason::Invalid, NOT_STARTED, chain(&error))
                .hint("is another daemon running? else choose another port with --listen")
        },
    )?;
    for peer in &record.peers {
        mesh.introduce(peer.node, peer.addresses.clone());
    }
    if port.set(mesh.port()).is_err() || later.mesh.set(mesh.downgrade()).is_err() {
        return Err(gave_up("the mesh was started twice"));
    }
    Ok(mesh)
}

/// Who is a member: whoever has a node object; until this node has its own, whoever was there when it joined.
fn members(
    name: &str,
    peers: BTreeSet<NodeId>,
    snapshots: &Arc<SetOnce<Snapshots>>,
) -> impl Fn(NodeId) -> bool + Send + Sync + 'static {
    let (name, snapshots) = (name.to_owned(), Arc::clone(snapshots));
    move |node| {
        let snapshot = snapshots.get().map(|snapshots| Arc::clone(&snapshots.borrow()));
        match snapshot.filter(|snapshot| snapshot.find(&NODES, None, &name).is_some()) {
            Some(snapshot) => registration::name_of(&snapshot, node).is_some(),
            None => peers.contains(&node),
        }
    }
}

/// Puts a new cluster's first objects into the store, if that was not done yet.
async fn found(daemon: &Daemon, record: &mut Record, node: NodeId, store: &Store) -> Result<(), Refusal> {
    let Some(secrets) = &record.founding else { return Ok(()) };
    store.initialize().await.map_err(|error| not_started(&error))?;
    let moment = Moment { wall: daemon.clock.wall(), random: &*daemon.random };
    let first = registration::found(&record.cluster, secrets, node, &record.name, &moment)?;
    match store.propose(daemon.random.request_id(), first.txn).await {
        Ok(Outcome::Applied(_)) => tracing::info!(cluster = %record.cluster.cluster_id, "a cluster was founded"),
        Ok(Outcome::Stale(_)) => tracing::info!("the cluster was founded before"),
        Err(error) => return Err(not_started(&error)),
    }
    record.founding = None;
    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))
}

/// Tells a store that goes on without its former members what that means for its objects, if that was not done yet.
async fn adopt(daemon: &Daemon, record: &mut Record, node: NodeId, store: &Store) -> Result<(), Refusal> {
    let Some(adoption) = &record.adoption else { return Ok(()) };
    let mut status = store.status();
    let leads = status.wait_for(|status| status.leading);
    if tokio::time::timeout(ALONE, leads).await.is_err() {
        return Err(gave_up("its store goes on alone, and did not come to lead"));
    }
    let heir = Heir { settings: &record.cluster, node, name: &record.name, adoption };
    loop {
        store.read(Read::Linearizable).await.map_err(|error| not_started(&error))?;
        let snapshot = replica::load(store).map_err(|error| not_started(&error))?;
        let moment = Moment { wall: daemon.clock.wall(), random: &*daemon.random };
        let Some(txn) = adoption::next(&snapshot, &heir, &moment)? else { break };
        // A stale one was decided on what has changed since: it is decided anew.
        store.propose(daemon.random.request_id(), txn).await.map_err(|error| not_started(&error))?;
    }
    tracing::info!(epoch = %record.epoch, "the store goes on without its former members");
    record.adoption = None;
    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))
}
