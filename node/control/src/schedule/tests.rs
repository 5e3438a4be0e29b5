//! What a user of the scheduler notices.

use quorate_proto::{key::Key, kinds::NODES};
use serde_json::json;

use crate::cluster::{Cluster, large_pod, node, pod, replicaset};

fn why(cluster: &Cluster, pod: &Key) -> String {
    let object = &cluster.get(pod).object;
    let condition = object.condition("PodScheduled").unwrap();
    assert_eq!((condition["status"].as_str(), condition["reason"].as_str()), (Some("False"), Some("Unschedulable")));
    condition["message"].as_str().unwrap().to_owned()
}

#[test]
fn pods_of_one_set_are_spread_over_the_nodes_and_bound_once() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.apply(replicaset("web", 6));
    cluster.run();
    for name in ["n1", "n2", "n3"] {
        assert_eq!(cluster.show().iter().filter(|line| line.contains(name)).count(), 2, "{name}");
    }
    let pod = &cluster.active("web")[0].object;
    assert!(pod.is_true("PodScheduled"));
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_is_bound_when_there_is_room() {
    let mut cluster = Cluster::of_nodes(3);
    let cordoned = NODES.key(None, "n1").unwrap();
    cluster.patch(&cordoned, &json!({"spec": {"unschedulable": true}}));
    for filler in ["a", "b"] {
        cluster.apply(large_pod(filler, 3));
    }
    cluster.run();
    let waiting = cluster.apply(large_pod("waiting", 2));
    let decision = cluster.settle();
    assert_eq!(why(&cluster, &waiting), "0 of 3 nodes fit: 1 cordoned, 2 short of memory");
    assert_eq!(decision.reasons[&waiting], why(&cluster, &waiting));
    cluster.patch(&cordoned, &json!({"spec": {"unschedulable": null}}));
    cluster.run();
    assert_eq!(cluster.show(), ["a n2 Ready", "b n3 Ready", "waiting n1 Ready"]);
}

#[test]
fn two_pods_decided_together_never_count_on_the_same_room() {
    let mut cluster = Cluster::of_nodes(1);
    for name in ["a", "b"] {
        cluster.apply(large_pod(name, 3));
    }
    cluster.run();
    assert_eq!(cluster.show(), ["a n1 Ready", "b - Pending"]);
}

#[test]
fn a_pod_that_is_ending_keeps_its_room_until_it_is_gone() {
    let mut cluster = Cluster::of_nodes(1);
    let first = cluster.apply(large_pod("a", 3));
    cluster.run();
    cluster.patch(&first, &json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}));
    cluster.apply(large_pod("b", 3));
    cluster.settle();
    assert_eq!(cluster.show(), ["a n1 Terminating", "b - Pending"]);
    cluster.run();
    assert_eq!(cluster.show(), ["b n1 Ready"]);
}

#[test]
fn every_filter_has_its_reason() {
    let mut cluster = Cluster::of_nodes(0);
    let waiting = cluster.apply(pod("a"));
    cluster.settle();
    assert_eq!(why(&cluster, &waiting), "there are no nodes");

    let mut tainted = node("n1");
    tainted["spec"] = json!({"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]});
    cluster.apply(tainted);
    let mut down = node("n2");
    down["status"]["conditions"][0]["status"] = "Unknown".into();
    cluster.apply(down);
    for name in ["n1", "n2"] {
        cluster.heard.insert(name.into(), cluster.now);
    }
    cluster.settle();
    assert_eq!(why(&cluster, &waiting), "0 of 2 nodes fit: 1 not ready, 1 tainted dedicated=db");

    let mut cluster = Cluster::of_nodes(1);
    let mut wishes = pod("selector");
    wishes["spec"]["nodeSelector"] = json!({"disk": "fast"});
    let selector = cluster.apply(wishes);
    let mut wishes = pod("affinity");
    let terms =
        json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n1"]}]}]);
    wishes["spec"]["affinity"] =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let affinity = cluster.apply(wishes);
    let mut wishes = pod("gpu");
    wishes["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
    let gpu = cluster.apply(wishes);
    let mut wishes = pod("port1");
    wishes["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
    cluster.apply(wishes.clone());
    wishes["metadata"]["name"] = "port2".into();
    let port = cluster.apply(wishes);
    cluster.settle();
    for (key, reason) in [
        (selector, "not matching nodeSelector"),
        (affinity, "not matching node affinity"),
        (gpu, "short of nvidia.com/gpu"),
        (port, "with host port 8080 taken"),
    ] {
        assert_eq!(why(&cluster, &key), format!("0 of 1 nodes fit: 1 {reason}"));
    }
}

#[test]
fn tolerations_open_tainted_nodes_and_others_are_preferred() {
    let mut cluster = Cluster::of_nodes(2);
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "slow", "effect": effect}]}});
    cluster.patch(&NODES.key(None, "n1").unwrap(), &taint("PreferNoSchedule"));
    cluster.apply(pod("a"));
    cluster.run();
    assert_eq!(cluster.show(), ["a n2 Ready"]);
    cluster.patch(&NODES.key(None, "n1").unwrap(), &taint("NoSchedule"));
    let mut tolerant = pod("b");
    tolerant["spec"]["tolerations"] = json!([{"key": "slow", "operator": "Exists"}]);
    cluster.apply(tolerant);
    cluster.run();
    assert_eq!(cluster.show(), ["a n2 Ready", "b n1 Ready"], "n1 is the emptier one");
}

#[test]
fn what_cannot_be_read_waits_with_a_reason() {
    let mut cluster = Cluster::of_nodes(1);
    let mut odd = pod("odd");
    odd["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "64MB"}});
    let key = cluster.apply(odd);
    assert!(
        cluster.settle().reasons[&key]
            .starts_with("its request for memory cannot be read: `MB` in `64MB` is no suffix")
    );
}
