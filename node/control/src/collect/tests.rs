//! What is removed, and what is not.

use quorate_proto::kinds::{CONFIGMAPS, REPLICASETS, SERVICES};
use serde_json::{Value, json};

use super::*;
use crate::cluster::{Cluster, deployment, pod};

fn config(name: &str, owner: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [owner]}})
}

#[test]
fn what_a_deployment_owned_goes_with_it_and_pods_go_gracefully() {
    let mut cluster = Cluster::of_nodes(1);
    let key = cluster.apply(deployment("web", 2, "web:1"));
    cluster.run();
    cluster.remove(&key);
    cluster.settle();
    assert_eq!(cluster.show(), ["web n1 Terminating", "web n1 Terminating"]);
    assert_eq!(cluster.objects.list(&REPLICASETS).count(), 0);
    cluster.run();
    assert_eq!(cluster.show(), [""; 0]);
}

#[test]
fn only_an_owner_that_is_known_to_be_gone_counts() {
    let mut cluster = Cluster::of_nodes(0);
    let key = cluster.apply(deployment("web", 0, "web:1"));
    let uid = cluster.get(&key).object.uid().to_owned();
    let owner =
        |kind: &str, version: &str, uid: &str| json!({"apiVersion": version, "kind": kind, "name": "web", "uid": uid});
    cluster.apply(config("kept", &owner("Deployment", "apps/v1", &uid)));
    cluster.apply(config("another", &owner("Deployment", "apps/v1", "its-namesake")));
    cluster.apply(config("stranger", &owner("Gadget", "example.com/v1", "who-knows")));
    let mut shared = config("shared", &owner("Deployment", "apps/v1", "gone"));
    shared["metadata"]["ownerReferences"].as_array_mut().unwrap().push(owner("Deployment", "apps/v1", &uid));
    cluster.apply(shared);
    cluster.settle();
    let left: Vec<_> = cluster.objects.list(&CONFIGMAPS).map(|found| found.object.name().to_owned()).collect();
    assert_eq!(left, ["kept", "shared", "stranger"]);
}

#[test]
fn a_decision_is_void_if_the_owner_appears_meanwhile() {
    let mut cluster = Cluster::of_nodes(0);
    let owner = json!({"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u1"});
    let key = cluster.apply(config("a", &owner));
    let decision = cluster.decide();
    cluster.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "uid": "u1"}}));
    assert_eq!(cluster.carry_out(&decision), 1);
    assert!(cluster.objects.get(&key).is_some());
}

#[test]
fn finalizers_are_waited_for() {
    let mut cluster = Cluster::of_nodes(0);
    let owner = json!({"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "gone"});
    let mut held = config("a", &owner);
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let key = cluster.apply(held);
    cluster.settle();
    assert!(is_terminating(&cluster.get(&key).object));
    cluster.patch(&key, &json!({"metadata": {"finalizers": null}}));
    cluster.settle();
    assert!(cluster.objects.get(&key).is_none());
}

#[test]
fn a_pod_whose_node_is_gone_or_that_never_had_one_does_not_end_for_ever() {
    let mut cluster = Cluster::of_nodes(1);
    let mut lost = pod("lost");
    lost["spec"]["nodeName"] = "n9".into();
    cluster.apply(lost);
    let mut unbound = pod("unbound");
    unbound["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
    cluster.apply(unbound);
    let mut orphan = pod("orphan");
    orphan["spec"]["nodeName"] = "n9".into();
    orphan["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
    orphan["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "gone", "controller": true}]);
    cluster.apply(orphan);
    cluster.settle();
    assert_eq!(cluster.show(), [""; 0]);
}

#[test]
fn the_address_of_a_service_that_is_gone_is_free_again() {
    let mut cluster = Cluster::of_nodes(0);
    let service = cluster.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}));
    let uid = cluster.get(&service).object.uid().to_owned();
    let owner = json!({"kind": "Service", "namespace": "default", "name": "web", "uid": uid});
    let address = cluster.apply(json!({"apiVersion": "quorate.dev/v1", "kind": "Address", "metadata": {"name": "10.213.0.7"}, "spec": {"owner": owner}}));
    cluster.settle();
    assert!(cluster.objects.get(&address).is_some());
    assert_eq!(cluster.objects.list(&SERVICES).count(), 1);
    cluster.remove(&service);
    cluster.settle();
    assert!(cluster.objects.get(&address).is_none());
}
