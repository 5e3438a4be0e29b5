//! Leases: kept alive, ended in time, never early.

use std::time::Duration;

use quorate_proto::{
    branch::{Branch, Operation},
    ids::RequestId,
    lease::LeaseId,
    query::{Query, Select},
    range::KeyRange,
    request::Read,
    txn::{CommandRefusal, Revision},
};
use tokio::time::{Instant, sleep, timeout};

use super::fixture::{Cluster, Kind, changes, document, key, until};
use crate::{CommandError, Timing};

const TTL: u64 = 20;

fn lease(number: u64) -> LeaseId {
    LeaseId::new(number).unwrap()
}

fn attached(name: &str, lease: LeaseId) -> Branch {
    let put = Operation::Put { key: key(name), document: document(name), lease: Some(lease), previous: false };
    Branch::new().then(put)
}

/// Three stores, and a lease with two keys.
async fn with_a_lease() -> Cluster {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let store = cluster.store(1);
    store.grant(RequestId(900), lease(1), TTL).await.unwrap();
    store.branch(RequestId(901), attached("a", lease(1))).await.unwrap();
    store.branch(RequestId(902), attached("b", lease(1))).await.unwrap();
    cluster.put(1, "free").await;
    cluster
}

/// When the last key of the lease goes.
async fn ended(cluster: &Cluster, node: u64) -> Instant {
    until("the lease has ended", || async { (cluster.names(node) == ["free"]).then(Instant::now) }).await
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_keeps_alive_ends_in_time_with_all_its_keys_in_one_revision() {
    let cluster = with_a_lease().await;
    let granted = Instant::now();
    let mut watch = cluster.store(2).watch(Revision(3)).unwrap();
    let gone = changes(&mut watch, Revision(4)).await;
    let lived = granted.elapsed();
    assert!(lived >= Duration::from_secs(TTL - 1) && lived < Duration::from_secs(TTL + 2), "{lived:?}");
    let names: Vec<_> = gone.iter().map(|change| (change.key.name(), change.now.is_some())).collect();
    assert_eq!(names, [("a", false), ("b", false)]);
    for node in 1..=3 {
        cluster.reaches(node, Revision(4)).await;
        assert_eq!(cluster.store(node).leases(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_kept_alive_through_any_node_lives_on_and_writes_nothing() {
    let cluster = with_a_lease().await;
    let start = Instant::now();
    let index = || cluster.store(1).inner.feed.progress().borrow().applied;
    let before = index();
    for beat in 0..12 {
        sleep(Duration::from_secs(TTL / 2)).await;
        let ttl = cluster.store(beat % 3 + 1).keep_alive(lease(1)).await.unwrap();
        assert_eq!(ttl, Duration::from_secs(TTL));
    }
    assert_eq!(index(), before, "a beat is no entry of the log");
    let shown = cluster.store(cluster.follower().await).lease(lease(1)).await.unwrap();
    assert_eq!((shown.ttl_seconds, shown.keys), (TTL, vec![key("a"), key("b")]));
    assert!(shown.remaining_millis > (TTL - 2) * 1000, "{}", shown.remaining_millis);
    ended(&cluster, 1).await;
    assert!(start.elapsed() >= Duration::from_secs(12 * TTL / 2 + TTL));
    let gone = cluster.store(2).keep_alive(lease(1)).await.unwrap_err();
    assert!(matches!(gone, CommandError::Refused(CommandRefusal::NoSuchLease(_))), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_lease_its_full_time_again() {
    let cluster = with_a_lease().await;
    let first = cluster.leader().await;
    sleep(Duration::from_secs(TTL - 2)).await;
    cluster.cut(first);
    let second = cluster.leader().await;
    let leads = Instant::now();
    let gone = ended(&cluster, second).await;
    // The test sees who leads a moment after the leader does.
    let lived = gone - leads + Timing::CAREFUL.heartbeat;
    assert!(lived >= Duration::from_secs(TTL), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_ends_nothing_and_keeps_nothing_alive() {
    let cluster = with_a_lease().await;
    let first = cluster.leader().await;
    cluster.cut(first);
    let refused = cluster.store(first).keep_alive(lease(1)).await.unwrap_err();
    assert!(matches!(refused, CommandError::Propose(_)), "{refused}");
    sleep(Duration::from_secs(3 * TTL)).await;
    assert_eq!(cluster.names(first), ["a", "b", "free"]);
    cluster.heal();
    ended(&cluster, first).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_written_without_its_lease_survives_it() {
    let cluster = with_a_lease().await;
    cluster.put(1, "a").await;
    cluster.store(2).revoke(RequestId(910), lease(1)).await.unwrap();
    assert_eq!(cluster.names(cluster.leader().await), ["a", "free"]);
    let count = Query::new(KeyRange::all()).select(Select::Count);
    assert_eq!(cluster.store(3).query(Read::Linearizable, &count).await.unwrap().count, 2);
}

#[tokio::test(start_paused = true)]
async fn leases_survive_the_restart_of_all_with_their_full_time() {
    let mut cluster = with_a_lease().await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    sleep(Duration::from_secs(10 * TTL)).await;
    for node in 1..=3 {
        cluster.start(node).await;
    }
    let leader = cluster.leader().await;
    let leads = Instant::now();
    assert_eq!(cluster.names(leader), ["a", "b", "free"]);
    let lived = ended(&cluster, leader).await - leads + Timing::CAREFUL.heartbeat;
    assert!(lived >= Duration::from_secs(TTL), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_lease_can_be_is_refused_with_the_limits() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    for seconds in [0, 31_536_001] {
        let error = cluster.store(1).grant(RequestId(1), lease(1), seconds).await.unwrap_err();
        assert_eq!(error.to_string(), format!("a lease lives for 1 to 31536000 seconds, not for {seconds}"));
    }
    let error = cluster.store(1).branch(RequestId(2), attached("a", lease(9))).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no lease 0000000000000009: it was never granted, or has ended");
    cluster.store(1).grant(RequestId(3), lease(9), TTL).await.unwrap();
    cluster.store(2).grant(RequestId(3), lease(9), TTL).await.unwrap();
    let error = cluster.store(1).grant(RequestId(4), lease(9), TTL).await.unwrap_err();
    assert_eq!(error.to_string(), "lease 0000000000000009 is granted already: choose another number");
    let waited = timeout(Duration::from_secs(60), cluster.store(2).keep_alive(lease(5))).await.unwrap();
    assert!(matches!(waited, Err(CommandError::Refused(CommandRefusal::NoSuchLease(_)))));
}
