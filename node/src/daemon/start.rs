//! Starts a member's node: the port first, then the store, then everything else.
//!
//! Invariant: streams of others are answered only by parts that are whole; until then they wait.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use quorate_dns::{Names, Settings as NameSettings};
use quorate_mesh::{Handlers, Identity, LinkClass, Mesh, WeakMesh};
use quorate_proto::{
    ids::NodeId,
    kinds::NODES,
    overview::Standing,
    refusal::{Reason, Refusal, chain},
};
use quorate_raft::{Config as StoreConfig, Fault, OpenError, Storage, Store, Timing};
use tokio::{
    net::UnixListener,
    sync::{SetOnce, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Daemon, Engine, NOT_STARTED,
    ending::Ending,
    first::{adopt, found},
    gave_up, not_started,
    renewal::Renewal,
};
use crate::{
    addresses,
    admission::{Gate, LateGate},
    home::Record,
    lan::Lan,
    loops::Snapshots,
    mesh_links::{self, MeshLinks, NamesOverQuic, Reception},
    node::{Node, Own, Parts},
    raft_network::RaftNetwork,
    registration,
    secrets::Vault,
    socket,
};

/// What is needed before it is there: the port accepts streams for parts that still have to be built over it.
#[derive(Default, Clone)]
struct Later {
    mesh: Arc<SetOnce<WeakMesh>>,
    services: Arc<SetOnce<crate::serve::Services>>,
    gate: Arc<SetOnce<Gate>>,
    snapshots: Arc<SetOnce<Snapshots>>,
}

/// What runs.
pub(super) struct Started {
    pub(super) store: Store,
    pub(super) snapshots: Snapshots,
    pub(super) standing: watch::Receiver<Standing>,
}

/// Why a node does not run.
pub(super) enum NotStarted {
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

/// Opens the local socket.
pub(super) fn bind(daemon: &Daemon) -> Result<UnixListener, Refusal> {
    socket::bind(&daemon.settings.socket).map_err(|error| {
        let path = daemon.settings.socket.display();
        Refusal::new(Reason::Invalid, NOT_STARTED, format!("the local socket {path} cannot be made: {error}"))
            .hint("run it as root, or choose another --socket")
    })
}

/// Starts everything, in order.
pub(super) async fn start(
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
    let (cluster, addresses) = (record.cluster.cluster_id, daemon.addresses.clone());
    let lan = Lan { cluster, addresses, mesh: mesh.clone(), status: store.status() };
    tasks.spawn(lan.keep(stop.clone()));
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
