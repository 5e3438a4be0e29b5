//! A range of IPv4 addresses.

use std::{fmt, net::Ipv4Addr};

/// IPv4 addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Any address of the range, usually the first.
    pub address: Ipv4Addr,
    /// How many bits all addresses have in common: 0 to 32; more count as 32.
    pub prefix: u8,
}

impl Network {
    /// Whether any address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let bits = u32::from(self.prefix.min(other.prefix).min(32));
        let first = |network: Self| network.address.to_bits().checked_shr(32 - bits).unwrap_or(0);
        first(self) == first(other)
    }

    /// Whether it contains the address.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.overlaps(Self { address, prefix: 32 })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn ranges_overlap_if_one_contains_the_other() {
        let overlap = |one, other| network(one).overlaps(network(other)) && network(other).overlaps(network(one));
        assert!(overlap("10.213.0.0/16", "10.213.7.0/24"));
        assert!(overlap("10.96.0.0/12", "10.99.0.0/24"));
        assert!(overlap("0.0.0.0/0", "10.0.0.0/8"));
        assert!(!overlap("10.213.0.0/16", "10.214.0.0/16"));
        assert!(!overlap("10.213.0.1/32", "10.213.0.0/32"));
    }

    #[test]
    fn a_range_contains_its_first_and_last_address_and_not_the_next() {
        let range = network("10.213.0.0/16");
        assert!(range.contains([10, 213, 0, 0].into()) && range.contains([10, 213, 255, 255].into()));
        assert!(!range.contains([10, 214, 0, 0].into()));
    }
}
