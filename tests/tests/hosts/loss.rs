//! A host is lost: what was acknowledged stays, writing goes on, its pods run elsewhere.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    pods,
    said::Said,
    wait::{now, seconds, since, so, until},
};

/// Writes resume this soon after the leader's death.
const WRITES_RESUME: Duration = Duration::from_secs(3);

/// A dead node's pods are elsewhere this soon, and then they start.
const PODS_MOVE: Duration = Duration::from_secs(10);

/// How long ten pods may take to start.
const START: Duration = Duration::from_secs(20);

/// How many objects are applied while a host is lost, and how many of them before.
const OBJECTS: usize = 40;
const BEFORE: usize = 10;

/// An object that was acknowledged: its name, when it was begun, when it was done.
struct Written {
    name: String,
    begun: Instant,
    done: Instant,
}

#[test]
fn any_host_lost_while_objects_are_applied_takes_nothing_acknowledged_with_it_and_its_pods_run_elsewhere() {
    let cluster = Cluster::up();
    cluster.load_images();
    let begun = now();
    cluster.apply(&pods::deployment("ten", 10));
    let pods = until("ten ready pods", PATIENCE, || pods::ready(&cluster, "ten", 10, &HOSTS));
    println!("ten replicas are ready on three hosts after {}", since(begun));
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.node.as_str()).collect();
    assert!(nodes.into_iter().eq(HOSTS), "pods on every host: {pods:#?}");

    let leader = until("a leader", PATIENCE, || cluster.leader());
    let mut acknowledged = BTreeSet::new();
    let others = HOSTS.into_iter().filter(|host| *host != leader);
    for lost in [leader.as_str()].into_iter().chain(others) {
        let left: Vec<_> = HOSTS.into_iter().filter(|host| *host != lost).collect();
        let (written, killed, dead) = lose_while_writing(&cluster, lost);

        let resumed = written.iter().find(|written| written.begun >= dead).expect("a write after the loss");
        let resumed = resumed.done - killed;
        println!("{lost} is lost: the next write is acknowledged after {}", seconds(resumed));
        assert!(
            resumed <= WRITES_RESUME,
            "writes resume within {WRITES_RESUME:?} of the loss of {lost}, not {resumed:?}"
        );

        until("ten pods on the hosts that are left", PODS_MOVE.saturating_sub(killed.elapsed()), || {
            let pods = pods::of(&cluster, "ten")?;
            let elsewhere = pods.iter().filter(|pod| !pod.ending && left.contains(&pod.node.as_str())).count();
            so(elsewhere == 10, format!("{pods:#?}"))
        });
        println!("{lost} is lost: its pods are placed elsewhere after {}", since(killed));
        let patience = (PODS_MOVE + START).saturating_sub(killed.elapsed());
        until("ten ready pods on the hosts that are left", patience, || pods::ready(&cluster, "ten", 10, &left));
        println!("{lost} is lost: its pods run elsewhere after {}", since(killed));

        acknowledged.extend(written.into_iter().map(|written| written.name));
        holds(&cluster, "", &acknowledged);
        let _ = cluster.done(&format!("dev start {lost}"));
        cluster.wait_for_voters();
        holds(&cluster, &format!("--endpoint 10.99.0.{}:7443", &lost[1..]), &acknowledged);
    }
    assert_eq!(acknowledged.len(), 3 * OBJECTS, "each write was acknowledged at last");
}

/// Applies objects one by one while a host loses its power. Returns what was acknowledged, and when the host was killed and was dead.
fn lose_while_writing(cluster: &Cluster, lost: &str) -> (Vec<Written>, Instant, Instant) {
    let (acknowledge, acknowledged) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..OBJECTS {
                let name = format!("during-the-loss-of-{lost}-{number}");
                let begun = now();
                let said: Said = cluster.feed("apply -f -", &pods::config_map(&name, "number", &number.to_string()));
                if said.code == Some(0) {
                    acknowledge.send(Written { name, begun, done: now() }).unwrap();
                } else {
                    println!("{said}");
                }
            }
        });
        let mut written: Vec<_> = acknowledged.iter().take(BEFORE).collect();
        let killed = now();
        let _ = cluster.done(&format!("dev kill {lost}"));
        let dead = now();
        written.extend(acknowledged);
        (written, killed, dead)
    })
}

/// Checks that every acknowledged object is there, as the nodes that are asked see it.
fn holds(cluster: &Cluster, asked: &str, acknowledged: &BTreeSet<String>) {
    let shown = cluster.done(&format!("get configmaps -o name {asked}"));
    let shown: BTreeSet<_> = shown.lines().filter_map(|line| line.split_once('/')).map(|(_, name)| name).collect();
    let missing: Vec<_> = acknowledged.iter().filter(|name| !shown.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "acknowledged, and not there {asked}: {missing:?}");
}

/// Pulls the cable of a host, or plugs it in again.
fn cable(host: &str, state: &str) {
    let _ = Said::by(Command::new("ip").args(["link", "set", &format!("qdev-{host}"), state]), b"").done();
}

#[test]
fn a_node_that_was_deleted_while_it_was_cut_off_ends_its_pods_when_it_hears_of_it() {
    let cluster = Cluster::up();
    cluster.load_images();
    cluster.apply(&pods::deployment("web", 3));
    until("three ready pods", PATIENCE, || pods::ready(&cluster, "web", 3, &HOSTS));
    let cut = pods::of(&cluster, "web").unwrap()[0].node.clone();
    let left: Vec<_> = HOSTS.into_iter().filter(|host| *host != cut).collect();
    let on_it = || cluster.on(&cut, "docker ps --quiet").done();
    assert!(!on_it().is_empty());

    cable(&cut, "down");
    until("three ready pods on the hosts that are left", PATIENCE, || pods::ready(&cluster, "web", 3, &left));
    assert!(!on_it().is_empty(), "it cannot know");
    until("the end of its node", PATIENCE, || {
        let said = cluster.run(&format!("delete node {cut}"));
        so(said.code == Some(0), said.to_string())
    });
    cable(&cut, "up");
    until("the end of its pods", PATIENCE, || {
        let left = on_it();
        so(left.is_empty(), left)
    });
}

#[test]
fn without_a_quorum_nothing_is_written_and_the_exit_code_says_so_while_stale_reads_go_on() {
    let cluster = Cluster::up();
    cluster.apply(&pods::config_map("before", "a", "b"));
    for lost in ["n1", "n2"] {
        let _ = cluster.done(&format!("dev kill {lost}"));
    }
    let refused = cluster.feed("apply -f - --request-timeout 3s", &pods::config_map("after", "a", "b"));
    refused.refused(3, &[]);
    cluster.run("get configmaps --request-timeout 3s").refused(3, &[]);
    let stale = cluster.done("get configmaps -o name --stale --endpoint 10.99.0.3:7443");
    assert_eq!(stale.trim(), "configmap/before");

    let _ = cluster.done("dev start n1");
    until("a quorum", PATIENCE, || cluster.leader());
    let shown = cluster.done("get configmaps -o name");
    assert_eq!(shown.trim(), "configmap/before", "what was refused did not happen later");
}

#[test]
fn when_nobody_is_reachable_the_exit_code_is_3() {
    let cluster = Cluster::up();
    cluster.run("get nodes --endpoint 10.99.0.77:7443 --request-timeout 1s").refused(3, &["10.99.0.77:7443"]);
    for host in HOSTS {
        let _ = cluster.done(&format!("dev kill {host}"));
    }
    cluster.run("get nodes --request-timeout 2s").refused(3, &[]);
    cluster.feed("apply -f - --request-timeout 2s", &pods::config_map("a", "b", "c")).refused(3, &[]);
}
