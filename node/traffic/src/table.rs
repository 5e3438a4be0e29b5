//! What to listen on, and who is behind it: pure, made anew whenever services or pods change.
//!
//! Invariant: what another part of this node listens on is never in the table, and no address outside the service range but the node's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use quorate_proto::endpoints::{PodPort, PortEndpoints, Protocol, ServiceAddress, ServiceEndpoints};
use tokio_util::task::TaskTracker;

use crate::{config::Config, pick::address};

/// Something to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The service's address, or the node's own.
    pub address: SocketAddrV4,
}

/// A port of a service, and who is behind it.
#[derive(Debug)]
pub(crate) struct ServicePort {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) endpoints: Vec<PodPort>,
}

/// All there is to listen on.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) ports: BTreeMap<Listen, Arc<ServicePort>>,
    /// What cannot be listened on, whatever the kernel says.
    pub(crate) refused: BTreeMap<Listen, String>,
    /// Where pods of this node listen, ready or about to leave: what other nodes may have dialled.
    ours: BTreeSet<(Protocol, SocketAddrV4)>,
    /// Dials to endpoints that were picked by this table.
    pub(crate) dials: TaskTracker,
}

impl Table {
    /// Makes the table. `addresses` are this node's own, for node ports.
    pub(crate) fn build(config: &Config, addresses: &[Ipv4Addr], services: &[ServiceEndpoints]) -> Self {
        let mut table = Self::default();
        for service in services {
            for port in &service.ports {
                table.add(config, addresses, service, port);
            }
        }
        table
    }

    /// Whether a pod of this node listens there.
    pub(crate) fn is_ours(&self, protocol: Protocol, endpoint: SocketAddrV4) -> bool {
        self.ours.contains(&(protocol, endpoint))
    }

    /// Whether the endpoint is still one of those behind a port, ready or leaving.
    pub(crate) fn has(&self, listen: &Listen, endpoint: SocketAddrV4) -> bool {
        self.ports.get(listen).is_some_and(|port| port.endpoints.iter().any(|end| address(end) == endpoint))
    }

    fn add(&mut self, config: &Config, addresses: &[Ipv4Addr], service: &ServiceEndpoints, port: &PortEndpoints) {
        let ours = port.endpoints.iter().filter(|end| end.endpoint.node == config.node);
        self.ours.extend(ours.map(|end| (port.protocol, address(end))));
        let ServiceAddress::Cluster(cluster) = service.address else { return };
        let entry = Arc::new(ServicePort {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: port.port,
            endpoints: port.endpoints.clone(),
        });
        let own = Listen { protocol: port.protocol, address: SocketAddrV4::new(cluster, port.port) };
        if !config.service_range.contains(&cluster) {
            let because = format!("{cluster} is outside the service range {}", config.service_range);
            self.refused.insert(own, because);
        } else if !config.reserved.contains(&own.address) {
            self.ports.insert(own, Arc::clone(&entry));
        }
        let on_nodes = port.node_port.into_iter().flat_map(|port| addresses.iter().map(move |at| (*at, port)));
        for (at, node_port) in on_nodes {
            let listen = Listen { protocol: port.protocol, address: SocketAddrV4::new(at, node_port) };
            self.ports.insert(listen, Arc::clone(&entry));
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        write!(formatter, "{}/{protocol}", self.address)
    }
}
