//! What a user of replicasets notices.

use quorate_proto::kinds::Kind;

use super::*;
use crate::cluster::{Cluster, pod, replicaset};

#[test]
fn a_replicaset_gets_as_many_pods_as_it_asks_for() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(replicaset("web", 3));
    cluster.run();
    assert_eq!(cluster.show(), ["web n1 Ready", "web n2 Ready", "web n1 Ready"]);
    let pod = &cluster.active("web")[0].object;
    let set = cluster.get(&key);
    assert!(
        pod.is_controlled_by(&set.object) && pod.label("app") == Some("web") && pod.name().len() == "web-12345".len()
    );
    let status = set.object.at(&["status"]).unwrap();
    assert_eq!(
        *status,
        json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3, "observedGeneration": 1})
    );
}

#[test]
fn a_decision_made_twice_makes_its_pods_once() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(replicaset("web", 3));
    let [ours, theirs] = [(); 2].map(|()| cluster.decide());
    assert_eq!((cluster.carry_out(&ours), cluster.carry_out(&theirs)), (0, 1));
    assert_eq!(cluster.active("web").len(), 3);
}

#[test]
fn pods_that_replace_others_are_made_once_even_if_the_status_stays_the_same() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(replicaset("web", 3));
    cluster.settle(); // nothing is ready, so that the counts will be the same
    let first = cluster.active("web")[0].key.clone();
    cluster.patch(&first, &json!({"status": {"phase": "Failed"}}));
    let before = cluster.get(&key).object.clone();
    let [ours, theirs] = [(); 2].map(|()| cluster.decide_by(keep_replicas));
    assert_eq!((cluster.carry_out(&ours), cluster.carry_out(&theirs)), (0, 1));
    assert_eq!((cluster.active("web").len(), &cluster.get(&key).object), (3, &before));
}

#[test]
fn many_pods_are_made_a_few_at_a_time() {
    let mut cluster = Cluster::of_nodes(0);
    cluster.apply(replicaset("web", 60));
    let mut counts = Vec::new();
    while counts.last() != Some(&60) {
        let decision = cluster.decide_by(keep_replicas);
        cluster.carry_out(&decision);
        counts.push(cluster.active("web").len());
    }
    assert_eq!(counts, [25, 50, 60]);
}

#[test]
fn what_failed_finished_or_ends_is_replaced() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(replicaset("web", 3));
    cluster.run();
    let keys: Vec<_> = cluster.active("web").iter().map(|pod| pod.key.clone()).collect();
    cluster.patch(&keys[0], &json!({"status": {"phase": "Failed"}}));
    cluster.patch(&keys[1], &json!({"status": {"phase": "Succeeded"}}));
    cluster.patch(&keys[2], &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    cluster.settle();
    assert_eq!(cluster.active("web").len(), 3);
    cluster.run();
    assert_eq!(cluster.show().len(), 5, "failed and finished pods stay to be looked at");
}

#[test]
fn scaling_down_ends_what_is_missed_least() {
    let mut cluster = Cluster::of_nodes(2);
    let key = cluster.apply(replicaset("web", 4));
    cluster.run();
    let pods: Vec<_> = cluster.active("web").iter().map(|pod| pod.key.clone()).collect();
    cluster.patch(&pods[1], &json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}, "metadata": {"annotations": {"test/broken": ""}}}));
    cluster
        .patch(&pods[3], &json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}));
    cluster.patch(&key, &json!({"spec": {"replicas": 3}}));
    cluster.run();
    assert!(cluster.objects.get(&pods[1]).is_none(), "the one that is not ready goes first");
    cluster.patch(&key, &json!({"spec": {"replicas": 2}}));
    cluster.run();
    assert!(cluster.objects.get(&pods[3]).is_none(), "then the cheapest");
    cluster.patch(&key, &json!({"spec": {"replicas": 0}}));
    cluster.settle();
    let leaving = cluster.get(&pods[0]).object.at(&["metadata"]).unwrap().clone();
    assert_eq!(
        (leaving["deletionGracePeriodSeconds"].as_i64(), leaving["deletionTimestamp"].as_str()),
        (Some(30), Some("2027-01-15T08:17:10Z"))
    );
}

#[test]
fn a_pod_that_was_never_bound_goes_at_once() {
    let mut cluster = Cluster::of_nodes(0);
    let key = cluster.apply(replicaset("web", 2));
    cluster.settle();
    cluster.patch(&key, &json!({"spec": {"replicas": 0}}));
    cluster.settle();
    assert_eq!(cluster.show(), [""; 0]);
}

#[test]
fn a_pod_nobody_manages_is_adopted_and_one_that_no_longer_matches_is_let_go() {
    let mut cluster = Cluster::of_nodes(1);
    let mut lonely = pod("lonely");
    lonely["metadata"]["labels"] = json!({"app": "web"});
    let lonely = cluster.apply(lonely);
    let set = cluster.apply(replicaset("web", 1));
    cluster.run();
    assert!(cluster.get(&lonely).object.is_controlled_by(&cluster.get(&set).object));
    assert_eq!(cluster.show(), ["lonely n1 Ready"]);
    cluster.patch(&lonely, &json!({"metadata": {"labels": {"app": "debug"}}}));
    cluster.run();
    assert_eq!(cluster.get(&lonely).object.controller(), None);
    assert_eq!(cluster.show(), ["lonely n1 Ready", "web n1 Ready"]);
}

#[test]
fn a_pod_is_available_only_after_it_was_ready_for_long_enough() {
    let mut cluster = Cluster::of_nodes(1);
    let mut set = replicaset("web", 1);
    set["spec"]["minReadySeconds"] = 10.into();
    let key = cluster.apply(set);
    let available = |cluster: &Cluster| cluster.get(&key).object.at(&["status", "availableReplicas"]).cloned();
    cluster.run();
    let decision = cluster.decide_by(keep_replicas);
    assert_eq!((available(&cluster), decision.wake_at), (Some(0.into()), Some(cluster.now + Duration::from_secs(10))));
    cluster.pass(9);
    assert_eq!(available(&cluster), Some(0.into()));
    cluster.pass(1);
    assert_eq!(available(&cluster), Some(1.into()));
}

#[test]
fn nothing_is_made_in_a_namespace_that_ends() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    cluster.apply(replicaset("web", 1));
    let decision = cluster.decide_by(keep_replicas);
    assert!(decision.operations.iter().flat_map(|txn| &txn.writes).all(|write| Kind::at(write.key()) != Some(&PODS)));
}

#[test]
fn a_set_that_would_take_every_pod_takes_none() {
    let mut cluster = Cluster::of_nodes(1);
    let mut set = replicaset("web", 1);
    set["spec"]["selector"] = json!({});
    let key = cluster.apply(set);
    assert_eq!(cluster.settle().reasons[&key], "its selector is empty and would take every pod");
}
