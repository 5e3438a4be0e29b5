//! Nodes on one local network find each other by multicast DNS (RFC 6762, RFC 6763) when no address that they know is good any more:
//! after all of them got new ones.
//!
//! A node tells a digest of its cluster's id, its own id and where it is, and nothing that is secret. What is heard is a hint like any
//! other address: who answers there has to prove who it is, and strangers are not dialled at all.
//!
//! Invariant: others are looked for only while nobody leads, and a node that is not looked for sends nothing after it has started.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use data_encoding::HEXLOWER;
use mdns_sd::{IfKind, IfPredicate, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use quorate_mesh::Mesh;
use quorate_proto::ids::{ClusterId, NodeId};
use quorate_raft::Status;
use ring::digest;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::addresses;

/// The service, as others on the network see it.
const SERVICE: &str = "_quorate._udp.local.";

/// The properties of the service: which cluster, by a digest of its id, and which node.
const CLUSTER: &str = "cluster";
const NODE: &str = "node";

/// Nobody has led for so long before others are looked for: an election is over by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the interfaces of this machine are looked at, in seconds.
const INTERFACES: u32 = 60;

/// The most addresses of a node that are heard.
const MAX_HEARD: usize = 16;

/// Tells where a node is, and listens for the others of its cluster.
pub(crate) struct Lan {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This node's addresses, as others are told them.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Is told what is heard.
    pub(crate) mesh: Mesh,
    /// Who leads.
    pub(crate) status: watch::Receiver<Status>,
}

impl Lan {
    /// Runs until the token is cancelled. A machine without a network, or on which multicast is not possible, does without.
    pub(crate) async fn keep(mut self, shutdown: CancellationToken) {
        let Some(service) = service(self.cluster, self.mesh.node(), &self.addresses) else { return };
        let daemon = match announce(service) {
            Ok(daemon) => daemon,
            Err(error) => return tracing::warn!(%error, "this node cannot be found by others on its local network"),
        };
        if let Some(Err(error)) = shutdown.run_until_cancelled(self.listen(&daemon)).await {
            tracing::warn!(%error, "others on the local network are not looked for any more");
        }
        if let Err(error) = daemon.shutdown() {
            tracing::debug!(%error, "multicast DNS had ended already");
        }
    }

    /// Looks for others whenever nobody leads. Returns when the store stops.
    async fn listen(&mut self, daemon: &ServiceDaemon) -> Result<(), mdns_sd::Error> {
        loop {
            if self.status.wait_for(|status| status.leader.is_none()).await.is_err() {
                return Ok(());
            }
            if timeout(PATIENCE, led(self.status.clone())).await.is_ok() {
                continue;
            }
            let found = daemon.browse(SERVICE)?;
            let hearing = async {
                while let Ok(event) = found.recv_async().await {
                    if let ServiceEvent::ServiceResolved(service) = event {
                        self.hear(&service);
                    }
                }
                // Too much came at once: what is there is asked for again.
                sleep(PATIENCE).await;
            };
            tokio::select! {
                () = hearing => {}
                () = led(self.status.clone()) => {}
            }
            daemon.stop_browse(SERVICE)?;
        }
    }

    fn hear(&self, service: &ResolvedService) {
        let property = |name| service.get_property_val_str(name);
        let addresses = service.get_addresses_v4();
        if let Some(node) = of_cluster(self.cluster, property(CLUSTER), property(NODE))
            && node != self.mesh.node()
        {
            let mut heard: Vec<_> =
                addresses.into_iter().map(|address| SocketAddr::new(address.into(), service.get_port())).collect();
            heard.sort_unstable();
            heard.truncate(MAX_HEARD);
            tracing::debug!(%node, ?heard, "heard of on the local network");
            self.mesh.hear_of(node, heard);
        }
    }
}

/// Waits until somebody leads, or nobody tells any more.
async fn led(mut status: watch::Receiver<Status>) {
    status.wait_for(|status| status.leader.is_some()).await.map(drop).unwrap_or_default();
}

/// What is told about a node; `None` if it can be reached from its own machine only.
fn service(cluster: ClusterId, node: NodeId, addresses: &[SocketAddr]) -> Option<ServiceInfo> {
    let outer = |address: &&SocketAddr| address.is_ipv4() && !address.ip().is_loopback();
    // A service has one port.
    let port = addresses.iter().find(outer)?.port();
    let addresses: Vec<IpAddr> =
        addresses.iter().filter(outer).filter(|address| address.port() == port).map(SocketAddr::ip).collect();
    let node = node.to_string();
    let properties = [(CLUSTER, digest_of(cluster)), (NODE, node.clone())];
    let host = format!("{node}.local.");
    ServiceInfo::new(SERVICE, &node, &host, addresses.as_slice(), port, &properties[..]).ok()
}

/// Tells it on every interface that leads to other machines.
fn announce(service: ServiceInfo) -> Result<ServiceDaemon, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    daemon.disable_interface(IfKind::All)?;
    let outer = IfPredicate::new(|interface| addresses::leads_outside(&interface.name));
    daemon.enable_interface(IfKind::Predicate(outer))?;
    daemon.set_ip_check_interval(INTERFACES)?;
    daemon.register(service)?;
    Ok(daemon)
}

/// Who it is that was heard, if it says that it belongs to this cluster.
fn of_cluster(cluster: ClusterId, digest: Option<&str>, node: Option<&str>) -> Option<NodeId> {
    (digest? == digest_of(cluster)).then(|| node?.parse().ok())?
}

/// What others may know of a cluster's id.
fn digest_of(cluster: ClusterId) -> String {
    let digest = digest::digest(&digest::SHA256, cluster.to_string().as_bytes());
    HEXLOWER.encode(&digest.as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELLAR: ClusterId = ClusterId(7);

    fn told(addresses: &[&str]) -> Option<ServiceInfo> {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        service(CELLAR, NodeId(1), &addresses)
    }

    #[test]
    fn a_node_tells_where_it_is_and_whose_it_is_and_is_understood_by_its_cluster_only() {
        let told = told(&["127.0.0.1:7443", "192.168.1.4:7443", "10.0.0.4:7443", "10.0.0.5:9"]).unwrap();
        let mut addresses: Vec<_> = told.get_addresses_v4().into_iter().map(ToString::to_string).collect();
        addresses.sort();
        assert_eq!((told.get_port(), addresses), (7443, vec!["10.0.0.4".to_owned(), "192.168.1.4".to_owned()]));
        let property = |name| told.get_property_val_str(name);
        assert_eq!(of_cluster(CELLAR, property(CLUSTER), property(NODE)), Some(NodeId(1)));
        assert_eq!(of_cluster(ClusterId(8), property(CLUSTER), property(NODE)), None, "of another cluster");
        assert_eq!(of_cluster(CELLAR, property(CLUSTER), Some("n1")), None, "no id");
        assert_eq!(of_cluster(CELLAR, None, property(NODE)), None);
        assert!(!format!("{told:?}").contains(&CELLAR.to_string()), "the cluster's id itself is nobody's business");
    }

    #[test]
    fn a_node_that_only_its_own_machine_reaches_tells_nothing() {
        assert!(told(&["127.0.0.1:7443"]).is_none());
        assert!(told(&[]).is_none());
    }
}
