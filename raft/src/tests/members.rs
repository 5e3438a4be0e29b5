//! Who belongs to the group: nodes that are deleted, that leave, and pipes that go dead.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_proto::{
    ids::{NodeId, RequestId},
    txn::Txn,
};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::fixture::{Cluster, Kind, document, key, until};
use crate::{
    Store,
    voters::{self, Policy, Registered},
};

/// Takes the planner's steps until it has none; who then votes, and who is a member.
async fn planned(cluster: &Cluster, nodes: &[(u64, bool)]) -> (Vec<u64>, Vec<u64>) {
    let node =
        |(node, may_vote): &(u64, bool)| (NodeId::from(*node), Registered { may_vote: *may_vote, zone: String::new() });
    let registered: BTreeMap<_, _> = nodes.iter().map(node).collect();
    let policy = Policy { stable: Duration::ZERO, ..Policy::default() };
    until("nothing is left to plan", || async {
        let store = cluster.store(cluster.leader().await);
        let view = store.view(registered.clone(), policy)?;
        // A new leader has not heard anybody yet.
        let members: BTreeSet<_> = view.voters.iter().flatten().chain(&view.learners).collect();
        if members.iter().any(|node| {
            registered.contains_key(node) && **node != view.leader && view.health[node].healthy_for.is_none()
        }) {
            return None;
        }
        if let Some((step, _)) = voters::plan(&view).step {
            drop(store.step(&view, step).await);
            return None;
        }
        let number = |node: &NodeId| u64::try_from(node.0).unwrap();
        let voters = view.voters.iter().flatten().map(number).collect();
        Some((voters, members.into_iter().map(number).collect()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_that_was_deleted_leaves_the_group_though_there_is_nobody_to_take_its_place() {
    let mut cluster = Cluster::of_three(Kind::Disk).await;
    cluster.leader().await;
    cluster.cut(3);
    assert_eq!(planned(&cluster, &[(1, true), (2, true)]).await.1, [1, 2]);
    let leader = cluster.leader().await;
    let follower = 3 - leader;
    cluster.stop(follower).await;
    cluster.put(leader, "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_hands_over_and_is_gone_without_a_write_being_refused() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let leader = cluster.leader().await;
    let nodes: Vec<_> = (1..=3).map(|node| (node, node != leader)).collect();
    let (voters, members) = planned(&cluster, &nodes).await;
    assert_eq!((voters.len(), members), (1, vec![1, 2, 3]));
    assert_ne!(voters, [leader]);
    let stay: Vec<_> = nodes.into_iter().filter(|(node, _)| *node != leader).collect();
    assert_eq!(planned(&cluster, &stay).await.1.len(), 2);
    cluster.put(voters[0], "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_voter_that_leaves_makes_the_other_node_the_voter() {
    let mut cluster = Cluster::empty(Kind::Memory);
    cluster.start(1).await;
    cluster.store(1).initialize().await.unwrap();
    cluster.start(2).await;
    assert_eq!(planned(&cluster, &[(1, true), (2, true)]).await, (vec![1], vec![1, 2]));
    assert_eq!(planned(&cluster, &[(1, false), (2, true)]).await, (vec![2], vec![1, 2]));
    assert_eq!(planned(&cluster, &[(2, true)]).await, (vec![2], vec![2]));
    cluster.stop(1).await;
    cluster.put(2, "web").await;
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_takes_everything_and_acknowledges_nothing_is_opened_anew() {
    let mut cluster = Cluster::of_three(Kind::Memory).await;
    let leader = cluster.leader().await;
    cluster.put(leader, "before").await;
    cluster.switch.kill_pipes();
    // Both followers are needed then.
    let other = (1..=3).find(|node| *node != leader).unwrap();
    cluster.stop(other).await;
    let revision = cluster.put(leader, "after").await;
    for node in (1..=3).filter(|node| *node != other) {
        cluster.reaches(node, revision).await;
    }
}

/// Writes one key after another through a store until it is told to stop; the longest that a write took.
async fn writer(store: Store, first: u128, stop: CancellationToken) -> Duration {
    let mut longest = Duration::ZERO;
    for number in first.. {
        if stop.is_cancelled() {
            break;
        }
        let began = Instant::now();
        let txn = Txn::new().put(key(&format!("w{}", number % 10)), document("x"));
        store.propose(RequestId(number), txn).await.unwrap();
        longest = longest.max(began.elapsed());
        sleep(Duration::from_millis(3)).await;
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_planned_stop_of_the_leader_holds_up_no_write_for_long() {
    let mut cluster = Cluster::of_three(Kind::Memory).await;
    for round in 0..10_u128 {
        let leader = cluster.leader().await;
        // A new leader must have heard the others, or it has nobody to hand over to.
        until("the leader knows its peers are healthy", || async {
            let view = cluster.store(leader).view([].into(), Policy::default())?;
            view.health.values().all(|health| health.healthy_for.is_some()).then_some(())
        })
        .await;
        let follower = (1..=3).find(|node| *node != leader).unwrap();
        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let writing = tasks.spawn(writer(cluster.store(follower).clone(), 1_000_000 * (round + 1), end.clone()));
        sleep(Duration::from_millis(50)).await;
        cluster.stop(leader).await;
        cluster.leader().await;
        sleep(Duration::from_millis(500)).await;
        end.cancel();
        let longest = writing.await.unwrap();
        assert!(longest <= Duration::from_millis(50), "round {round}: a write took {longest:?}");
        cluster.start(leader).await;
    }
}
