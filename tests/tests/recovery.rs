//! Stories about the end of a quorum and what comes after, with real processes on loopback.

use quorate_tests::{
    hosts::wait::{so, until},
    processes::{Machines, PATIENCE, config_map},
};

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
";

fn ready(deployments: &str) -> bool {
    deployments.contains("3/3")
}

#[test]
fn a_survivor_goes_on_alone_others_join_it_anew_and_a_lost_member_that_returns_is_refused() {
    let mut machines = Machines::new();
    machines.found();
    machines.apply("n1", "kept", &config_map("kept"));
    machines.apply("n1", "web", WEB);
    machines.until("n1", "get deployments", ready);
    machines.until("n3", "get configmap kept --stale", |_| true);

    machines.kill("n1");
    machines.kill("n2");
    let data = machines.data("n3").display().to_string();
    let recover = ["cluster", "recover", "--data-dir", &data];
    machines.run(&recover).refused(1, &["the cluster was not recovered", "the daemon runs in"]);
    machines.stop("n3");
    let dry = machines.run(&recover);
    assert!(dry.err.contains("Nothing was changed") && dry.out.contains("Voters:       n1, n2, n3"), "{dry}");
    let yes = machines.run(&["cluster", "recover", "--data-dir", &data, "--yes"]).done();
    assert!(yes.contains("node/n3 is the cluster now: epoch 1"), "{yes}");

    machines.start("n3", None);
    machines.until("n3", "get configmap kept", |_| true);
    machines.vote("n3", 1);
    assert_eq!(machines.ask("n3", "get nodes -o name").done().trim(), "node/n3");
    machines.until("n3", "get deployments", ready);
    machines.until("n3", "get pods -o wide", |pods| pods.lines().skip(1).all(|pod| pod.contains("n3")));

    // A lost member comes back as if nothing had happened.
    machines.start("n1", None);
    until("n1 to hear that it was left behind", PATIENCE, || {
        let log = machines.logged("n1");
        so(
            log.contains("the cluster was recovered without this node") && log.contains("quorate join TOKEN --fresh"),
            log,
        )
    });
    machines.ask("n1", "delete configmap kept --request-timeout 5s").refused(3, &[]);
    machines.vote("n3", 1);
    machines.kill("n1");

    // The machines join as new nodes under their old names: one forgets what it was, one was replaced.
    let token = machines.token("n3");
    machines.start_with("n1", &["join", &token, "--fresh"]);
    machines.start("n2-anew", Some(&token));
    machines.vote("n3", 3);
    machines.until("n1", "get configmap kept", |_| true);
    machines.stop("n3");
    machines.apply("n2-anew", "later", &config_map("later"));
    machines.until("n1", "get configmap later", |_| true);
}

#[test]
fn a_backup_that_was_taken_from_a_follower_becomes_another_cluster_beside_the_first() {
    let mut machines = Machines::new();
    machines.found();
    machines.apply("n1", "kept", &config_map("kept"));
    machines.apply("n1", "web", WEB);
    machines.until("n1", "get deployments", ready);
    let file = machines.directory().join("shop.backup").display().to_string();
    let saved = machines.ask("n2", &format!("backup save {file}")).done();
    machines.apply("n1", "later", &config_map("later"));
    let inspected = machines.run(&["backup", "inspect", &file]).done();
    let counted = inspected.lines().any(|line| line.split_whitespace().eq(["deployments.apps", "1"]));
    assert!(inspected.starts_with(&saved) && counted, "{inspected}");

    let data = machines.data("m1").display().to_string();
    let restore = ["backup", "restore", &file, "--data-dir", &data, "--name", "m1"];
    machines.run(&restore).refused(1, &["the context `default` is of the cluster"]);
    let restore = [&restore[..], &["--context", "restored"]].concat();
    let dry = machines.run(&[&restore[..], &["--dry-run"]].concat());
    assert!(dry.err.contains("Nothing was written") && !machines.data("m1").exists(), "{dry}");
    let restored = machines.run(&restore).done();
    assert!(restored.starts_with(&saved), "{restored}");

    machines.start("m1", None);
    machines.until("m1", "get configmap kept", |_| true);
    assert!(!machines.ask("m1", "get configmaps -o name").done().contains("later"), "that was after the backup");
    assert_eq!(machines.ask("m1", "get nodes -o name").done().trim(), "node/m1");
    let token = machines.token("m1");
    machines.start("m2", Some(&token));
    machines.start("m3", Some(&token));
    machines.vote("m1", 3);
    machines.until("m2", "get deployments", ready);
    let cluster = |node: &str| machines.ask(node, "status").done().lines().next().map(str::to_owned);
    assert_eq!(cluster("m1"), cluster("m3"));
    assert_ne!(cluster("m1"), cluster("n1"), "they are two clusters");
    let again = [&restore[..restore.len() - 1], &["again"]].concat();
    machines.run(&again).refused(1, &["another daemon uses"]);
    machines.until("n1", "get configmap later", |_| true);
}
