//! Runs a member's node: the port first, then the store, then everything else; and stops it in reverse.
//!
//! Invariant: streams of others are answered only by parts that are whole; until then they wait.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use quorate_dns::{Names, Settings as NameSettings};
use quorate_mesh::{Handlers, Identity, LinkClass, Mesh};
use quorate_proto::{
    ids::NodeId,
    kinds::NODES,
    overview::Standing,
    refusal::{Reason, Refusal, chain},
    request::Read,
    txn::Outcome,
};
use quorate_raft::{Config as StoreConfig, Storage, Store, Timing};
use tokio::sync::{SetOnce, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Daemon, Engine, NOT_STARTED, not_started, pace, renewal::Renewal};
use crate::{
    addresses,
    admission::{Gate, LateGate},
    adoption::{self, Heir},
    home::Record,
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

/// Runs the node until `shutdown` is cancelled or it cannot go on.
pub(super) async fn run(daemon: Daemon, mut record: Record, shutdown: CancellationToken) -> Result<(), Refusal> {
    record.incarnation += 1;
    let pace = pace::choose(&mut record, daemon.home.path(), &*daemon.clock);
    let timing = daemon.settings.timing.unwrap_or_else(|| pace.timing());
    daemon.home.remember(&record).map_err(|error| error.refusal(NOT_STARTED))?;
    let identity = Identity::load(daemon.home.path()).map_err(|error| not_started(&error))?;
    let key = daemon.home.cluster_key().map_err(|error| error.refusal(NOT_STARTED))?;
    let vault = Vault::new(key, Arc::clone(&daemon.random));

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let ending = Ending { tasks: tasks.clone(), stop: stop.clone() };
    let started = start(&daemon, &mut record, timing, identity, vault, &tasks, &stop).await;
    let result = match started {
        Ok((store, mut standing)) => {
            tracing::info!(node = record.name, cluster = %record.cluster.cluster_id, "the node is up");
            let mut status = store.status();
            let outcome = tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                () = left(&mut standing) => {
                    record.left = true;
                    daemon.home.remember(&record).map_err(|error| error.refusal("that this node has left was not written down"))
                }
                () = stop.cancelled() => Err(gave_up("a part of the node failed; its log says which")),
                failed = status.wait_for(|status| status.fault.is_some()) => Err(gave_up(
                    &failed.ok().and_then(|status| status.fault.clone()).unwrap_or_else(|| "the store ended".to_owned()),
                )),
            };
            tracing::info!("the node stops; its containers go on");
            store.shutdown().await;
            remember_measured(&daemon, &mut record, &store);
            outcome
        }
        Err(refusal) => Err(refusal),
    };
    ending.wait().await;
    result
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

struct Ending {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Ending {
    async fn wait(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} tasks did not stop within {} s", self.tasks.len(), STOP.as_secs());
        }
    }
}

/// What is needed before it is there: the port accepts streams for parts that still have to be built over it.
#[derive(Default, Clone)]
struct Later {
    mesh: Arc<SetOnce<Mesh>>,
    services: Arc<SetOnce<crate::serve::Services>>,
    gate: Arc<SetOnce<Gate>>,
    snapshots: Arc<SetOnce<Snapshots>>,
}

async fn start(
    daemon: &Daemon,
    record: &mut Record,
    timing: Timing,
    identity: Identity,
    vault: Vault,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(Store, watch::Receiver<Standing>), Refusal> {
    let simulated = daemon.settings.engine == Engine::Simulated;
    let (node, later) = (identity.node, Later::default());
    let listener = socket::bind(&daemon.settings.socket).map_err(|error| {
        let path = daemon.settings.socket.display();
        Refusal::new(Reason::Invalid, NOT_STARTED, format!("the local socket {path} cannot be made: {error}"))
            .hint("run it as root, or choose another --socket")
    })?;
    let (names, name_settings) = names(daemon, record, simulated, tasks, stop).await?;
    let mesh = mesh(daemon, record, identity.clone(), &later, names.clone(), tasks, stop)?;

    let links = Arc::new(MeshLinks::new(Arc::clone(&later.mesh)));
    let store = Store::open(
        StoreConfig::new(record.cluster.cluster_id, node, timing),
        Storage::Disk(daemon.home.store()),
        Arc::new(RaftNetwork::new(Arc::clone(&links) as _)),
        Arc::clone(&daemon.random),
        tasks.clone(),
        stop.clone(),
    )
    .await
    .map_err(|error| not_started(&error))?;
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
    let running = Node::start(parts, tasks, stop).map_err(|error| not_started(&error))?;
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
    let standing = running.standing;
    let gate = Gate::new(running.agreed, vault, record.epoch, Arc::clone(&daemon.clock), Arc::clone(&daemon.random));
    let set = [
        later.snapshots.set(running.snapshots).is_ok(),
        later.services.set(running.services).is_ok(),
        later.gate.set(gate).is_ok(),
    ];
    debug_assert!(set.iter().all(|set| *set), "each is set here only, once");
    Ok((store, standing))
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
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Mesh, Refusal> {
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
    if later.mesh.set(mesh.clone()).is_err() {
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
