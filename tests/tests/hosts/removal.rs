//! What `quorate dev` makes it removes, whatever has become of it.

use std::{fs, io::ErrorKind, path::Path, process::Command};

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
    all_have_engines(&cluster);

    // Processes go on in a network that has lost its name, where nobody can follow them.
    let (daemon, engine) = (cluster.daemon("n2"), cluster.engine("n2"));
    lose_name("n2");
    cluster.make();
    assert!(!process::lives(daemon) && !process::lives(engine), "n2 was switched on anew");
    all_have_engines(&cluster);
}

fn all_have_engines(cluster: &Cluster) {
    for host in HOSTS {
        assert_eq!(cluster.on(host, "docker version --format {{.Server.Os}}").done().trim(), "linux");
    }
}

fn lose_name(host: &str) {
    let _ = Said::by(Command::new("ip").args(["netns", "del", &format!("quorate-{host}")]), b"").done();
}

#[test]
fn a_second_up_is_not_satisfied_with_a_host_whose_power_was_cut_a_moment_ago() {
    let cluster = Cluster::up();
    let _ = cluster.done("dev kill n3");
    cluster.make();
    assert_eq!(cluster.shown("n3", "POWER"), "on");
}

#[test]
fn what_lost_its_name_and_its_directory_is_shown_and_removed() {
    let cluster = Cluster::none();
    let networks = make(&cluster);
    let daemon = cluster.daemon("n2");
    lose_name("n2");
    let said = cluster.run("dev status");
    assert!(said.code == Some(0) && said.err.contains("The network of n2 has lost its name"), "{said}");

    // Nothing on the disk remembers it any more.
    until("an empty place", PATIENCE, || match fs::remove_dir_all(machine::STATE) {
        // Those who live in it go on writing.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Err(error.to_string()),
        removed => {
            removed.unwrap();
            Ok(())
        }
    });
    cluster.run("dev status").refused(1, &["host n2", "bridge qdev0", "control group", "quorate dev down"]);
    assert!(process::lives(daemon));
    remove(&cluster, &networks);
}
