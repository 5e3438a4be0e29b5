//! Who is ready behind each service: derived from services and pods on every node, stored nowhere.
//!
//! Invariant: an endpoint is listed if its pod is selected by its service, bound to a node and has an address; whether it gets traffic
//! is `ready`. A pod that is being deleted is never ready.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::{
    api::core::v1::{Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    kinds::{PODS, SERVICES},
    snapshot::Snapshot,
};

/// A service, and who stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// How it is reached.
    pub address: ServiceAddress,
    /// Its ports, each with its endpoints.
    pub ports: Vec<PortEndpoints>,
    /// The pods behind the service, whatever its ports: what a headless service resolves to.
    pub pods: Vec<Endpoint>,
    /// Whether pods that are not ready are named too.
    pub publish_not_ready: bool,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceAddress {
    /// By an address of its own, local on every node.
    Cluster(Ipv4Addr),
    /// By its pods' addresses.
    Headless,
    /// It is another name (`ExternalName`).
    Name(String),
    /// Not given out yet.
    Pending,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEndpoints {
    /// The port's name, if it has one.
    pub name: Option<String>,
    /// `TCP` or `UDP`.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
    /// The same on every node's own address, for `NodePort` services.
    pub node_port: Option<u16>,
    /// Where connections go.
    pub endpoints: Vec<PodPort>,
}

/// A transport protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A pod's port behind a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// The pod.
    pub endpoint: Endpoint,
    /// The port the pod listens on.
    pub port: u16,
}

/// A pod behind a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's name, in the service's namespace.
    pub pod: String,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The name of the node that runs it.
    pub node: String,
    /// Whether it gets new connections.
    pub ready: bool,
    /// The pod's `spec.hostname`, if its `spec.subdomain` is this service.
    pub hostname: Option<String>,
}

/// Derives the endpoints of every service.
///
/// Objects that cannot be read as what they claim to be are left out: the API lets none in, so they come from a newer version.
#[must_use]
pub fn derive(snapshot: &Snapshot) -> Vec<ServiceEndpoints> {
    let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for stored in snapshot.list(&PODS) {
        if let (Some(namespace), Ok(pod)) = (stored.object.namespace(), stored.object.view::<Pod>()) {
            pods.entry(namespace.to_owned()).or_default().push(pod);
        }
    }
    snapshot
        .list(&SERVICES)
        .filter_map(|stored| {
            let service = stored.object.view::<Service>().ok()?;
            let namespace = stored.object.namespace()?;
            Some(of_service(namespace, &service, pods.get(namespace).map_or(&[], Vec::as_slice)))
        })
        .collect()
}

fn of_service(namespace: &str, service: &Service, pods: &[Pod]) -> ServiceEndpoints {
    let name = service.metadata.name.clone().unwrap_or_default();
    let spec = service.spec.clone().unwrap_or_default();
    let address = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => ServiceAddress::Name(spec.external_name.unwrap_or_default()),
        (_, Some("None")) => ServiceAddress::Headless,
        (_, Some(text)) => text.parse().map_or(ServiceAddress::Pending, ServiceAddress::Cluster),
        (_, None) => ServiceAddress::Pending,
    };
    let selector = spec.selector.unwrap_or_default();
    let selected: Vec<(&Pod, Endpoint)> = pods
        .iter()
        .filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            !selector.is_empty()
                && selector.iter().all(|(label, value)| labels.and_then(|labels| labels.get(label)) == Some(value))
        })
        .filter_map(|pod| Some((pod, endpoint(&name, pod)?)))
        .collect();
    let ports = spec.ports.unwrap_or_default().iter().filter_map(|port| of_port(port, &selected)).collect();
    ServiceEndpoints {
        namespace: namespace.to_owned(),
        name,
        address,
        ports,
        pods: selected.into_iter().map(|(_, endpoint)| endpoint).collect(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
    }
}

fn endpoint(service: &str, pod: &Pod) -> Option<Endpoint> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(Endpoint {
        pod: pod.metadata.name.clone()?,
        address: status.pod_ip.as_deref()?.parse().ok()?,
        node: spec.node_name.clone()?,
        ready: ready && pod.metadata.deletion_timestamp.is_none(),
        hostname: spec.hostname.clone().filter(|_| spec.subdomain.as_deref() == Some(service)),
    })
}

fn of_port(port: &ServicePort, selected: &[(&Pod, Endpoint)]) -> Option<PortEndpoints> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    let endpoints = selected
        .iter()
        .filter_map(|(pod, endpoint)| Some(PodPort { endpoint: endpoint.clone(), port: target(port, pod)? }))
        .collect();
    Some(PortEndpoints {
        name: port.name.clone(),
        protocol,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()),
        endpoints,
    })
}

fn target(port: &ServicePort, pod: &Pod) -> Option<u16> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{object::Object, txn::Txn};

    fn snapshot(objects: &[Value]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for value in objects {
            let object = Object::from_value(value.clone()).unwrap();
            let kind = crate::kinds::Kind::of(object.api_version(), object.kind()).unwrap();
            let key = kind.key(object.namespace(), object.name()).unwrap();
            snapshot.commit(&Txn::new().create(key, object.to_document())).unwrap();
        }
        snapshot
    }

    fn pod(name: &str, ready: bool) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": "10.214.1.5", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.213.0.20", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    }

    #[test]
    fn a_named_port_leads_to_the_port_of_each_selected_pod() {
        let services = derive(&snapshot(&[service(), pod("a", true), pod("b", false)]));
        let [web] = &services[..] else { panic!("{services:?}") };
        assert_eq!(web.address, ServiceAddress::Cluster(Ipv4Addr::new(10, 213, 0, 20)));
        let seen: Vec<_> = web.ports[0]
            .endpoints
            .iter()
            .map(|end| (end.endpoint.pod.as_str(), end.port, end.endpoint.ready))
            .collect();
        assert_eq!(seen, [("a", 8080, true), ("b", 8080, false)]);
    }

    #[test]
    fn a_pod_that_is_being_deleted_gets_no_new_connections() {
        let mut leaving = pod("a", true);
        leaving["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
        let services = derive(&snapshot(&[service(), leaving]));
        assert!(!services[0].pods[0].ready);
    }

    #[test]
    fn what_is_not_selected_or_has_ended_or_has_no_address_is_no_endpoint() {
        let mut other = pod("other", true);
        other["metadata"]["labels"]["app"] = json!("db");
        let mut ended = pod("ended", true);
        ended["status"]["phase"] = json!("Succeeded");
        let mut starting = pod("starting", true);
        starting["status"]["podIP"] = Value::Null;
        let services = derive(&snapshot(&[service(), other, ended, starting]));
        assert_eq!(services[0].pods, []);
    }
}
