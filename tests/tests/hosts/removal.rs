//! What `quorate dev` makes it removes, whatever has become of it.

use std::{fs, path::Path, process::Command};

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    machine, pods, process,
    said::Said,
    wait::{now, since, until},
};

fn networks() -> Vec<u64> {
    HOSTS.iter().filter_map(|host| process::network(Path::new(&format!("/run/netns/quorate-{host}")))).collect()
}

/// Makes a cluster with pods, and returns the numbers of its hosts' networks.
fn make(cluster: &Cluster) -> Vec<u64> {
    cluster.make();
    cluster.load_images();
    cluster.apply(&pods::deployment("web", 3));
    until("three ready pods", PATIENCE, || pods::ready(cluster, "web", 3, &HOSTS));
    let networks = networks();
    assert_eq!(networks.len(), 3);
    // daemon, engine and its containerd, a shim, a holder and a container for each pod, on each host.
    assert!(process::in_networks(&networks).len() >= 15, "{:#?}", process::in_networks(&networks));
    networks
}

fn remove(cluster: &Cluster, networks: &[u64]) {
    let begun = now();
    let said = cluster.done("dev down");
    assert!(said.contains("n1, n2, n3"), "{said}");
    println!("removed after {}", since(begun));
    assert_eq!(machine::traces(), Vec::<String>::new());
    assert_eq!(process::in_networks(networks), Vec::<String>::new());
    let contexts = cluster.done("context list");
    assert!(!contexts.contains("dev"), "{contexts}");
}

#[test]
fn what_was_made_is_removed_without_a_trace_also_when_half_of_it_is_broken() {
    let cluster = Cluster::none();
    let firewall = || Said::by(Command::new("iptables").args(["-w", "-S"]), b"").done();
    let firewall_before = firewall();
    let networks = make(&cluster);
    assert!(!machine::traces().is_empty(), "what is looked for can be found");

    let daemons = HOSTS.map(|host| cluster.daemon(host));
    let containers = pods::containers(&cluster);
    let begun = now();
    let _ = cluster.done("dev up");
    println!("a second `up` is done after {}", since(begun));
    assert_eq!(HOSTS.map(|host| cluster.daemon(host)), daemons, "a second `up` leaves what runs as it is");
    assert_eq!(pods::containers(&cluster), containers);
    remove(&cluster, &networks);
    assert_eq!(firewall(), firewall_before);

    // Again, broken by hand: a host without power, one without an engine and a cable, one without its daemon and data, no plan.
    let networks = make(&cluster);
    let _ = cluster.done("dev kill n2");
    process::end(cluster.engine("n3"));
    let _ = Said::by(Command::new("ip").args(["link", "del", "qdev-n3"]), b"").done();
    process::end(cluster.daemon("n1"));
    fs::remove_dir_all(cluster.data("n1")).unwrap();
    fs::remove_file(Path::new(machine::STATE).join("cluster.toml")).unwrap();
    remove(&cluster, &networks);
    assert_eq!(firewall(), firewall_before);

    // Nothing is left to remove, and that is no failure.
    let again = cluster.run("dev down");
    assert_eq!((again.code, again.err.trim()), (Some(0), "There is no cluster to remove."), "{again}");
}

#[test]
fn what_broke_is_repaired_by_a_second_up() {
    let cluster = Cluster::up();
    let _ = cluster.done("dev kill n3");
    process::end(cluster.engine("n2"));
    let _ = Said::by(Command::new("ip").args(["link", "del", "qdev-n1"]), b"").done();
    cluster.make();
    for host in HOSTS {
        assert_eq!(cluster.on(host, "docker version --format {{.Server.Os}}").done().trim(), "linux");
    }
}
