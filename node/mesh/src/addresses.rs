//! Where a peer may be now. Pure: what was learnt from whom, and in which order to try it.
//!
//! Invariant: an address is a hint and never an identity; however many are told, a bounded number is kept and tried.

use std::{collections::BTreeMap, net::SocketAddr};

use quorate_proto::world::Instant;

/// The most addresses kept of each origin.
const MAX: usize = 16;

/// How an address came to be known. In the order of trust, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The peer said so.
    Told,
    /// The cluster's records say so.
    Recorded,
    /// Somebody on the local network says so.
    Heard,
}

/// All that is known of where one peer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    known: BTreeMap<Origin, Vec<SocketAddr>>,
    /// When an address last worked.
    worked: Vec<(Instant, SocketAddr)>,
}

impl Addresses {
    /// Replaces what one origin says. Returns whether there is now an address to try that was not there before.
    pub(crate) fn learn(&mut self, origin: Origin, addresses: impl IntoIterator<Item = SocketAddr>) -> bool {
        let before = self.candidates();
        let mut kept: Vec<SocketAddr> = Vec::new();
        for address in addresses.into_iter().map(canonical).filter(is_dialable).take(MAX) {
            if !kept.contains(&address) {
                kept.push(address);
            }
        }
        let is_new = kept.iter().any(|address| !before.contains(address));
        self.known.insert(origin, kept);
        is_new
    }

    /// Remembers that a connection lives, or lived until now, at an address.
    pub(crate) fn worked(&mut self, address: SocketAddr, now: Instant) {
        let address = canonical(address);
        self.worked.retain(|(_, other)| *other != address);
        self.worked.insert(0, (now, address));
        self.worked.truncate(2);
    }

    /// All addresses to try: what worked last first, then by origin.
    pub(crate) fn candidates(&self) -> Vec<SocketAddr> {
        let worked = self.worked.iter().map(|(_, address)| *address);
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for address in worked.chain(self.known.values().flatten().copied()) {
            if !candidates.contains(&address) && candidates.len() < MAX {
                candidates.push(address);
            }
        }
        candidates
    }
}

/// An IPv4 address seen through an IPv6 socket is the IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_dialable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_worked_last_is_tried_first() {
        let mut addresses = Addresses::default();
        addresses.learn(Origin::Recorded, [address("10.0.0.1:1"), address("10.0.0.2:1")]);
        addresses.learn(Origin::Told, [address("10.0.0.3:1")]);
        addresses.worked(address("10.0.0.2:1"), at(1));
        addresses.worked(address("10.0.0.9:1"), at(2));
        let tried: Vec<String> = addresses.candidates().iter().map(ToString::to_string).collect();
        assert_eq!(tried, ["10.0.0.9:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.1:1"]);
    }

    #[test]
    fn an_address_nobody_names_any_more_is_forgotten() {
        let mut addresses = Addresses::default();
        addresses.learn(Origin::Told, [address("10.0.0.1:1")]);
        assert!(addresses.learn(Origin::Told, [address("10.0.0.2:1")]), "a new address is worth a dial at once");
        assert!(!addresses.learn(Origin::Told, [address("10.0.0.2:1")]), "the same again is not");
        assert_eq!(addresses.candidates(), [address("10.0.0.2:1")]);
    }

    #[test]
    fn nobody_fills_the_memory_or_sends_dials_nowhere() {
        let mut addresses = Addresses::default();
        let many = (1..=1000).map(|port| SocketAddr::new([10, 0, 0, 1].into(), port));
        addresses.learn(Origin::Told, many.clone());
        addresses.learn(Origin::Recorded, many.map(|address| SocketAddr::new([10, 0, 0, 2].into(), address.port())));
        assert_eq!(addresses.candidates().len(), MAX);
        let mut addresses = Addresses::default();
        addresses.learn(Origin::Told, ["0.0.0.0:1", "10.0.0.1:0", "224.0.0.1:1"].map(address));
        assert_eq!(addresses.candidates(), []);
    }

    #[test]
    fn an_ipv4_address_seen_through_an_ipv6_socket_is_the_same_address() {
        let mut addresses = Addresses::default();
        addresses.learn(Origin::Recorded, [address("10.0.0.1:1")]);
        addresses.worked(address("[::ffff:10.0.0.1]:1"), at(1));
        assert_eq!(addresses.candidates(), [address("10.0.0.1:1")]);
    }
}
