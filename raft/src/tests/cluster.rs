//! Three stores that agree.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver as _;
use quorate_proto::{
    ids::{NodeId, RequestId},
    request::Read,
    txn::{Command, CommandOutcome, MAX_OPERATIONS, MAX_TXN, Outcome, Revision, Txn},
};
use tokio::time::{Instant, timeout};

use super::fixture::{Cluster, Kind, changes, document, key, until};
use crate::{
    LogLimits, ProposeError, ReadError,
    record::encode,
    rpc::{self, Answer, Refused, Request},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_a_follower_is_read_on_every_node() {
    let cluster = Cluster::of_three(Kind::Disk).await;
    let follower = cluster.follower().await;
    let revision = cluster.put(follower, "web").await;
    for node in 1..=3 {
        assert!(cluster.store(node).read(Read::Linearizable).await.unwrap() >= revision);
        assert_eq!(cluster.names(node), ["web"]);
    }
}

#[tokio::test]
async fn writes_that_gather_on_a_follower_go_to_the_leader_together() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let follower = cluster.follower().await;
    let before = cluster.switch.questions.load(Ordering::Relaxed);
    let names: Vec<String> = (0..200).map(|number| format!("web-{number}")).collect();
    let mut revisions = join_all(names.iter().map(|name| cluster.put(follower, name))).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).map(Revision).collect::<Vec<_>>());
    let messages = cluster.switch.questions.load(Ordering::Relaxed) - before;
    assert!((1..=10).contains(&messages), "{messages} messages");
}

#[tokio::test]
async fn one_that_is_refused_does_not_hold_up_those_it_went_with() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let follower = cluster.follower().await;
    let leader = cluster.store(cluster.leader().await);
    let sound =
        |number| Command::Apply { request: RequestId(number), txn: Txn::new().put(key("web"), document("web")) };
    let commands = vec![encode(&sound(900)).unwrap(), Bytes::from_static(b"no command"), encode(&sound(901)).unwrap()];
    let answer = leader.answer(NodeId::from(follower), rpc::encode(&Request::ProposeAll(commands)).unwrap()).await;
    let Ok(Answer::All(answers)) = rpc::decode::<Answer>(&answer) else { panic!("{answer:?}") };
    assert!(
        matches!(
            answers.as_slice(),
            [Ok(CommandOutcome::Applied(_)), Err(Refused::Malformed(_)), Ok(CommandOutcome::Applied(_))]
        ),
        "{answers:?}"
    );
}

#[tokio::test]
async fn reads_that_gather_on_a_follower_ask_the_leader_once() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let revision = cluster.put(cluster.leader().await, "web").await;
    let follower = cluster.store(cluster.follower().await);
    let before = cluster.switch.questions.load(Ordering::Relaxed);
    let reads = join_all((0..200).map(|_| follower.read(Read::Linearizable))).await;
    assert!(reads.iter().all(|read| read.as_ref().is_ok_and(|read| *read == revision)), "{reads:?}");
    let questions = cluster.switch.questions.load(Ordering::Relaxed) - before;
    assert!((1..=10).contains(&questions), "{questions} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_survive_the_loss_of_the_leader() {
    let mut cluster = Cluster::of_three(Kind::Disk).await;
    let first = cluster.leader().await;
    cluster.put(first, "before").await;
    cluster.cut(first);
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let after = cluster.put(second, "after").await;
    cluster.heal();
    cluster.reaches(first, after).await;
    assert_eq!(cluster.names(first), ["after", "before"]);
    let hash = |node| cluster.store(node).status().borrow().hash;
    assert_eq!(hash(first), hash(second));
    for node in 1..=3 {
        cluster.stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_refuses_and_says_so() {
    let cluster = Cluster::of_three(Kind::Disk).await;
    let leader = cluster.leader().await;
    cluster.put(leader, "web").await;
    cluster.cut(leader);
    let store = cluster.store(leader);
    let mut status = store.status();
    timeout(Duration::from_secs(30), status.wait_for(|status| !status.leading)).await.unwrap().unwrap();
    let refused = store.propose(RequestId(99), Txn::new().put(key("db"), document("db"))).await;
    assert!(matches!(refused, Err(ProposeError::NoQuorum | ProposeError::NoLeader)), "{refused:?}");
    assert!(matches!(store.read(Read::Linearizable).await, Err(ReadError::NoQuorum)));
    assert_eq!(store.read(Read::Stale).await.unwrap(), Revision(1));
    assert_eq!(cluster.names(leader), ["web"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_on_another_node_without_a_gap() {
    let cluster = Cluster::of_three(Kind::Disk).await;
    for name in ["a", "b", "c"] {
        cluster.put(1, name).await;
    }
    let mut here = cluster.store(1).watch(Revision(0)).unwrap();
    let seen = changes(&mut here, Revision(2)).await;
    let mut there = cluster.store(2).watch(here.delivered()).unwrap();
    drop(here);
    let last = cluster.put(3, "d").await;
    let rest = changes(&mut there, last).await;
    let names: Vec<_> = seen.iter().chain(&rest).map(|change| (change.revision.0, change.key.name())).collect();
    assert_eq!(names, [(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_what_is_to_come_gets_nothing_early() {
    let cluster = Cluster::of_three(Kind::Disk).await;
    cluster.put(1, "a").await;
    let mut watch = cluster.store(1).watch(Revision(2)).unwrap();
    assert!(timeout(Duration::from_millis(50), watch.next()).await.is_err());
    cluster.put(1, "b").await;
    let last = cluster.put(1, "c").await;
    let seen = changes(&mut watch, last).await;
    assert_eq!(seen.iter().map(|change| change.key.name()).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_answer_to_its_first_try_from_any_leader() {
    let cluster = Cluster::of_three(Kind::Disk).await;
    let leader = cluster.leader().await;
    let txn = Txn::new().create(key("web"), document("web"));
    let first = cluster.store(leader).propose(RequestId(5), txn.clone()).await.unwrap();
    cluster.cut(leader);
    let other = cluster.leader().await;
    assert_eq!(cluster.store(other).propose(RequestId(5), txn.clone()).await.unwrap(), first);
    let stale = cluster.store(other).propose(RequestId(6), txn).await.unwrap();
    assert_eq!(stale, Outcome::Stale(key("web")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beyond_the_limits_is_refused_before_it_is_proposed() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let large = Txn::new().put(key("a"), document(&"x".repeat(MAX_TXN)));
    let many = (0..=MAX_OPERATIONS).fold(Txn::new(), |txn, _| txn.delete(key("a")));
    for (txn, says) in [(large, "bytes"), (many, "129 operations is beyond the limit of 128")] {
        let error = cluster.store(1).propose(RequestId(1), txn).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(cluster.store(1).read(Read::Linearizable).await.unwrap(), Revision(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_keeps_everything() {
    let mut cluster = Cluster::of_three(Kind::Disk).await;
    let mut last = Revision(0);
    for name in ["a", "b", "c"] {
        last = cluster.put(2, name).await;
    }
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
    }
    let leader = cluster.leader().await;
    assert_eq!(cluster.store(leader).read(Read::Linearizable).await.unwrap(), last);
    assert_eq!(cluster.names(leader), ["a", "b", "c"]);
    let mut watch = cluster.store(leader).watch(Revision(0)).unwrap();
    assert_eq!(changes(&mut watch, last).await.len(), 3);
    assert_eq!(cluster.put(leader, "d").await, Revision(last.0 + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_stop_hands_leadership_over_first() {
    let mut cluster = Cluster::of_three(Kind::Disk).await;
    let leader = cluster.leader().await;
    until("the leader knows its peers are healthy", || async {
        let view = cluster.store(leader).view([].into(), crate::voters::Policy::default())?;
        view.health.values().all(|health| health.healthy_for.is_some()).then_some(())
    })
    .await;
    let term = cluster.store(leader).status().borrow().term;
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    assert_eq!(cluster.store(next).status().borrow().term, term + 1, "one election, and at once");
    cluster.put(next, "web").await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_done_soon_when_one_store_is_gone_and_another_was_just_restarted() {
    for (gone, restarted) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        let mut cluster = Cluster::of_three(Kind::Memory).await;
        cluster.put(1, "before").await;
        cluster.stop(gone).await;
        cluster.stop(restarted).await;
        cluster.start(restarted).await;
        for node in (1..=3).filter(|node| *node != gone) {
            let began = Instant::now();
            cluster.put(node, "after").await;
            let took = began.elapsed();
            assert!(took <= Duration::from_secs(5), "on {node}, {gone} is gone, {restarted} restarted: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_hears_is_none_and_is_one_again_when_it_is_heard() {
    let mut cluster = Cluster::of_three(Kind::Memory).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    for node in 1..=3 {
        cluster.cut(node);
    }
    let known = |cluster: &Cluster, node| cluster.store(node).status().borrow().leader;
    until("nobody leads", || async { (1..=3).all(|node| known(&cluster, node).is_none()).then_some(()) }).await;
    cluster.heal();
    until("all follow one", || async {
        let leaders: Vec<_> = (1..=3).map(|node| known(&cluster, node)).collect();
        (leaders[0].is_some() && leaders.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
    })
    .await;

    // One that starts alone remembers whom it followed, and does not take that one for alive.
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    cluster.start(others[0]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(known(&cluster, others[0]), None);
}

async fn a_new_node_catches_up_by_snapshot(kind: Kind) {
    let mut cluster = Cluster::empty(kind);
    cluster.limits = LogLimits { bytes: u64::MAX, entries: 20, keep: 2 };
    cluster.start(1).await;
    cluster.store(1).initialize().await.unwrap();
    let text = "x".repeat(100_000);
    let mut last = Revision(0);
    for number in 0..60_u128 {
        let txn = Txn::new().put(key(&format!("k{}", number % 7)), document(&text));
        let outcome = cluster.store(1).propose(RequestId(1000 + number), txn).await.unwrap();
        last = Revision(last.0 + 1);
        assert_eq!(outcome, Outcome::Applied(last));
    }
    until("most of the log is cut", || async {
        let purged = cluster.store(1).inner.metrics.borrow_watched().purged?;
        (purged.index > 30).then_some(())
    })
    .await;
    cluster.start(2).await;
    cluster.settle(1).await;
    cluster.reaches(2, last).await;
    assert!(cluster.switch.snapshot_blocks.load(Ordering::Relaxed) > 5, "in blocks, not by the log");
    assert_eq!(cluster.store(1).rows("/").unwrap(), cluster.store(2).rows("/").unwrap());
    let mut watch = cluster.store(2).watch(Revision(0)).unwrap();
    assert_eq!(changes(&mut watch, last).await.len(), 60);
    let retried = Txn::new().put(key("k0"), document("other"));
    assert_eq!(cluster.store(2).propose(RequestId(1000), retried).await.unwrap(), Outcome::Applied(Revision(1)));
    cluster.stop(2).await;
    cluster.start(2).await;
    let after = cluster.put(1, "after").await;
    cluster.reaches(2, after).await;
    assert_eq!(cluster.names(2).len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_catches_up_by_snapshot_on_disk() {
    a_new_node_catches_up_by_snapshot(Kind::Disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_node_catches_up_by_snapshot_in_memory() {
    a_new_node_catches_up_by_snapshot(Kind::Memory).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_failover_takes_no_time_when_time_is_simulated() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let first = cluster.leader().await;
    cluster.cut(first);
    let second = cluster.leader().await;
    let revision = cluster.put(second, "web").await;
    cluster.heal();
    cluster.reaches(first, revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_served() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let leader = cluster.leader().await;
    let request = crate::rpc::encode(&crate::rpc::Request::ReadIndex).unwrap();
    let answer = cluster.store(leader).answer(NodeId(66), request).await;
    let answer: crate::rpc::Answer = crate::rpc::decode(&answer).unwrap();
    assert_eq!(answer, crate::rpc::Answer::Refused(crate::rpc::Refused::Stranger));
    let answer = cluster.store(leader).answer(NodeId(66), bytes::Bytes::from_static(b"nonsense")).await;
    assert!(matches!(
        crate::rpc::decode(&answer).unwrap(),
        crate::rpc::Answer::Refused(crate::rpc::Refused::Malformed(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_writes_nothing() {
    let cluster = Cluster::of_three(Kind::Disk).await;
    let last = cluster.put(1, "web").await;
    for node in 1..=3 {
        cluster.reaches(node, last).await;
    }
    // Heartbeats carry the last commit to the followers, and marks settle a second after the last write.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let before: Vec<_> = (1..=3).map(|node| files(&cluster.path(node))).collect();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after: Vec<_> = (1..=3).map(|node| files(&cluster.path(node))).collect();
    assert_eq!(before, after);
}

fn files(path: &std::path::Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), meta.len(), meta.modified().unwrap()));
        }
    }
    found.sort();
    found
}
