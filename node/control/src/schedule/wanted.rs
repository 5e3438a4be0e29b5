//! What a waiting pod asks of a node, read once.
//!
//! Invariant: what cannot be read keeps the pod waiting with a reason; it is never taken for "asks nothing".

use std::collections::BTreeSet;

use quorate_proto::{
    k8s::api::core::v1::{NodeSelector, NodeSelectorRequirement, Toleration},
    object::Object,
    selector::{Requirement, Selector},
};
use serde_json::Value;

use super::resources::Resources;
use crate::{
    edit::{items, view},
    ownership::controller_uid,
    taint::tolerations,
};

/// A pod's wishes.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) controller: Option<String>,
    pub(super) resources: Resources,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) selector: Selector,
    /// Required node affinity: one of the terms must hold.
    pub(super) affinity: Option<Vec<Term>>,
    pub(super) host_ports: BTreeSet<HostPort>,
}

/// A port on the node itself: its protocol and number.
pub(super) type HostPort = (String, u64);

/// Requirements that hold together; one without any holds for no node, as in Kubernetes.
#[derive(Debug)]
pub(super) struct Term {
    labels: Vec<Requirement>,
    names: Vec<Requirement>,
}

impl Wanted {
    /// Reads a pod.
    ///
    /// # Errors
    /// In words, if something cannot be read.
    pub(super) fn of(pod: &Object) -> Result<Self, String> {
        Ok(Self {
            controller: controller_uid(pod).map(str::to_owned),
            resources: Resources::of_pod(pod)?,
            tolerations: tolerations(pod),
            selector: Selector::of_labels(pod.strings(&["spec", "nodeSelector"])),
            affinity: affinity(pod)?,
            host_ports: host_ports(pod),
        })
    }
}

/// The ports a pod takes on its node. With `hostNetwork` that is every port it names.
pub(super) fn host_ports(pod: &Object) -> BTreeSet<HostPort> {
    let on_host = pod.at(&["spec", "hostNetwork"]).and_then(Value::as_bool) == Some(true);
    let containers = items(pod, &["spec", "containers"]).iter();
    let ports = containers.filter_map(|container| container.get("ports").and_then(Value::as_array)).flatten();
    ports
        .filter_map(|port| {
            let number = |field: &str| port.get(field).and_then(Value::as_u64).filter(|number| *number > 0);
            let number = number("hostPort").or_else(|| number("containerPort").filter(|_| on_host))?;
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            Some((protocol.to_owned(), number))
        })
        .collect()
}

fn affinity(pod: &Object) -> Result<Option<Vec<Term>>, String> {
    let path = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    if pod.at(&path).is_none_or(Value::is_null) {
        return Ok(None);
    }
    let selector: NodeSelector =
        view(pod, &path).map_err(|error| format!("its node affinity cannot be read: {error}"))?;
    let requirements = |list: Option<Vec<NodeSelectorRequirement>>| {
        let requirement = |wish: NodeSelectorRequirement| {
            Requirement::new(&wish.key, &wish.operator, &wish.values.unwrap_or_default())
                .map_err(|error| format!("its node affinity is refused: {error}"))
        };
        list.into_iter().flatten().map(requirement).collect::<Result<Vec<_>, _>>()
    };
    let terms = selector.node_selector_terms.into_iter().map(|term| {
        Ok(Term { labels: requirements(term.match_expressions)?, names: requirements(term.match_fields)? })
    });
    terms.collect::<Result<Vec<_>, String>>().map(Some)
}

impl Term {
    /// Whether a node is meant.
    pub(super) fn holds(&self, node: &Object) -> bool {
        let by_field = |field: &Requirement| field.label() == "metadata.name" && field.holds(Some(node.name()));
        !(self.labels.is_empty() && self.names.is_empty())
            && self.labels.iter().all(|requirement| requirement.holds(node.label(requirement.label())))
            && self.names.iter().all(by_field)
    }
}
