//! Where this machine can be reached, and whom it asks for names of others.
//!
//! Invariant: addresses of bridges and containers are never told to other nodes.

use std::net::{IpAddr, SocketAddr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// Interfaces that lead to containers, not to other machines.
const INNER: [&str; 5] = ["docker", "br-", "veth", "quorate", "cni"];

/// Where a daemon tells others to dial it: where it is told to, or else where it can be dialled.
#[must_use]
pub(crate) fn told(listen: SocketAddr, advertise: &[SocketAddr]) -> Vec<SocketAddr> {
    if advertise.is_empty() { advertised(listen) } else { advertise.to_vec() }
}

/// This machine's name, as a node's; empty if it has none.
#[must_use]
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.map(|name| name.to_ascii_lowercase()).unwrap_or_default()
}

/// Where others can dial a daemon that listens there: the address itself, or this machine's addresses if it is the wildcard.
#[must_use]
fn advertised(listen: SocketAddr) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    let mut found = own();
    if found.is_empty() {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found.into_iter().map(|address| SocketAddr::new(address, listen.port())).collect()
}

/// Whether an interface leads to other machines, by its name.
#[must_use]
pub(crate) fn leads_outside(interface: &str) -> bool {
    interface != "lo" && !INNER.iter().any(|inner| interface.starts_with(inner))
}

/// This machine's IPv4 addresses on interfaces that lead outside, as the kernel lists them.
fn own() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP)
                && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
                && leads_outside(&interface.interface_name)
        })
        .filter_map(|interface| Some(IpAddr::V4(interface.address?.as_sockaddr_in()?.ip())))
        .collect()
}

/// The resolvers a `resolv.conf` names, in order (resolv.conf(5)).
#[must_use]
pub(crate) fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    let addresses = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())??.parse().ok()
    });
    addresses.map(|address: IpAddr| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_host_s_own_resolver_reads_them() {
        let text =
            "# comment\nsearch lan\nnameserver 192.168.1.1\n nameserver ::1\noptions ndots:1\nnameserver nonsense\n";
        let read: Vec<_> = resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.168.1.1:53", "[::1]:53"]);
    }

    #[test]
    fn a_daemon_that_listens_on_one_address_is_dialled_there() {
        let listen: SocketAddr = "127.0.0.1:7443".parse().unwrap();
        assert_eq!(advertised(listen), [listen]);
    }
}
