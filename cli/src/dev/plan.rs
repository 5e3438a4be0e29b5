//! What a cluster on one machine consists of: names, addresses, directories. Pure.
//!
//! Every name follows from the number of hosts, so whatever a crash left behind is found by its name.
//!
//! Invariant: names fit the kernel's limit of 15 bytes for links, and belong to nothing else.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use quorate_proto::refusal::{Reason, Refusal};
use serde::{Deserialize, Serialize};

/// The bridge between the hosts.
pub(crate) const BRIDGE: &str = "qdev0";

/// The context that is written for the cluster.
pub(crate) const CONTEXT: &str = "dev";

/// The context of the simulated one.
pub(crate) const SIMULATED_CONTEXT: &str = "dev-simulated";

/// Where the hosts' control groups are, below each hierarchy.
pub(crate) const CONTROL_GROUP: &str = "quorate-dev";

/// The one port of every daemon.
const PORT: u16 = 7443;

/// What namespaces begin with.
pub(crate) const NAMESPACE: &str = "quorate-";

/// What the names of the cables' ends in the bridge begin with.
pub(crate) const LINK: &str = "qdev-";

/// How many hosts there are if nothing is said.
pub(crate) const NODES: u8 = 3;

/// The network of simulated hosts: all of it is this machine's own on Linux.
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 99, 0), 24);

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// How many hosts.
    pub(crate) nodes: u8,
    /// The hosts' network.
    pub(crate) range: Ipv4Net,
    /// Whether pods are simulated and hosts are only processes on loopback.
    pub(crate) simulated: bool,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// `n1`: also the node's name.
    pub(crate) name: String,
    /// `quorate-n1`: its network namespace.
    pub(crate) namespace: String,
    /// `qdev-n1`: its cable's end in the bridge.
    pub(crate) link: String,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Everything it keeps.
    pub(crate) directory: PathBuf,
}

impl Plan {
    /// The plan for what was asked, given what there is already.
    ///
    /// # Errors
    /// If there are more hosts already, or in another network.
    pub(crate) fn new(
        nodes: Option<u8>,
        range: Ipv4Net,
        simulated: bool,
        there: Option<&Self>,
    ) -> Result<Self, Refusal> {
        let what = "the cluster was not made";
        let range = if simulated { LOOPBACK } else { range };
        if range.prefix_len() != 24 || range.trunc() != range {
            return Err(Refusal::new(Reason::Invalid, what, format!("{range} is no /24 network"))
                .hint("write it as 10.99.0.0/24"));
        }
        let Some(there) = there else { return Ok(Self { nodes: nodes.unwrap_or(NODES), range, simulated }) };
        if there.range != range {
            return Err(Refusal::new(Reason::Conflict, what, format!("there is one already, in {}", there.range))
                .hint("`quorate dev down` removes it"));
        }
        let nodes = nodes.unwrap_or(there.nodes);
        if nodes < there.nodes {
            let because = format!("there is one already, with {} hosts, and none is taken away", there.nodes);
            return Err(Refusal::new(Reason::Conflict, what, because)
                .hint("`quorate dev kill n3` switches a host off; `quorate dev down` removes the cluster"));
        }
        Ok(Self { nodes, range, simulated })
    }

    /// The hosts, the first one founds the cluster.
    pub(crate) fn hosts(&self, base: &Path) -> Vec<Host> {
        (1..=self.nodes).map(|number| self.host(number, base)).collect()
    }

    fn host(&self, number: u8, base: &Path) -> Host {
        let name = format!("n{number}");
        Host {
            namespace: namespace(&name),
            link: link(&name),
            address: Ipv4Addr::from_bits(self.range.network().to_bits() + u32::from(number)),
            directory: base.join(&name),
            name,
        }
    }

    /// The bridge's own address: where this machine is seen from the hosts.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.network().to_bits() + 254)
    }

    /// The context's name.
    pub(crate) const fn context(&self) -> &'static str {
        if self.simulated { SIMULATED_CONTEXT } else { CONTEXT }
    }

    /// Checks that no route of this machine leads to the hosts' network, given the text of `ip -4 route`.
    ///
    /// # Errors
    /// If one does, other than our own bridge's.
    pub(crate) fn check_routes(&self, routes: &str) -> Result<(), Refusal> {
        let meets = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let network = words
                .first()
                .and_then(|word| word.parse::<Ipv4Net>().or_else(|_| word.parse::<Ipv4Addr>().map(Ipv4Net::from)).ok());
            let ours = words.windows(2).any(|pair| pair == ["dev", BRIDGE]);
            !ours && network.is_some_and(|network| network.contains(&self.range) || self.range.contains(&network))
        };
        match routes.lines().find(meets) {
            None => Ok(()),
            Some(route) => Err(Refusal::new(
                Reason::Conflict,
                "the cluster was not made",
                format!("the hosts' network {} meets the route `{}` of this machine", self.range, route.trim()),
            )
            .hint("choose another /24 with --range, for example --range 10.98.0.0/24")),
        }
    }
}

impl Host {
    /// Where the daemon is reached.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::from((self.address, PORT))
    }

    /// Where the daemon keeps its state.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The Docker Engine's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// Where a process of the host logs.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.directory.join(format!("{process}.log"))
    }

    /// What the daemon is started with, after the verb and its token.
    pub(crate) fn daemon(&self, plan: &Plan) -> Vec<String> {
        let mut arguments: Vec<_> = [
            ("--context", plan.context().to_owned()),
            ("--data-dir", self.data().display().to_string()),
            ("--listen", self.endpoint().to_string()),
            ("--advertise", self.endpoint().to_string()),
            ("--name", self.name.clone()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        if plan.simulated {
            arguments.push("--simulated".to_owned());
        } else {
            arguments.extend(["--docker".to_owned(), format!("unix://{}", self.socket().display())]);
        }
        arguments
    }
}

/// The network namespace of a host.
pub(crate) fn namespace(host: &str) -> String {
    format!("{NAMESPACE}{host}")
}

/// The end of a host's cable in the bridge.
pub(crate) fn link(host: &str) -> String {
    format!("{LINK}{host}")
}

/// The name, if it is a host's: `n3`.
pub(crate) fn host_of(name: &str) -> Option<&str> {
    name.strip_prefix('n').and_then(|number| number.parse::<u8>().ok()).map(|_| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Ipv4Net {
        "10.99.0.0/24".parse().unwrap()
    }

    fn plan(nodes: u8) -> Plan {
        Plan::new(Some(nodes), range(), false, None).unwrap()
    }

    #[test]
    fn hosts_are_named_and_addressed_by_their_number() {
        let hosts = plan(50).hosts(Path::new("/var/lib/quorate-dev"));
        let last = &hosts[49];
        assert_eq!(
            (last.name.as_str(), last.namespace.as_str(), last.link.as_str()),
            ("n50", "quorate-n50", "qdev-n50")
        );
        assert_eq!(last.endpoint().to_string(), "10.99.0.50:7443");
        assert!(hosts.iter().all(|host| host.link.len() <= 15 && host.address != plan(50).gateway()));
        // A Unix socket's path has at most 107 bytes.
        assert!(last.socket().as_os_str().len() <= 107);
        assert!(hosts.iter().all(|host| host_of(&host.name) == Some(&host.name)));
        assert_eq!((host_of("nx"), host_of("other-n1"), host_of("lock")), (None, None, None));
    }

    #[test]
    fn the_daemon_is_started_as_a_person_would_start_it() {
        let words = |plan: &Plan, base| plan.hosts(Path::new(base))[0].daemon(plan).join(" ");
        let simulated = Plan::new(None, range(), true, None).unwrap();
        insta::assert_snapshot!(
            [words(&plan(1), "/var/lib/quorate-dev"), words(&simulated, "/home/a/.local/state/quorate-dev")].join("\n")
        );
    }

    #[test]
    fn a_second_up_keeps_what_there_is_and_only_adds_to_it() {
        let there = plan(3);
        assert_eq!(Plan::new(None, range(), false, Some(&there)), Ok(plan(3)));
        assert_eq!(Plan::new(Some(5), range(), false, Some(&there)), Ok(plan(5)));
        let refused = [
            Plan::new(Some(2), range(), false, Some(&there)),
            Plan::new(Some(3), "10.98.0.0/24".parse().unwrap(), false, Some(&there)),
            Plan::new(Some(3), "10.98.0.0/16".parse().unwrap(), false, None),
        ];
        insta::assert_snapshot!(refused.map(|refused| refused.unwrap_err().to_string()).join("\n"));
    }

    #[test]
    fn a_network_that_a_route_leads_to_is_refused() {
        let ours = "default via 192.0.2.1 dev eth0\n172.17.0.0/16 dev docker0 proto kernel scope link\n10.99.0.0/24 dev qdev0 proto kernel\n";
        assert_eq!(plan(3).check_routes(ours), Ok(()));
        for other in ["10.0.0.0/8 dev tun0", "10.99.0.7 dev eth1", "10.99.0.128/25 via 10.1.1.1 dev eth0"] {
            assert!(plan(3).check_routes(other).is_err(), "{other}");
        }
        insta::assert_snapshot!(plan(3).check_routes("10.0.0.0/8 dev tun0 scope link ").unwrap_err());
    }
}
