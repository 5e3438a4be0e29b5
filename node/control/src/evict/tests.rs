//! What becomes of pods on nodes that fail.

use quorate_proto::world::rfc3339;
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
    let why = "n3 not heard for 6s: if it is still wanted the pod is replaced elsewhere; this one ends when n3 returns or is deleted";
    assert_eq!(ending, Some(why));
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

/// What `describe` says of the pods on a node: their reason, their message, and whether they are ready.
fn told(cluster: &Cluster, node: &str) -> Vec<String> {
    let pods = cluster.objects.list(&PODS).filter(|pod| node_name(&pod.object) == Some(node));
    let told = pods.map(|pod| {
        let text = |path: &[&str]| pod.object.text(path).unwrap_or("-").to_owned();
        let ready = |field| of_condition(&pod.object, "Ready", field).unwrap_or("-").to_owned();
        let (status, message) = (text(&["status", "reason"]), text(&["status", "message"]));
        format!("{status} {message} | {} {}", ready("status"), ready("reason"))
    });
    told.collect()
}

/// The newest revision: whatever is written raises it.
fn written(cluster: &Cluster) -> quorate_proto::txn::Revision {
    cluster.objects.revision()
}

#[test]
fn a_pod_on_a_lost_node_says_so_once_and_until_its_node_is_heard() {
    let mut cluster = Cluster::of_nodes(3);
    let mut alone = pod("alone");
    alone["spec"]["nodeName"] = "n3".into();
    cluster.apply(alone);
    let mut patient = pod("patient");
    patient["spec"]["nodeName"] = "n3".into();
    patient["spec"]["tolerations"] =
        json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}]);
    cluster.apply(patient);
    cluster.run();
    let well = told(&cluster, "n3");
    assert_eq!(well, ["- - | True -", "- - | True -"]);

    cluster.cut = vec!["n3".into()];
    cluster.pass(6);
    let lost = told(&cluster, "n3");
    assert_eq!(
        lost[0],
        "NodeLost n3 not heard for 6s: the pod ends when n3 returns or is deleted | False NodeNotReady"
    );
    let evicted_at = rfc3339(cluster.moment().wall + Duration::from_secs(300));
    assert_eq!(
        lost[1],
        format!(
            "NodeLost n3 not heard for 6s: the pod is evicted at {evicted_at} unless n3 returns | False NodeNotReady"
        )
    );

    let revision = written(&cluster);
    cluster.pass(120);
    assert_eq!((told(&cluster, "n3"), written(&cluster)), (lost, revision), "said once");

    cluster.cut.clear();
    cluster.pass(1);
    assert_eq!(told(&cluster, "n3"), ["- - | True -"], "one has ended, the other is as it was");
}

#[test]
fn a_pod_that_was_bound_to_a_node_after_it_was_lost_says_why_it_does_not_start() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.cut = vec!["n3".into()];
    cluster.pass(6);
    let mut late = pod("late");
    late["spec"]["nodeName"] = "n3".into();
    late["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    cluster.apply(late);
    cluster.pass(1);
    assert_eq!(
        told(&cluster, "n3"),
        ["NodeLost n3 not heard for 6s: the pod tolerates that and stays bound to n3 | False NodeNotReady"]
    );
}

#[test]
fn when_most_nodes_vanish_at_once_their_pods_say_that_nothing_is_evicted_and_stay_ready() {
    let mut cluster = Cluster::of_nodes(5);
    cluster.apply(replicaset("web", 5));
    cluster.run();
    cluster.cut = ["n3", "n4", "n5"].map(str::to_owned).into();
    cluster.pass(7);
    let why = "NodeLost n4 not heard for 6s; 3 of 5 nodes fell silent or failed at once: \
               the leader may be the one cut off, so nothing is evicted | True -";
    assert_eq!(told(&cluster, "n4"), [why]);
    assert_eq!(told(&cluster, "n1"), ["- - | True -"]);
    let revision = written(&cluster);
    cluster.pass(600);
    assert_eq!((told(&cluster, "n4"), written(&cluster)), (vec![why.to_owned()], revision), "said once");

    // One is back: two of five are not most, and what was held is done.
    cluster.cut.remove(0);
    cluster.pass(2);
    assert_eq!(told(&cluster, "n3"), ["- - | True -"]);
    assert!(told(&cluster, "n4")[0].starts_with("NodeLost n4 not heard for 6s: if it is still wanted"));
    assert_eq!(cluster.show().iter().filter(|line| line.ends_with("Ready")).count(), 5, "{:?}", cluster.show());
}

#[test]
fn a_node_that_was_heard_meanwhile_has_no_pod_written_by_an_older_decision() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.apply(replicaset("web", 3));
    cluster.run();
    cluster.cut = vec!["n3".into()];
    cluster.now = cluster.now + Duration::from_secs(7);
    for node in ["n1", "n2"] {
        cluster.heard.insert(node.into(), cluster.now);
    }
    let marked = cluster.decide_by(crate::node_lifecycle::watch_nodes);
    cluster.carry_out(&marked);
    let late = cluster.decide_by(evict);
    assert!(!late.operations.is_empty());
    cluster.say_ready("n3", "True");
    assert_eq!(cluster.carry_out(&late), late.operations.len(), "all of it is stale");
    assert_eq!(told(&cluster, "n3"), ["- - | True -"]);
}

#[test]
fn a_pod_that_may_stay_a_while_on_a_node_lost_before_is_held_too_when_most_others_vanish() {
    let mut cluster = Cluster::of_nodes(6);
    let mut patient = pod("patient");
    patient["spec"]["nodeName"] = "n6".into();
    patient["spec"]["tolerations"] =
        json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 60}]);
    cluster.apply(patient);
    cluster.run();
    cluster.cut = vec!["n6".into()];
    cluster.pass(7);
    cluster.cut.extend(["n3", "n4", "n5"].map(str::to_owned));
    cluster.pass(100);
    let held = "NodeLost n6 not heard for 6s; 3 of 5 nodes fell silent or failed at once: \
                the leader may be the one cut off, so nothing is evicted | False NodeNotReady";
    assert_eq!((told(&cluster, "n6"), cluster.show()), (vec![held.to_owned()], vec!["patient n6 Running".to_owned()]));
}
