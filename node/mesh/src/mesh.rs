//! The mesh: streams to any member by its id, wherever it is now, over one connection per peer and purpose.
//!
//! A connection comes up when either side first needs it, is found again when it is lost, and lasts until one of the two is no member
//! any more. Addresses are soft: they are learnt from the cluster's records, from hellos, and from where connections come from.
//!
//! Invariant: what is between two nodes is keyed by (node id, purpose), never by an address; a connection counts only after both hellos.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    time::Duration,
};

use quorate_proto::{
    hello::Epoch,
    ids::{ClusterId, NodeId},
    world::{Clock, Random},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    addresses::{Addresses, Origin},
    alpn::Alpn,
    error::{MeshError, PortError, Tried},
    identity::Identity,
    join::{Admission, accept::Acceptor},
    limits::Gauge,
    link::{Close, Link},
    port::{Door, Handler, Port, PortConfig, PortInUse},
    settings,
    stream::Stream,
};

mod connect;

/// How long [`Mesh::open`] waits for a connection to come up.
const OPEN: Duration = Duration::from_secs(5);

/// How the mesh is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; usually `[::]:7443`, which serves IPv4 too.
    pub listen: SocketAddr,
    /// Where others may dial this node: what its hello says. See [`Mesh::set_addresses`].
    pub addresses: Vec<SocketAddr>,
    /// Who this node is.
    pub identity: Identity,
    /// Counts the starts of this node; raised and stored before each. A higher one replaces all connections of a lower one.
    pub incarnation: u64,
    /// The cluster's epoch, as this node knows it. Nodes of any other are refused.
    pub epoch: Epoch,
    /// The version of this binary.
    pub build: String,
    /// What lies between nodes.
    pub link: settings::LinkClass,
    /// Lets the kernel or the card cut large sends (GSO): three times the speed, and broken on some cards and tunnels.
    pub segmentation_offload: bool,
}

/// Who serves what peers and clients send. A purpose without a handler is not offered.
#[derive(Clone)]
pub struct Handlers {
    /// Streams opened by nodes on `quorate-peer/1`.
    pub peer: Arc<dyn Handler>,
    /// Streams opened by nodes on `quorate-data/1`.
    pub data: Arc<dyn Handler>,
    /// Streams of clients.
    pub client: Arc<dyn Handler>,
    /// DNS over QUIC.
    pub doq: Option<Arc<dyn Handler>>,
    /// Joins.
    pub admission: Option<Arc<dyn Admission>>,
}

/// Knows who is a member.
pub trait Membership: Send + Sync + 'static {
    /// Whether the node is a member now. Asked on every connection, and before every dial.
    fn is_member(&self, node: NodeId) -> bool;
}

impl<F: Fn(NodeId) -> bool + Send + Sync + 'static> Membership for F {
    fn is_member(&self, node: NodeId) -> bool {
        self(node)
    }
}

/// What is known of a peer now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Whether there is a connection for `quorate-peer/1`.
    pub is_up: bool,
    /// The start of the peer that was last heard.
    pub incarnation: u64,
    /// The version of its binary.
    pub build: String,
    /// Where it may be, what worked last first.
    pub addresses: Vec<SocketAddr>,
    /// Where it says it sees us.
    pub sees_us_at: Option<SocketAddr>,
}

/// All peers ever heard of, and not forgotten.
pub type Peers = Arc<BTreeMap<NodeId, PeerState>>;

/// The mesh. Cheap to clone. Its port stays open until every clone was dropped: what its own handlers lead to holds a [`WeakMesh`].
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

/// The mesh while it is there, for those who must not keep it.
#[derive(Clone)]
pub struct WeakMesh(Weak<Inner>);

impl WeakMesh {
    /// The mesh, if it was not dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<Mesh> {
        self.0.upgrade().map(Mesh)
    }
}

struct Inner {
    cluster: ClusterId,
    node: NodeId,
    incarnation: u64,
    epoch: Epoch,
    /// Whether it was told already that this node is of another epoch than its peers.
    left_behind: AtomicBool,
    build: String,
    port: Arc<Port>,
    handlers: Handlers,
    members: Arc<dyn Membership>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    table: Mutex<Table>,
    peers: watch::Sender<Peers>,
    /// The peers that said, when they last answered, that this node is no member.
    refused_by: watch::Sender<BTreeSet<NodeId>>,
}

#[derive(Default)]
struct Table {
    own_addresses: Vec<SocketAddr>,
    addresses: BTreeMap<NodeId, Addresses>,
    /// The highest dial number seen between us and a peer.
    dials: BTreeMap<NodeId, u64>,
    slots: BTreeMap<(NodeId, Alpn), Slot>,
}

/// The one connection to a peer for a purpose, and the one search for it.
struct Slot {
    state: watch::Sender<State>,
    /// Ends the pause between two searches.
    hurry: Arc<Notify>,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing there, and nobody looks.
    Idle,
    /// Being dialled.
    Searching,
    /// Dialled in vain; dialled again after a pause.
    Pausing(MeshError),
    /// There.
    Up(Arc<Link>),
}

impl Default for Slot {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Idle), hurry: Arc::default() }
    }
}

impl Slot {
    fn link(&self) -> Option<Arc<Link>> {
        match &*self.state.borrow() {
            State::Up(link) => Some(Arc::clone(link)),
            _ => None,
        }
    }
}

impl Mesh {
    /// Opens the port and starts to accept. Needs a tokio runtime. Ends when `shutdown` is cancelled; `tasks` then run out.
    ///
    /// # Errors
    /// If the port cannot be opened, or the identity cannot be used.
    pub fn start(
        config: Config,
        handlers: Handlers,
        members: Arc<dyn Membership>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, PortError> {
        let mut alpns = vec![Alpn::Peer, Alpn::Data, Alpn::Client];
        alpns.extend(handlers.admission.is_some().then_some(Alpn::Join));
        alpns.extend(handlers.doq.is_some().then_some(Alpn::Doq));
        let port = PortConfig {
            listen: config.listen,
            link: config.link,
            segmentation_offload: config.segmentation_offload,
            alpns,
        };
        let (cluster, node) = (config.identity.cluster, config.identity.node);
        let port = Arc::new(Port::bind(port, config.identity, Arc::clone(&clock))?);
        let inner = Arc::new(Inner {
            cluster,
            node,
            incarnation: config.incarnation,
            epoch: config.epoch,
            left_behind: AtomicBool::new(false),
            build: config.build,
            port: Arc::clone(&port),
            handlers: handlers.clone(),
            members: Arc::clone(&members),
            clock: Arc::clone(&clock),
            random,
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            table: Mutex::new(Table { own_addresses: config.addresses, ..Table::default() }),
            peers: watch::Sender::default(),
            refused_by: watch::Sender::default(),
        });
        let door = Arc::new(Door {
            acceptor: handlers.admission.clone().map(|admission| Acceptor::new(admission, clock)),
            members,
            epoch: config.epoch,
            handlers,
            peers: Arc::new(connect::Accepting(Arc::clone(&inner))),
            handshakes: Gauge::default(),
            strangers: Gauge::default(),
            tasks,
            shutdown: shutdown.clone(),
        });
        inner.tasks.spawn(port.accept(door, shutdown));
        Ok(Self(inner))
    }

    /// The mesh, for those who must not keep it.
    #[must_use]
    pub fn downgrade(&self) -> WeakMesh {
        WeakMesh(Arc::downgrade(&self.0))
    }

    /// Tells when the port is free again, after the mesh.
    #[must_use]
    pub fn port(&self) -> PortInUse {
        self.0.port.in_use()
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Where the port is open: with the port the system chose, if none was given.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.0.port.local_address()
    }

    /// Opens a stream to a member, for [`Alpn::Peer`] or [`Alpn::Data`]. The other side sees it when something was written.
    ///
    /// Waits at most 5 s for a connection to come up; while a peer is being looked for in vain it fails at once. Cancel-safe.
    ///
    /// # Errors
    /// If the node is no member, nobody knows where it is, or it does not answer where it may be.
    pub async fn open(&self, to: NodeId, alpn: Alpn) -> Result<Stream, MeshError> {
        if !matches!(alpn, Alpn::Peer | Alpn::Data) {
            return Err(MeshError::Purpose(alpn));
        }
        match timeout(OPEN, self.0.open(to, alpn)).await {
            Ok(opened) => opened,
            Err(_) => {
                let tried = Tried { address: "anywhere".to_owned(), because: "no answer within 5 s".to_owned() };
                Err(MeshError::Unreachable { node: to, tried: vec![tried] })
            }
        }
    }

    /// Tells where a member is, as the cluster's records say. A peer that is being looked for is looked for there at once.
    pub fn introduce(&self, node: NodeId, addresses: Vec<SocketAddr>) {
        if node != self.0.node {
            self.0.learn(node, Origin::Recorded, addresses);
        }
    }

    /// Tells where somebody on the local network says that a node is: tried last, and only for members.
    pub fn hear_of(&self, node: NodeId, addresses: Vec<SocketAddr>) {
        if node != self.0.node && self.0.members.is_member(node) {
            self.0.learn(node, Origin::Heard, addresses);
        }
    }

    /// Closes all connections with a node and forgets it: when it was removed.
    pub fn forget(&self, node: NodeId) {
        let links: Vec<_> = {
            let mut table = self.0.table();
            table.addresses.remove(&node);
            table.dials.remove(&node);
            let slots = [Alpn::Peer, Alpn::Data].map(|alpn| table.slots.remove(&(node, alpn)));
            slots
                .into_iter()
                .flatten()
                .filter_map(|slot| {
                    let link = slot.link();
                    slot.hurry.notify_one();
                    link
                })
                .collect()
        };
        for link in links {
            Close::NotMember.close(&link.connection);
        }
        self.0
            .peers
            .send_if_modified(|peers| peers.contains_key(&node) && Arc::make_mut(peers).remove(&node).is_some());
    }

    /// Tells where this node may be dialled from now on. What we accepted cannot follow to a new address, so it is dialled anew by us.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        let changed = {
            let mut table = self.0.table();
            let changed = table.own_addresses != addresses;
            table.own_addresses = addresses;
            changed
        };
        if changed {
            self.0.redial_accepted();
        }
    }

    /// Moves the port to another local address: when it was bound to one address, and that went away.
    ///
    /// # Errors
    /// If the new address cannot be opened; the old one stays then.
    pub fn rebind(&self, listen: SocketAddr) -> Result<(), PortError> {
        self.0.port.rebind(listen)?;
        self.0.redial_accepted();
        Ok(())
    }

    /// Takes a renewed certificate, for all connections from now on.
    ///
    /// # Errors
    /// If it cannot be used; the old one stays then.
    pub fn replace_identity(&self, identity: Identity) -> Result<(), PortError> {
        self.0.port.replace_identity(identity)
    }

    /// The peers that say that this node is no member of the cluster, or not any more: as each last answered.
    #[must_use]
    pub fn refused_by(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.0.refused_by.subscribe()
    }

    /// What is known of all peers, as it changes.
    #[must_use]
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.0.peers.subscribe()
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer took this node for a member, or refused it as one that is none.
    fn judged(&self, peer: NodeId, member: bool) {
        self.refused_by.send_if_modified(|by| if member { by.remove(&peer) } else { by.insert(peer) });
    }

    /// Shows in [`Mesh::peers`] what the table says of a peer now, and what `change` adds.
    ///
    /// The table is read under the watch's own lock, so that what is shown last is what was true last.
    fn show(&self, node: NodeId, change: impl FnOnce(&mut PeerState)) {
        self.peers.send_if_modified(|peers| {
            let mut state = peers.get(&node).cloned().unwrap_or_default();
            change(&mut state);
            {
                let table = self.table();
                let Some(known) = table.addresses.get(&node) else { return false };
                state.addresses = known.candidates();
                state.is_up = table.slots.get(&(node, Alpn::Peer)).is_some_and(|slot| slot.link().is_some());
            }
            let changed = peers.get(&node) != Some(&state);
            if changed {
                Arc::make_mut(peers).insert(node, state);
            }
            changed
        });
    }

    fn learn(&self, node: NodeId, origin: Origin, addresses: Vec<SocketAddr>) {
        let hurry: Vec<_> = {
            let mut table = self.table();
            let is_new = table.addresses.entry(node).or_default().learn(origin, addresses);
            let slots = [Alpn::Peer, Alpn::Data].into_iter().filter_map(|alpn| table.slots.get(&(node, alpn)));
            slots.filter(|_| is_new).map(|slot| (slot.state.clone(), Arc::clone(&slot.hurry))).collect()
        };
        self.show(node, |_| {});
        for (state, hurry) in hurry {
            state.send_if_modified(|state| {
                let pausing = matches!(state, State::Pausing(_));
                if pausing {
                    *state = State::Searching;
                }
                pausing
            });
            hurry.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
