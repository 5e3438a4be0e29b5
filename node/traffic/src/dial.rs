//! From a service port to a connected pod: picks endpoints until one accepts.
//!
//! Invariant: another endpoint is only tried while nothing the client said has been sent.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
};

use quorate_proto::{
    endpoints::{PodPort, Protocol},
    world::Random,
};
use thiserror::Error;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

use crate::{
    carrier::{Carrier, CarryError, Receiver, Sender},
    carry::prepare,
    config::Config,
    header::{self, Flow, Header, HeaderError, Status},
    loads::{Load, Loads},
    pick::{address, pick},
    table::{Listen, Table},
};

/// Why no pod was connected.
#[derive(Debug, Error)]
pub enum DialError {
    /// The service has no ready endpoint, or none that was not tried.
    #[error("no ready pod is behind {0}")]
    NoneReady(Listen),
    /// The pod could not be dialled.
    #[error("the pod at {endpoint} does not accept")]
    Pod {
        /// Where it should listen.
        endpoint: SocketAddrV4,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The pod's node could not be reached.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// The stream to the pod's node broke.
    #[error("the stream to node {node} broke")]
    Stream {
        /// The node.
        node: String,
        /// How.
        #[source]
        source: HeaderError,
    },
    /// The pod's node did not connect it.
    #[error("node {node} did not connect the pod at {endpoint}: {status}")]
    Refused {
        /// The node.
        node: String,
        /// Where the pod should listen.
        endpoint: SocketAddrV4,
        /// What the node says.
        status: Status,
    },
    /// Neither an answer nor a failure came in time.
    #[error("the pod at {endpoint} on node {node} took longer than the limit of {} ms", limit.as_millis())]
    Deadline {
        /// The node.
        node: String,
        /// Where the pod should listen.
        endpoint: SocketAddrV4,
        /// [`Limits::dial`](crate::Limits::dial), twice for pods of other nodes.
        limit: std::time::Duration,
    },
}

/// The way to a connected pod.
pub(crate) enum Far {
    /// A pod of this node, TCP.
    Tcp(TcpStream),
    /// A pod of this node, UDP.
    Udp(UdpSocket),
    /// A pod of another node, through a stream to it.
    Stream(Sender, Receiver),
}

/// A connected pod, counted among the open connections of its endpoint.
pub(crate) struct Connected {
    pub(crate) far: Far,
    pub(crate) endpoint: SocketAddrV4,
    pub(crate) _load: Load<SocketAddrV4>,
}

/// What dialling needs.
pub(crate) struct Dialler {
    pub(crate) config: Arc<Config>,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) open: Loads<SocketAddrV4>,
}

impl Dialler {
    /// Connects a pod behind what is listened on.
    pub(crate) async fn connect(&self, listen: Listen, source: SocketAddr) -> Result<Connected, DialError> {
        let mut tried = Vec::new();
        let mut failed = DialError::NoneReady(listen);
        while tried.len() < self.config.limits.attempts {
            // Looked up anew each time: what the table says now is truer than what it said before a dial that took seconds.
            let (port, dial) = {
                let table = self.table.borrow();
                (table.ports.get(&listen).cloned(), table.dials.token())
            };
            let Some(port) = port else { break };
            let open = |endpoint| self.open.of(&endpoint);
            let random = self.random.number();
            let Some(target) = pick(&port.endpoints, &self.config.node, &tried, open, random) else { break };
            let endpoint = address(target);
            let flow = Flow {
                id: random,
                source,
                namespace: port.namespace.clone(),
                service: port.name.clone(),
                port: port.port,
                endpoint,
            };
            let Some(load) = self.open.add(endpoint, usize::MAX) else { break };
            match self.dial(listen.protocol, target, flow).await {
                Ok(far) => return Ok(Connected { far, endpoint, _load: load }),
                Err(error) => {
                    drop(dial);
                    let (namespace, service) = (&port.namespace, &port.name);
                    tracing::debug!(%namespace, %service, %endpoint, error = &error as &dyn std::error::Error, "trying another endpoint");
                    failed = error;
                    tried.push(endpoint);
                }
            }
        }
        Err(failed)
    }

    async fn dial(&self, protocol: Protocol, target: &PodPort, flow: Flow) -> Result<Far, DialError> {
        let endpoint = flow.endpoint;
        let node = &target.endpoint.node;
        let deadline = |limit| DialError::Deadline { node: node.clone(), endpoint, limit };
        let limit = self.config.limits.dial;
        if *node == self.config.node {
            let dialled = timeout(limit, dial_pod(protocol, endpoint)).await.map_err(|_| deadline(limit))?;
            return dialled.map_err(|source| DialError::Pod { endpoint, source });
        }
        // The far node has the same limit for the pod alone.
        let limit = 2 * limit;
        timeout(limit, self.dial_node(protocol, node, flow)).await.map_err(|_| deadline(limit))?
    }

    async fn dial_node(&self, protocol: Protocol, node: &str, flow: Flow) -> Result<Far, DialError> {
        let endpoint = flow.endpoint;
        let broke = |source| DialError::Stream { node: node.to_owned(), source };
        let (mut send, mut receive) = self.carrier.open(node).await?;
        let header = match protocol {
            Protocol::Tcp => Header::Connection(flow),
            Protocol::Udp => Header::Session(flow),
        };
        header::write(&mut send, &header).await.map_err(broke)?;
        let status = receive.read_u8().await.map_err(|source| broke(HeaderError::Broken(source)))?;
        match Status::from_byte(status) {
            Status::Connected => Ok(Far::Stream(send, receive)),
            status => Err(DialError::Refused { node: node.to_owned(), endpoint, status }),
        }
    }
}

/// Connects a pod of this node.
pub(crate) async fn dial_pod(protocol: Protocol, endpoint: SocketAddrV4) -> io::Result<Far> {
    match protocol {
        Protocol::Tcp => {
            let stream = TcpStream::connect(endpoint).await?;
            prepare(&stream)?;
            Ok(Far::Tcp(stream))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            socket.connect(endpoint).await?;
            Ok(Far::Udp(socket))
        }
    }
}
