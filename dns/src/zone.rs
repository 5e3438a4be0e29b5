//! What names there are: services, their pods, nodes. The records of the Kubernetes DNS specification 1.1.0, and `<node>.node`.
//!
//! Invariant: a zone never changes; a newer one replaces it whole. If a name is in it, so are all names above it, so that "no such name"
//! is never said of a name that has names below it (RFC 8020).

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use hickory_proto::rr::{
    LowerName, Name, RData,
    rdata::{CNAME, PTR, SOA, SRV, TXT},
};
use quorate_proto::endpoints::{Endpoint, Protocol, ServiceAddress, ServiceEndpoints};

use crate::settings::Settings;

/// Seconds a service's own records may be kept by who asked.
pub const SERVICE_TTL: u32 = 30;
/// Seconds records that follow pods may be kept, and answers that say there is nothing.
pub const POD_TTL: u32 = 5;
/// The version of the specification the names follow.
pub const SPECIFICATION: &str = "1.1.0";

/// What a zone is made from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// All services, and who stands behind them.
    pub services: &'a [ServiceEndpoints],
    /// Namespace and address of all pods. Pods behind services need not be repeated here.
    pub pods: &'a [(String, Ipv4Addr)],
    /// Name and address of all nodes.
    pub nodes: &'a [(String, Ipv4Addr)],
}

/// All names of the cluster at one revision.
#[derive(Debug)]
pub struct Zone {
    settings: Arc<Settings>,
    serial: u32,
    names: HashMap<LowerName, Vec<Held>>,
}

/// One record under a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) data: RData,
    /// Seconds.
    pub(crate) ttl: u32,
    /// Whether it leads to this very node.
    pub(crate) here: bool,
}

impl Zone {
    /// Makes the zone of a revision. The serial number is the revision's lower half: it only ever grows, modulo 2³² (RFC 1982).
    ///
    /// What does not fit a domain name is left out: the API admits no such names, so they come from a newer version.
    #[must_use]
    pub fn build(settings: &Arc<Settings>, sources: &Sources<'_>, revision: u64) -> Self {
        let mut zone = Self { settings: Arc::clone(settings), serial: revision as u32, names: HashMap::new() };
        let server = RData::A(settings.server.into());
        let version = RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]));
        zone.add(zone.name_server(), server, SERVICE_TTL, false);
        zone.add(zone.under(&["dns-version"]), version, SERVICE_TTL, false);
        for (node, address) in sources.nodes {
            let labels: Vec<&str> = node.split('.').chain(["node"]).collect();
            zone.add(zone.under(&labels), RData::A((*address).into()), SERVICE_TTL, false);
        }
        for (namespace, address) in sources.pods {
            zone.add_pod(namespace, *address);
        }
        for service in sources.services {
            zone.add_service(service);
            for pod in &service.pods {
                zone.add_pod(&service.namespace, pod.address);
            }
        }
        zone
    }

    /// The zone's serial number.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// What is held under a name; `None` if there is no such name.
    pub(crate) fn find(&self, name: &LowerName) -> Option<&[Held]> {
        self.names.get(name).map(Vec::as_slice)
    }

    /// The name of the server of our zones.
    pub(crate) fn name_server(&self) -> Option<Name> {
        self.under(&["ns", "dns"])
    }

    /// The start of authority of all our zones. Its last field is how long "there is nothing" may be kept (RFC 2308).
    pub(crate) fn authority(&self) -> RData {
        let server = self.name_server().unwrap_or_else(|| self.settings.origin.clone());
        let mailbox = self.under(&["hostmaster"]).unwrap_or_else(|| self.settings.origin.clone());
        RData::SOA(SOA::new(server, mailbox, self.serial, 7200, 1800, 86400, POD_TTL))
    }

    fn add_service(&mut self, service: &ServiceEndpoints) {
        let Some(own) = self.under(&[&service.name, &service.namespace, "svc"]) else { return };
        match &service.address {
            ServiceAddress::Cluster(address) => {
                self.add(Some(own.clone()), RData::A((*address).into()), SERVICE_TTL, false);
                self.add(reverse(*address), RData::PTR(PTR(own.clone())), SERVICE_TTL, false);
                for port in &service.ports {
                    let target = RData::SRV(SRV::new(0, 100, port.port, own.clone()));
                    self.add(port_name(&own, port.name.as_deref(), port.protocol), target, SERVICE_TTL, false);
                }
            }
            ServiceAddress::Headless => self.add_headless(service, &own),
            ServiceAddress::Name(target) => {
                let mut target = Name::from_ascii(target).ok();
                if let Some(target) = &mut target {
                    target.set_fqdn(true);
                }
                if let Some(target) = target.filter(|target| !target.is_root()) {
                    self.add(Some(own), RData::CNAME(CNAME(target)), SERVICE_TTL, false);
                }
            }
            ServiceAddress::Pending => {}
        }
    }

    fn add_headless(&mut self, service: &ServiceEndpoints, own: &Name) {
        let named = |endpoint: &&Endpoint| endpoint.ready || service.publish_not_ready;
        for endpoint in service.pods.iter().filter(named) {
            let here = endpoint.node == self.settings.node;
            let Some(pod) = pod_name(own, endpoint) else { continue };
            let address = RData::A(endpoint.address.into());
            self.add(Some(own.clone()), address.clone(), POD_TTL, here);
            self.add(Some(pod.clone()), address, POD_TTL, here);
            self.add(reverse(endpoint.address), RData::PTR(PTR(pod)), POD_TTL, false);
        }
        for port in &service.ports {
            for target in port.endpoints.iter().filter(|target| named(&&target.endpoint)) {
                let Some(pod) = pod_name(own, &target.endpoint) else { continue };
                let here = target.endpoint.node == self.settings.node;
                let data = RData::SRV(SRV::new(0, 100, target.port, pod));
                self.add(port_name(own, port.name.as_deref(), port.protocol), data, POD_TTL, here);
            }
        }
    }

    fn add_pod(&mut self, namespace: &str, address: Ipv4Addr) {
        self.add(self.under(&[&dashed(address), namespace, "pod"]), RData::A(address.into()), POD_TTL, false);
    }

    /// A name in the cluster zone, from its labels in the order they are written.
    fn under(&self, labels: &[&str]) -> Option<Name> {
        labels.iter().rev().try_fold(self.settings.origin.clone(), |name, label| below(&name, label))
    }

    /// Adds a record, and the names above it. A name outside our zones is left out: nobody would be sent here for it.
    fn add(&mut self, name: Option<Name>, data: RData, ttl: u32, here: bool) {
        let Some(name) = name.map(|name| LowerName::new(&name)) else { return };
        let Some(apex) = self.settings.apex(&name) else { return };
        let mut above = name.base_name();
        let held = self.names.entry(name).or_default();
        let record = Held { data, ttl, here };
        if !held.contains(&record) {
            held.push(record);
        }
        while above.num_labels() > apex.num_labels() && !self.names.contains_key(&above) {
            let next = above.base_name();
            self.names.insert(above, Vec::new());
            above = next;
        }
    }
}

fn below(name: &Name, label: &str) -> Option<Name> {
    name.prepend_label(label.to_ascii_lowercase().as_bytes()).ok()
}

fn port_name(service: &Name, port: Option<&str>, protocol: Protocol) -> Option<Name> {
    let protocol = match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
    };
    below(&below(service, protocol)?, &format!("_{}", port?))
}

fn pod_name(service: &Name, endpoint: &Endpoint) -> Option<Name> {
    match &endpoint.hostname {
        Some(hostname) => below(service, hostname),
        None => below(service, &dashed(endpoint.address)),
    }
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn reverse(address: Ipv4Addr) -> Option<Name> {
    Some(Name::from(address))
}
