//! What a user of nodes notices.

use quorate_proto::key::Key;
use serde_json::json;

use super::*;
use crate::cluster::{Cluster, node};

fn key(node: &str) -> Key {
    NODES.key(None, node).unwrap()
}

/// `Unknown unreachable:NoSchedule unreachable:NoExecute`
fn state(cluster: &Cluster, node: &str) -> String {
    let object = &cluster.get(&key(node)).object;
    let ready = of_condition(object, "Ready", "status").unwrap_or("-").to_owned();
    let taints = taint::taints(object);
    let taints =
        taints.iter().map(|taint| format!(" {}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect));
    ready + &taints.collect::<String>()
}

#[test]
fn a_node_is_unknown_the_moment_it_was_silent_too_long() {
    let mut cluster = Cluster::of_nodes(3);
    let start = cluster.now;
    cluster.cut = vec!["n3".into()];
    for second in [1, 2, 3, 4, 5] {
        let early = cluster.pass(1);
        assert_eq!(
            (state(&cluster, "n3"), early.wake_at),
            ("True".into(), Some(start + Duration::from_secs(6))),
            "{second}"
        );
    }
    let late = cluster.pass(1);
    assert_eq!(state(&cluster, "n3"), "Unknown unreachable:NoSchedule unreachable:NoExecute");
    assert_eq!(late.reasons[&key("n3")], "n3 not heard for 6s");
    cluster.cut.clear();
    cluster.pass(1);
    assert_eq!(["n1", "n3"].map(|node| state(&cluster, node)), ["True", "True"]);
}

#[test]
fn a_new_leader_counts_from_its_own_first_moment() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.heard.clear();
    cluster.leading_since = cluster.now;
    cluster.cut = vec!["n3".into()];
    cluster.pass(5);
    assert_eq!(state(&cluster, "n3"), "True");
    cluster.pass(1);
    assert!(state(&cluster, "n3").starts_with("Unknown"));
}

#[test]
fn a_node_that_joined_a_moment_ago_has_time_to_speak() {
    let mut cluster = Cluster::of_nodes(1);
    let mut new = node("n2");
    new["status"] = json!({});
    cluster.cut = vec!["n2".into()];
    cluster.apply(new);
    cluster.pass(5);
    assert_eq!(state(&cluster, "n2"), "-");
    cluster.pass(1);
    assert!(state(&cluster, "n2").starts_with("Unknown"));
}

#[test]
fn one_of_two_nodes_may_be_lost_since_the_other_alone_can_act() {
    let mut cluster = Cluster::of_nodes(2);
    cluster.cut = vec!["n2".into()];
    cluster.pass(6);
    assert!(state(&cluster, "n2").starts_with("Unknown"));
}

#[test]
fn when_most_nodes_vanish_at_once_they_say_so_and_nothing_more_is_written() {
    let mut cluster = Cluster::of_nodes(5);
    cluster.cut = ["n3", "n4", "n5"].map(str::to_owned).into();
    // Their last heartbeats came spread over a second, as heartbeats do.
    for (node, late) in [("n4", 300), ("n5", 800)] {
        cluster.heard.insert(node.into(), cluster.now + Duration::from_millis(late));
    }
    let (mut last, mut written) = (Decision::default(), 0);
    for _ in 0..200 {
        cluster.now = cluster.now + Duration::from_millis(100);
        for node in ["n1", "n2"] {
            cluster.heard.insert(node.into(), cluster.now);
        }
        last = cluster.decide();
        written += last.operations.len();
        cluster.carry_out(&last);
    }
    assert_eq!(written, 3, "each node once");
    let why = "n4 not heard for 6s; 3 of 5 nodes fell silent or failed at once: the leader may be the one cut off, so nothing is evicted";
    assert_eq!(last.reasons[&key("n4")], why);
    let told = of_condition(&cluster.get(&key("n4")).object, "Ready", "message").map(str::to_owned);
    assert_eq!((state(&cluster, "n4"), told.as_deref()), ("Unknown".into(), Some(why)));
    // One of them is back: two of five are not most.
    cluster.cut.remove(0);
    cluster.pass(1);
    assert_eq!(state(&cluster, "n3"), "True");
    for lost in ["n4", "n5"] {
        assert_eq!(state(&cluster, lost), "Unknown unreachable:NoSchedule unreachable:NoExecute");
    }
}

#[test]
fn nodes_that_were_lost_long_ago_do_not_count_as_lost_at_once() {
    let mut cluster = Cluster::of_nodes(5);
    for lost in ["n5", "n4", "n3"] {
        cluster.cut.push(lost.into());
        cluster.pass(7);
        assert!(state(&cluster, lost).starts_with("Unknown"), "{lost}");
    }
}

#[test]
fn nodes_that_were_lost_before_are_lost_to_a_new_leader_too() {
    let mut cluster = Cluster::of_nodes(5);
    for lost in ["n5", "n4"] {
        cluster.cut.push(lost.into());
        cluster.pass(7);
    }
    let before = ["n4", "n5"].map(|node| cluster.get(&key(node)).modified);
    // The leader is the next one that is lost, and its successor has heard nobody yet.
    cluster.heard.clear();
    cluster.leading_since = cluster.now;
    cluster.cut.push("n1".into());
    cluster.pass(7);
    assert_eq!(state(&cluster, "n1"), "Unknown unreachable:NoSchedule unreachable:NoExecute");
    assert_eq!(["n4", "n5"].map(|node| cluster.get(&key(node)).modified), before, "there is nothing new about them");
}

#[test]
fn a_node_that_says_it_is_not_ready_gets_no_new_pods_at_once_and_loses_its_pods_if_that_lasts() {
    let mut cluster = Cluster::of_nodes(3);
    cluster.say_ready("n2", "False");
    cluster.pass(5);
    assert_eq!(state(&cluster, "n2"), "False not-ready:NoSchedule");
    cluster.pass(2);
    assert_eq!(state(&cluster, "n2"), "False not-ready:NoSchedule not-ready:NoExecute");
    cluster.say_ready("n2", "True");
    cluster.run();
    assert_eq!(state(&cluster, "n2"), "True");
}

#[test]
fn taints_of_others_stay_and_get_the_time_they_were_first_seen() {
    let mut cluster = Cluster::of_nodes(1);
    cluster.patch(&key("n1"), &json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}}));
    cluster.settle();
    assert_eq!(state(&cluster, "n1"), "True mine:NoExecute");
    assert!(taint::taints(&cluster.get(&key("n1")).object)[0].time_added.is_some());
}
