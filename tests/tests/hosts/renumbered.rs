//! Every node gets another address, all at once: nobody knows where anybody is, and they find each other.

use std::process::{Child, Stdio};

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    pods, process,
    wait::{now, since, so, until},
};

/// A daemon that the story started on a host; it ends with the story.
struct Daemon(Child);

impl Daemon {
    fn start(cluster: &Cluster, host: &str, words: &str) -> Self {
        let log = std::fs::File::create(cluster.directory().join(format!("{host}.log"))).unwrap();
        let mut command = cluster.command(&format!("dev exec {host} -- {words}"));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What runs on the host ends with the host.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn nodes_that_all_got_new_addresses_while_they_were_off_find_each_other_and_go_on() {
    let cluster = Cluster::up();
    cluster.apply(&pods::config_map("before", "a", "b"));
    let started = HOSTS.map(|host| process::command_line(cluster.daemon(host)));
    for host in HOSTS {
        process::end(cluster.daemon(host));
    }
    for (number, host) in (1..).zip(HOSTS) {
        let (old, new) = (format!("10.99.0.{number}/24"), format!("10.99.0.{}/24", 10 + number));
        let _ = cluster.on(host, &format!("ip addr del {old} dev eth0")).done();
        let _ = cluster.on(host, &format!("ip addr add {new} dev eth0")).done();
    }
    let begun = now();
    let _daemons: Vec<_> = (1..)
        .zip(HOSTS)
        .zip(&started)
        .map(|((number, host), words)| {
            let moved = words.replace(&format!("10.99.0.{number}:"), &format!("10.99.0.{}:", 10 + number));
            assert_ne!(*words, moved, "it is told where it is");
            // It has joined already.
            let moved = moved.replace(" join ", " up ");
            Daemon::start(&cluster, host, &moved)
        })
        .collect();

    for number in 1..=HOSTS.len() {
        let asked = format!("--endpoint 10.99.0.{}:7443 --request-timeout 2s", 10 + number);
        let log = || std::fs::read_to_string(cluster.directory().join(format!("n{number}.log"))).unwrap();
        until("what was written before", PATIENCE, || {
            let said = cluster.run(&format!("get configmap before {asked}"));
            so(said.code == Some(0), format!("{said}\n{}", log()))
        });
        println!("n{number} answers {} after they were started", since(begun));
    }
    let manifest = pods::config_map("after", "a", "b");
    until("a write", PATIENCE, || {
        let said = cluster.feed("apply --endpoint 10.99.0.12:7443 --request-timeout 2s -f -", &manifest);
        so(said.code == Some(0), said.to_string())
    });
    until("nodes that say where they are now", PATIENCE, || {
        let said = cluster.run("get nodes -o wide --endpoint 10.99.0.13:7443 --request-timeout 2s");
        let there = ["10.99.0.11", "10.99.0.12", "10.99.0.13"].iter().all(|address| said.out.contains(address));
        so(there && said.out.lines().filter(|line| line.contains(" Ready ")).count() == 3, said.to_string())
    });
}
