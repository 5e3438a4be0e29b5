//! What becomes of pods on nodes that fail.

use serde_json::json;

use super::*;
use crate::cluster::{Cluster, deployment, pod, replicaset};

#[test]
fn a_silent_node_loses_its_pods_to_the_others_and_nothing_moves_back() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.apply(replicaset("web", 3));
    cluster.run();
    assert_eq!(cluster.show(), ["web n1 Ready", "web n2 Ready", "web n3 Ready"]);
    cluster.cut = vec!["n3".into()];
    let decision = cluster.pass(7);
    assert_eq!(cluster.show(), ["web n1 Ready", "web n2 Ready", "web n3 Terminating", "web n1 Ready"]);
    let ending =
        decision.reasons.iter().find(|(key, _)| key.resource() == PODS.plural).map(|(_, reason)| reason.as_str());
    assert_eq!(ending, Some("n3 is not heard: the pod ends when the node returns or is deleted"));
    cluster.cut.clear();
    cluster.pass(1);
    assert_eq!(cluster.show(), ["web n1 Ready", "web n2 Ready", "web n1 Ready"]);
}

#[test]
fn a_pod_without_a_controller_ends_and_is_gone_with_its_node_object() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.apply(pod("a"));
    cluster.run();
    cluster.cut = vec!["n1".into()];
    cluster.pass(10);
    assert_eq!(cluster.show(), ["a n1 Terminating"]);
    cluster.remove(&NODES.key(None, "n1").unwrap());
    cluster.run();
    assert_eq!(cluster.show(), [""; 0]);
}

#[test]
fn tolerations_given_explicitly_are_honoured_as_written() {
    let mut cluster = Cluster::of_nodes(3);
    for (name, seconds) in [("short", json!(5)), ("long", json!(300)), ("ever", json!(null))] {
        let mut tolerant = pod(name);
        tolerant["spec"]["nodeName"] = "n3".into();
        tolerant["spec"]["tolerations"] =
            json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": seconds}]);
        cluster.apply(tolerant);
    }
    cluster.run();
    cluster.cut = vec!["n3".into()];
    let ready = |cluster: &Cluster| cluster.show().iter().filter(|line| line.ends_with("Ready")).count();
    cluster.pass(5);
    assert_eq!(ready(&cluster), 3);
    let decision = cluster.pass(2);
    assert_eq!(ready(&cluster), 0, "who is not heard gets no connections");
    assert!(decision.wake_at.is_some_and(|wake| wake <= cluster.now + Duration::from_secs(5)));
    let ending = |cluster: &Cluster| {
        cluster
            .show()
            .iter()
            .filter(|line| line.ends_with("Terminating"))
            .map(|line| line[..4].trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ending(&cluster), [""; 0]);
    cluster.pass(5);
    assert_eq!(ending(&cluster), ["shor"]);
    cluster.pass(294);
    assert_eq!(ending(&cluster), ["shor", "long"]);
    cluster.pass(1000);
    assert_eq!(ending(&cluster).len(), 2, "for ever is for ever");
    cluster.cut.clear();
    cluster.pass(1);
    assert_eq!(cluster.show(), ["ever n3 Ready"]);
}

#[test]
fn a_taint_of_the_users_ends_pods_that_do_not_tolerate_it() {
    let mut cluster = Cluster::of_nodes(2);
    cluster.apply(replicaset("web", 2));
    cluster.run();
    let taint = json!({"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}});
    cluster.patch(&NODES.key(None, "n1").unwrap(), &taint);
    cluster.run();
    assert_eq!(cluster.show(), ["web n2 Ready", "web n2 Ready"]);
}

#[test]
fn when_most_nodes_vanish_at_once_nothing_is_evicted_and_nothing_new_is_bound_there() {
    let mut cluster = Cluster::of_nodes(5);
    cluster.apply(deployment("web", 5, "web:1"));
    cluster.run();
    let before = cluster.show();
    cluster.cut = ["n3", "n4", "n5"].map(str::to_owned).into();
    cluster.pass(60);
    assert_eq!(cluster.show(), before);
    for name in ["a", "b", "c"] {
        cluster.apply(pod(name));
    }
    cluster.pass(1);
    assert!(
        cluster.show()[5..].iter().all(|line| line.contains(" n1 ") || line.contains(" n2 ")),
        "{:?}",
        cluster.show()
    );
}
