//! What the whole cluster has agreed on: its ranges, its zone, its certificate authority.
//!
//! They are chosen at `quorate up`, stored as the one object of the kind `Cluster`, and handed to every node that joins.
//!
//! Invariant: ranges never overlap each other, and never change once nodes and services have addresses from them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use quorate_proto::{ids::ClusterId, kinds::CLUSTERS, object::Object, snapshot::Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

/// The name of the one `Cluster` object.
pub const CLUSTER: &str = "cluster";

/// How many addresses a node's part of the pod range has: a /24.
pub const NODE_PREFIX: u8 = 24;

/// The cluster's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Where service addresses come from; local on every node.
    pub service_range: Ipv4Net,
    /// Where pod addresses come from; a /24 for each node.
    pub pod_range: Ipv4Net,
    /// What cluster names end in.
    pub zone: String,
}

/// Settings no cluster can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The ranges overlap.
    #[error("the service range {service} and the pod range {pods} overlap")]
    Overlap {
        /// The service range.
        service: Ipv4Net,
        /// The pod range.
        pods: Ipv4Net,
    },
    /// A range is too small or too large.
    #[error("the {name} range {range} is a /{}: it must be between /{smallest} and /{largest}", range.prefix_len())]
    Size {
        /// `service` or `pod`.
        name: &'static str,
        /// The range.
        range: Ipv4Net,
        /// The smallest range, by its longest prefix.
        smallest: u8,
        /// The largest range, by its shortest prefix.
        largest: u8,
    },
}

impl ClusterSettings {
    /// Checks that a cluster can have them.
    ///
    /// # Errors
    /// If the ranges overlap, or hold too few or too many addresses.
    pub fn check(&self) -> Result<(), SettingsError> {
        let (service, pods) = (self.service_range, self.pod_range);
        if service.contains(&pods) || pods.contains(&service) {
            return Err(SettingsError::Overlap { service, pods });
        }
        for (name, range, smallest, largest) in [("service", service, 24, 12), ("pod", pods, NODE_PREFIX - 2, 8)] {
            if range.prefix_len() > smallest || range.prefix_len() < largest {
                return Err(SettingsError::Size { name, range, smallest, largest });
            }
        }
        Ok(())
    }

    /// Where cluster DNS answers: the tenth address of the service range.
    #[must_use]
    pub fn dns_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.service_range.network().to_bits() + 10)
    }

    /// The parts of the pod range that nodes get, lowest first. The first part stays free, so that a node's number is its part's.
    pub fn node_ranges(&self) -> impl Iterator<Item = Ipv4Net> + use<> {
        self.pod_range.subnets(NODE_PREFIX).into_iter().flatten().skip(1)
    }

    /// The `Cluster` object that holds them, with what else is to be kept in its spec.
    #[must_use]
    pub fn to_object(&self, rest: &Value) -> Option<Object> {
        let mut object = Object::from_value(json!({
            "apiVersion": CLUSTERS.api_version(), "kind": CLUSTERS.kind, "metadata": {"name": CLUSTER}, "spec": self,
        }))
        .ok()?;
        object.merge(&json!({ "spec": rest }));
        Some(object)
    }

    /// Reads them from a snapshot; `None` before the cluster is founded.
    #[must_use]
    pub fn read(snapshot: &Snapshot) -> Option<Self> {
        let stored = snapshot.find(&CLUSTERS, None, CLUSTER)?;
        Self::deserialize(stored.object.at(&["spec"])?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(service: &str, pods: &str) -> ClusterSettings {
        ClusterSettings {
            cluster_id: ClusterId(7),
            service_range: service.parse().unwrap(),
            pod_range: pods.parse().unwrap(),
            zone: "cluster.local".to_owned(),
        }
    }

    #[test]
    fn ranges_that_overlap_or_are_too_small_are_refused_with_the_reason() {
        assert_eq!(settings("10.213.0.0/16", "10.214.0.0/16").check(), Ok(()));
        let said = |service, pods| settings(service, pods).check().unwrap_err().to_string();
        assert_eq!(
            said("10.0.0.0/12", "10.14.0.0/16"),
            "the service range 10.0.0.0/12 and the pod range 10.14.0.0/16 overlap"
        );
        assert_eq!(
            said("10.213.0.0/28", "10.214.0.0/16"),
            "the service range 10.213.0.0/28 is a /28: it must be between /24 and /12"
        );
    }

    #[test]
    fn nodes_get_a_part_each_and_names_the_tenth_address() {
        let settings = settings("10.213.0.0/16", "10.214.0.0/16");
        let ranges: Vec<_> = settings.node_ranges().take(2).map(|range| range.to_string()).collect();
        assert_eq!(ranges, ["10.214.1.0/24", "10.214.2.0/24"]);
        assert_eq!(settings.dns_address().to_string(), "10.213.0.10");
    }

    #[test]
    fn what_is_stored_is_read_back_whatever_else_the_object_holds() {
        let settings = settings("10.213.0.0/16", "10.214.0.0/16");
        let object = settings.to_object(&json!({"authority": {"certificate": "…"}})).unwrap();
        let mut snapshot = Snapshot::default();
        let key = CLUSTERS.key(None, CLUSTER).unwrap();
        snapshot.commit(&quorate_proto::txn::Txn::new().create(key, object.to_document())).unwrap();
        assert_eq!(ClusterSettings::read(&snapshot), Some(settings));
    }
}
