//! What is the cluster's to answer: its zone, and the reverse zones of its two address ranges.
//!
//! Both ranges' reverse zones are ours whole, so that a question about a private address of the cluster never leaves it.
//!
//! Invariant: every name belongs to exactly one of our zones, or to none; which one needs no records to tell.

use std::net::Ipv4Addr;

use hickory_proto::{
    ProtoError,
    rr::{LowerName, Name},
};
use ipnet::Ipv4Net;
use thiserror::Error;

/// What all answers are made with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) origin: Name,
    pub(crate) apex: LowerName,
    pub(crate) service_range: Ipv4Net,
    pub(crate) pod_range: Ipv4Net,
    pub(crate) server: Ipv4Addr,
    pub(crate) node: String,
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The zone is no name.
    #[error("the cluster zone {zone:?} is not a domain name")]
    Zone {
        /// What was given.
        zone: String,
        /// Why not.
        #[source]
        source: ProtoError,
    },
    /// A name of one label at least is needed: the root belongs to others.
    #[error("the cluster zone is empty: the root zone is not ours to answer")]
    Root,
    /// A range too wide for a reverse zone of its own.
    #[error("{0} is too wide a range: its addresses must have at least 8 bits in common")]
    Range(Ipv4Net),
}

impl Settings {
    /// Settings for a cluster as one node sees it: the zone (`cluster.local`), the two ranges, the address names are answered on, and
    /// the node's own name, whose pods come first in its answers.
    ///
    /// # Errors
    /// If the zone is no domain name, or a range is too wide.
    pub fn new(
        zone: &str,
        service_range: Ipv4Net,
        pod_range: Ipv4Net,
        server: Ipv4Addr,
        node: &str,
    ) -> Result<Self, SettingsError> {
        let mut origin =
            Name::from_ascii(zone).map_err(|source| SettingsError::Zone { zone: zone.to_owned(), source })?;
        origin.set_fqdn(true);
        if origin.is_root() {
            return Err(SettingsError::Root);
        }
        for range in [service_range, pod_range] {
            if range.prefix_len() < 8 {
                return Err(SettingsError::Range(range));
            }
        }
        Ok(Self { apex: LowerName::new(&origin), origin, service_range, pod_range, server, node: node.to_owned() })
    }

    /// The apex of our zone the name is in; `None` if it is a name of others.
    #[must_use]
    pub fn apex(&self, name: &LowerName) -> Option<LowerName> {
        if self.apex.zone_of(name) {
            return Some(self.apex.clone());
        }
        let network = name.parse_arpa_name().ok()?;
        let std::net::IpAddr::V4(address) = network.addr() else { return None };
        let range = [self.service_range, self.pod_range].into_iter().find(|range| range.contains(&address))?;
        // Reverse zones are cut at whole octets.
        let octets = range.prefix_len().div_ceil(8);
        (network.prefix_len() >= octets * 8).then(|| LowerName::new(&name.trim_to(2 + usize::from(octets))))
    }
}
