//! What a waiting pod asks of a node, read once.
//!
//! Invariant: what cannot be read keeps the pod waiting with a reason; it is never taken for "asks nothing".

use std::collections::BTreeSet;

use quorate_proto::{k8s::api::core::v1::Toleration, object::Object};
use serde_json::Value;

use super::resources::Resources;
use crate::{affinity::Affinity, edit::items, ownership::controller_uid, taint::tolerations};

/// A pod's wishes.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) controller: Option<String>,
    pub(super) resources: Resources,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) affinity: Affinity,
    pub(super) host_ports: BTreeSet<HostPort>,
}

/// A port on the node itself: its protocol and number.
pub(super) type HostPort = (String, u64);

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
            affinity: Affinity::of(pod)?,
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
