//! The one UDP port: accepts, finds out who calls and for what, and hands the connection on.
//!
//! TLS decides on certificates before it knows the purpose, so it lets callers without one through; [`admit`] is the one place where
//! (purpose, caller) is mapped to what may follow, and everything it does not name is refused.
//!
//! Invariant: no stream of a connection is read before [`admit`] allowed the connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime as _, TokioRuntime};
use quorate_proto::{
    hello::Epoch,
    ids::NodeId,
    world::{Clock, Timestamp},
};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    addresses::canonical,
    alpn::Alpn,
    certificate::{Leaf, Subject, server_name},
    error::PortError,
    identity::{Identity, IdentityError},
    join::accept::Acceptor,
    limits::{CONNECTIONS_PER_ADDRESS, Gauge},
    link::Close,
    mesh::{Handlers, Membership},
    settings::{self, HANDSHAKE, MAX_HANDSHAKES, RETRY_ABOVE},
    socket,
    stream::Stream,
    tls,
};

/// Who opened a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whom its certificate names; `None` without one.
    pub subject: Option<Subject>,
    /// Where it calls from. May change during a connection, and proves nothing.
    pub address: SocketAddr,
    /// What for.
    pub alpn: Alpn,
}

impl Caller {
    /// The node that calls, if it is one.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        match self.subject {
            Some(Subject::Node(node)) => Some(node),
            _ => None,
        }
    }
}

/// Serves the streams of one purpose. Each is served in a task of its own, which ends with the mesh.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Serves one stream, until it is dropped. A stream that is dropped before it was finished is reset.
    async fn stream(&self, caller: Caller, stream: Stream);
}

/// What follows for a connection.
#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    /// Hellos, then streams either way.
    Peer(NodeId),
    /// Streams for a handler.
    Serve(Option<Subject>),
    /// One attempt to join; of a node, to begin anew under another id.
    Join(Option<NodeId>),
}

/// The one choke point: what may this caller do with this purpose?
fn admit(alpn: Alpn, leaf: Option<&Leaf>, own: &Identity, members: &dyn Membership) -> Result<Admitted, Close> {
    if leaf.is_some_and(|leaf| leaf.cluster != own.cluster) {
        return Err(Close::Forbidden);
    }
    match (alpn, leaf.map(|leaf| &leaf.subject)) {
        (Alpn::Peer | Alpn::Data | Alpn::Client, Some(Subject::Node(node))) if !members.is_member(*node) => {
            Err(Close::NotMember)
        }
        (Alpn::Peer | Alpn::Data, Some(Subject::Node(node))) if *node != own.node => Ok(Admitted::Peer(*node)),
        (Alpn::Client, Some(subject)) => Ok(Admitted::Serve(Some(subject.clone()))),
        (Alpn::Doq, subject) => Ok(Admitted::Serve(subject.cloned())),
        (Alpn::Join, None) => Ok(Admitted::Join(None)),
        // Whether it was a member once, and may begin anew, is decided with the request.
        (Alpn::Join, Some(Subject::Node(node))) => Ok(Admitted::Join(Some(*node))),
        _ => Err(Close::Forbidden),
    }
}

/// What identifies this node in TLS: replaced as a whole when its certificate is renewed.
struct Trust {
    identity: Identity,
    peer: quinn::ClientConfig,
    data: quinn::ClientConfig,
}

/// How the port is opened.
pub(crate) struct PortConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) link: settings::LinkClass,
    pub(crate) segmentation_offload: bool,
    pub(crate) alpns: Vec<Alpn>,
}

/// Tells when a port is free again: QUIC's own tasks hold its socket for a moment after everybody else has let go.
#[derive(Clone)]
pub struct PortInUse(Arc<Mutex<Weak<dyn AsyncUdpSocket>>>);

impl PortInUse {
    fn of(socket: &Arc<dyn AsyncUdpSocket>) -> Self {
        Self(Arc::new(Mutex::new(Arc::downgrade(socket))))
    }

    fn moved(&self, socket: &Arc<dyn AsyncUdpSocket>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(socket);
    }

    /// Waits until another process, or this one, may open the port. Ends only after the mesh and all clones of it were dropped.
    pub async fn freed(&self) {
        while self.0.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0 {
            sleep(FREED).await;
        }
    }
}

/// How often it is looked whether a port is free: QUIC does not say.
const FREED: Duration = Duration::from_millis(5);

/// The open port.
pub(crate) struct Port {
    endpoint: Endpoint,
    in_use: PortInUse,
    trust: ArcSwap<Trust>,
    config: PortConfig,
    clock: Arc<dyn Clock>,
    /// One change of identity at a time.
    replacing: Mutex<()>,
}

impl Port {
    /// Opens the port. Needs a tokio runtime.
    pub(crate) fn bind(config: PortConfig, identity: Identity, clock: Arc<dyn Clock>) -> Result<Self, PortError> {
        let (trust, server) = trust(&config, identity, &clock)?;
        let listen = config.listen;
        let failed = |source| PortError::Bind { listen, source };
        let socket = TokioRuntime.wrap_udp_socket(socket::bind(listen)?).map_err(failed)?;
        let in_use = PortInUse::of(&socket);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(server), socket, runtime);
        let (endpoint, trust) = (endpoint.map_err(failed)?, ArcSwap::from_pointee(trust));
        Ok(Self { endpoint, in_use, trust, config, clock, replacing: Mutex::new(()) })
    }

    pub(crate) fn in_use(&self) -> PortInUse {
        self.in_use.clone()
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap_or(self.config.listen)
    }

    /// Moves to another local address. What we dialled follows; what we accepted does not.
    pub(crate) fn rebind(&self, listen: SocketAddr) -> Result<(), PortError> {
        let failed = |source| PortError::Bind { listen, source };
        let socket = TokioRuntime.wrap_udp_socket(socket::bind(listen)?).map_err(failed)?;
        self.endpoint.rebind_abstract(Arc::clone(&socket)).map_err(failed)?;
        self.in_use.moved(&socket);
        Ok(())
    }

    /// Takes a renewed identity for all connections from now on.
    pub(crate) fn replace_identity(&self, identity: Identity) -> Result<(), PortError> {
        let _one = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let (trust, server) = trust(&self.config, identity, &self.clock)?;
        self.trust.store(Arc::new(trust));
        self.endpoint.set_server_config(Some(server));
        Ok(())
    }

    /// Dials a node at one address and checks that it is that node. Its own check of us shows in its hello, not here.
    pub(crate) async fn dial(&self, to: NodeId, alpn: Alpn, address: SocketAddr) -> Result<quinn::Connection, String> {
        let trust = self.trust.load_full();
        let config = if alpn == Alpn::Data { trust.data.clone() } else { trust.peer.clone() };
        let name = server_name(trust.identity.cluster, to);
        let connecting = self.endpoint.connect_with(config, address, &name).map_err(|error| error.to_string())?;
        let connection = match timeout(HANDSHAKE, connecting).await {
            Ok(connected) => connected.map_err(|error| crate::error::because(&error))?,
            Err(_) => return Err("no answer".to_owned()),
        };
        match tls::presented(&connection) {
            (_, Ok(Some(leaf))) if leaf.subject == Subject::Node(to) && leaf.cluster == trust.identity.cluster => {
                Ok(connection)
            }
            _ => {
                Close::Forbidden.close(&connection);
                Err("another node answered".to_owned())
            }
        }
    }

    /// Accepts until shutdown, then closes every connection and waits until the peers were told, at most a second.
    pub(crate) async fn accept(self: Arc<Self>, door: Arc<Door>, shutdown: CancellationToken) {
        loop {
            let incoming = tokio::select! {
                () = shutdown.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let waiting = door.handshakes.count();
            if waiting >= RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
                // It fails only for an address that was validated.
                incoming.retry().unwrap_or_else(|error| error.into_incoming().refuse());
                continue;
            }
            let address = canonical(incoming.remote_address());
            let Some(entered) = door.handshakes.enter(address.ip(), MAX_HANDSHAKES, MAX_HANDSHAKES) else {
                incoming.refuse();
                continue;
            };
            let (port, door) = (Arc::clone(&self), Arc::clone(&door));
            let shutdown = shutdown.clone();
            door.tasks.clone().spawn(async move {
                let handshake = async { timeout(HANDSHAKE, incoming.accept().ok()?).await.ok()?.ok() };
                let connection = handshake.await;
                drop(entered);
                if let Some(connection) = connection {
                    tokio::select! {
                        () = shutdown.cancelled() => Close::Stopping.close(&connection),
                        () = port.serve(&door, &connection, address) => {}
                    }
                }
            });
        }
        self.endpoint.close(Close::Stopping.code(), Close::Stopping.reason().as_bytes());
        // A peer that is not told notices by itself.
        timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await.unwrap_or_default();
    }

    async fn serve(&self, door: &Arc<Door>, connection: &quinn::Connection, address: SocketAddr) {
        let (alpn, leaf) = tls::presented(connection);
        let (Some(alpn), Ok(leaf)) = (alpn, leaf) else {
            return Close::Forbidden.close(connection);
        };
        let admitted = admit(alpn, leaf.as_ref(), &self.trust.load().identity, &*door.members);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(close) => {
                // Recovering removes the members that are left behind: most who call and are none were members then.
                let recovered = close == Close::NotMember && door.epoch != Epoch::default();
                let close = if recovered { Close::OtherEpoch } else { close };
                tracing::debug!(%address, %alpn, subject = ?leaf.map(|leaf| leaf.subject), because = close.reason(), "refused");
                return close.close(connection);
            }
        };
        settings::widen(connection, alpn, self.config.link);
        match admitted {
            Admitted::Peer(node) => door.peers.accepted(connection.clone(), node, alpn).await,
            Admitted::Join(node) => match &door.acceptor {
                Some(acceptor) => acceptor.serve(connection, node, address).await,
                None => Close::Forbidden.close(connection),
            },
            Admitted::Serve(subject) => {
                let handler = match alpn {
                    Alpn::Doq => door.handlers.doq.as_ref(),
                    _ => Some(&door.handlers.client),
                };
                let Some(handler) = handler else { return Close::Forbidden.close(connection) };
                let entered = door.strangers.enter(address.ip(), CONNECTIONS_PER_ADDRESS, MAX_HANDSHAKES);
                let Some(_entered) = entered else { return Close::Busy.close(connection) };
                let caller = Caller { subject, address, alpn };
                tokio::select! {
                    () = expiry(connection, leaf.map(|leaf| leaf.not_after), &*self.clock) => {}
                    () = serve_streams(connection, handler, &caller, &door.tasks, &door.shutdown) => {}
                }
            }
        }
    }
}

/// What the port hands connections to.
pub(crate) struct Door {
    pub(crate) members: Arc<dyn Membership>,
    pub(crate) epoch: Epoch,
    pub(crate) handlers: Handlers,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) peers: Arc<dyn PeerConnections>,
    pub(crate) handshakes: Gauge,
    pub(crate) strangers: Gauge,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// Takes over accepted connections of peers.
#[async_trait]
pub(crate) trait PeerConnections: Send + Sync {
    /// Exchanges hellos on it and keeps it, or closes it. Returns when that is decided.
    async fn accepted(&self, connection: quinn::Connection, node: NodeId, alpn: Alpn);
}

/// Hands each stream of a connection to its handler, until the connection ends.
pub(crate) async fn serve_streams(
    connection: &quinn::Connection,
    handler: &Arc<dyn Handler>,
    caller: &Caller,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let in_use = TaskTracker::new();
    while let Ok(streams) = connection.accept_bi().await {
        let stream = Stream::new(connection, in_use.token(), streams);
        serve_stream(handler, caller.clone(), stream, tasks, shutdown);
    }
}

/// Serves one stream in a task of its own.
pub(crate) fn serve_stream(
    handler: &Arc<dyn Handler>,
    caller: Caller,
    stream: Stream,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let (handler, shutdown) = (Arc::clone(handler), shutdown.clone());
    tasks.spawn(async move { shutdown.run_until_cancelled_owned(handler.stream(caller, stream)).await });
}

/// Ends when the other side's certificate does, and closes the connection: connections outlive certificates otherwise.
pub(crate) async fn expiry(connection: &quinn::Connection, not_after: Option<Timestamp>, clock: &dyn Clock) {
    let Some(not_after) = not_after else { return std::future::pending().await };
    loop {
        let left = not_after.as_second().saturating_sub(clock.wall().as_second());
        match u64::try_from(left) {
            // The wall clock may jump, and timers have a longest duration: look again at least once a day.
            Ok(left) if left > 0 => sleep(Duration::from_secs(left.min(86_400))).await,
            _ => return Close::Expired.close(connection),
        }
    }
}

fn trust(
    config: &PortConfig,
    identity: Identity,
    clock: &Arc<dyn Clock>,
) -> Result<(Trust, quinn::ServerConfig), IdentityError> {
    let credentials = &identity.credentials;
    let roots = tls::roots(&credentials.authorities).map_err(IdentityError::Untrusted)?;
    let verifier = tls::client_verifier(Arc::clone(&roots)).map_err(IdentityError::Untrusted)?;
    let server = tls::server(credentials, verifier, &config.alpns, Arc::clone(clock))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(settings::accepted(config.link, config.segmentation_offload));
    settings::limit_strangers(&mut server);
    let client = |alpn| {
        let verifier = tls::server_verifier(Arc::clone(&roots)).map_err(IdentityError::Untrusted)?;
        let client = tls::client(Some(credentials), verifier, alpn, Arc::clone(clock))?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(settings::dialled(alpn, config.link, config.segmentation_offload));
        Ok::<_, IdentityError>(client)
    };
    let (peer, data) = (client(Alpn::Peer)?, client(Alpn::Data)?);
    Ok((Trust { identity, peer, data }, server))
}

#[cfg(test)]
mod tests;
