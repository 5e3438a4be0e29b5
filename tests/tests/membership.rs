//! Who belongs to a cluster, played on a simulated one: nodes that are deleted, and nodes that leave.
//!
//! Invariant: whoever was deleted or has left neither votes nor counts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use futures_util::StreamExt as _;
use quorate_api::Caller;
use quorate_proto::{
    kinds::{NODES, PODS},
    overview::{Overview, Standing},
    request::{Answer, Reference, Request},
};
use quorate_tests::sim::{self, Sim};
use serde_json::json;

/// Who votes and who is a member, by name, as the leader knows.
fn members(sim: &Sim) -> Option<(Vec<String>, Vec<String>)> {
    let leader = sim.host(&sim.leader()?);
    let status = leader.store().status().borrow().clone();
    let names = sim.names();
    let name =
        |member: &quorate_raft::Member| names.iter().find(|name| sim.host(name).id() == member.id).cloned().unwrap();
    let mut voters: Vec<String> = status.members.iter().filter(|member| member.voter).map(name).collect();
    let mut members: Vec<String> = status.members.iter().map(name).collect();
    voters.sort();
    members.sort();
    Some((voters, members))
}

async fn delete_node(sim: &Sim, name: &str) {
    let object = Reference { kind: "node".to_owned(), namespace: None, name: name.to_owned() };
    sim.ask(Request::Delete { request: sim.request_id(), object, grace_seconds: None }).await.unwrap();
}

#[test]
fn a_dead_voter_that_is_deleted_leaves_the_group_and_the_rest_can_lose_another() {
    sim::run(1, async |mut sim| {
        sim.nodes(3).await;
        let leader = sim.leader().unwrap();
        let others: Vec<String> = sim.names().into_iter().filter(|name| *name != leader).collect();
        sim.kill(&others[0]).await;
        sim.pass(Duration::from_secs(10)).await;
        delete_node(&sim, &others[0]).await;
        let mut left = vec![leader.clone(), others[1].clone()];
        left.sort();
        sim.until("the deleted node is no member", |sim| members(sim).is_some_and(|(_, members)| members == left))
            .await;
        assert_eq!(members(&sim).unwrap().0, [leader.as_str()], "two voters could lose no more than one can");
        sim.kill(&others[1]).await;
        sim.pass(Duration::from_secs(10)).await;
        delete_node(&sim, &others[1]).await;
        sim.until("the leader is alone", |sim| members(sim).is_some_and(|(_, members)| members == [leader.as_str()]))
            .await;
    });
}

/// The overview as a node gives it.
async fn overview(sim: &Sim, node: &str) -> Overview {
    let api = sim.host(node).services().api.clone();
    match api.handle(Caller::User("sim".to_owned()), Request::Overview { forwarded: false }).next().await {
        Some(Answer::Overview(document)) => serde_json::from_slice(&document.0).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// How many pods of the deployment are ready on other nodes than this one.
fn ready_elsewhere(sim: &Sim, node: &str) -> usize {
    let snapshot = sim.snapshot();
    let pods = snapshot.list(&PODS).map(|pod| &pod.object);
    pods.filter(|pod| pod.is_true("Ready") && pod.text(&["spec", "nodeName"]) != Some(node)).count()
}

/// A cluster of so many nodes with four pods, and one of the nodes leaves.
async fn leaves(mut sim: Sim, nodes: usize, leader: bool) {
    sim.nodes(nodes).await;
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}});
    sim.apply(web).await.unwrap();
    sim.settle().await;
    let leads = sim.leader().unwrap();
    let node = sim.names().into_iter().find(|name| (*name == leads) == leader).unwrap();
    for _ in 0..2 {
        // Asked again, it is as it was.
        sim.ask(Request::Leave { request: sim.request_id(), node: node.clone() }).await.unwrap();
    }
    sim.until("the node has left", |sim| {
        let known = sim.snapshot().find(&NODES, None, &node).is_some();
        !known && members(sim).is_some_and(|(voters, members)| members.len() == nodes - 1 && !voters.contains(&node))
    })
    .await;
    sim.until("its pods run elsewhere", |sim| ready_elsewhere(sim, &node) == 4).await;
    assert_eq!(members(&sim).unwrap().0.len() % 2, 1);
    sim.until("the others are well", |sim| sim.leader().is_some_and(|leader| leader != node)).await;
    assert_eq!(overview(&sim, &node).await.standing, Standing::Left);
}

#[test]
fn a_follower_that_leaves_loses_its_vote_and_its_pods_and_is_gone() {
    sim::run(1, async |sim| leaves(sim, 3, false).await);
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    sim::run(2, async |sim| leaves(sim, 3, true).await);
    sim::run(3, async |sim| leaves(sim, 5, true).await);
}

#[test]
fn the_only_voter_of_two_nodes_can_leave() {
    sim::run(4, async |sim| leaves(sim, 2, true).await);
}

#[test]
fn the_last_node_that_is_well_cannot_leave() {
    sim::run(1, async |mut sim| {
        sim.nodes(1).await;
        let refused = sim.ask(Request::Leave { request: sim.request_id(), node: "n1".to_owned() }).await.unwrap_err();
        assert_eq!(refused.because, "it is the only node: the cluster would be gone with it");
    });
    sim::run(1, async |mut sim| {
        sim.nodes(2).await;
        let leader = sim.leader().unwrap();
        let other = sim.names().into_iter().find(|name| *name != leader).unwrap();
        sim.kill(&other).await;
        sim.pass(Duration::from_secs(10)).await;
        let refused = sim.ask(Request::Leave { request: sim.request_id(), node: leader }).await.unwrap_err();
        assert_eq!(refused.because, "no other node is Ready and stays: nobody could take over what it does");
    });
}

#[test]
fn any_node_tells_what_only_the_leader_knows() {
    sim::run(1, async |mut sim| {
        sim.nodes(3).await;
        sim.pass(Duration::from_secs(40)).await;
        let leader = sim.leader().unwrap();
        for node in sim.names() {
            let told = overview(&sim, &node).await;
            assert_eq!(
                (told.answered.as_str(), told.leader.as_ref(), told.standing),
                (node.as_str(), Some(&leader), Standing::Member)
            );
            assert_eq!((told.tolerates, told.next, told.problem), (Some(1), None, None));
            assert_eq!(told.tolerance.unwrap(), "the loss of any one of the 3 voters");
            assert!(told.members.iter().all(|member| member.lag == Some(0) && member.heard_millis.unwrap() < 1000));
        }
        let other = sim.names().into_iter().find(|name| *name != leader).unwrap();
        sim.cut(&other);
        sim.pass(Duration::from_secs(20)).await;
        let told = overview(&sim, &leader).await;
        let down = format!("no loss of a voter: 2 of the 3 must be healthy, and no more are ({other} is not healthy)");
        assert_eq!((told.tolerates, told.tolerance), (Some(0), Some(down)));
        let told = overview(&sim, &other).await;
        assert_eq!(told.tolerates, None);
        let because = told.problem.unwrap();
        let cut_off = format!("{leader} led when this node last heard of it, and does not answer");
        assert!(because.starts_with("nobody leads") || because.starts_with(&cut_off), "{because}");
    });
}
