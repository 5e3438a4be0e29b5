//! A survivor of a quorum that is lost for good.

use std::{
    fs,
    path::{Path, PathBuf},
};

use openraft::async_runtime::watch::WatchReceiver as _;
use quorate_proto::{
    ids::{NodeId, RequestId},
    request::Read,
    txn::{Outcome, Revision, Txn},
};

use super::fixture::{CLUSTER, Cluster, Kind, copy_tree, document, key, open_alone, until};
use crate::{
    Store,
    recover::{Cut, Position, Survivor, recover, survey},
};

const WRITES: u64 = 10;

/// What is left of three when two are gone: the directory of a follower that had applied everything.
async fn survivor() -> (Cluster, u64, PathBuf) {
    let mut cluster = Cluster::of_three(Kind::Disk).await;
    let leader = cluster.leader().await;
    for number in 1..=WRITES {
        cluster.put(leader, &number.to_string()).await;
    }
    let survivor = cluster.follower().await;
    cluster.reaches(survivor, Revision(WRITES)).await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let path = cluster.path(survivor);
    (cluster, survivor, path)
}

async fn leads(path: &Path, node: u64) -> Store {
    let store = open_alone(path, CLUSTER, node).await.unwrap();
    store.status().wait_for(|status| status.leading).await.unwrap();
    store
}

async fn write(store: &Store, name: &str) -> Revision {
    let request = RequestId(u128::from(name.len() as u64) + 5000);
    match store.propose(request, Txn::new().put(key(name), document(name))).await.unwrap() {
        Outcome::Applied(revision) => revision,
        stale => panic!("{stale:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_shows_what_it_has_and_is_not_changed_by_that() {
    let (_cluster, node, path) = survivor().await;
    let seen = survey(&path, CLUSTER, NodeId::from(node)).unwrap();
    let all = [1, 2, 3].map(NodeId::from).into();
    assert_eq!((seen.revision, &seen.voters, &seen.members), (Revision(WRITES), &all, &all));
    let last = seen.last.unwrap();
    assert!(seen.term >= last.term && seen.applied <= seen.last && seen.committed <= seen.last, "{seen:?}");
    assert_eq!(survey(&path, CLUSTER, NodeId::from(node)).unwrap(), seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_alone_with_all_it_had_and_others_join_it_empty() {
    let (mut cluster, node, path) = survivor().await;
    let before = survey(&path, CLUSTER, NodeId::from(node)).unwrap();
    let after = recover(&path, CLUSTER, NodeId::from(node), Cut::Last).unwrap();
    let alone = [NodeId::from(node)].into();
    assert_eq!((after.revision, after.hash, &after.voters), (before.revision, before.hash, &alone));
    assert!(after.term > before.term, "its vote is newer than any it gave");
    assert_eq!(after.last, after.applied);

    cluster.start(node).await;
    let leader = cluster.leader().await;
    assert_eq!(leader, node);
    let revision = cluster.put(node, "after").await;
    assert_eq!(revision, Revision(WRITES + 1));
    // New nodes under ids that nobody had: all they get comes from the survivor, whose log begins in the middle.
    for newcomer in [11, 12] {
        cluster.start(newcomer).await;
    }
    cluster.settle(3).await;
    for newcomer in [11, 12] {
        cluster.reaches(newcomer, revision).await;
        assert_eq!(cluster.names(newcomer), cluster.names(node));
        assert_eq!(cluster.store(newcomer).status().borrow().hash, cluster.store(node).status().borrow().hash);
    }
    cluster.stop(node).await;
    let next = cluster.leader().await;
    cluster.put(next, "without the survivor").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovering_twice_does_no_harm() {
    let (_cluster, node, path) = survivor().await;
    let once = recover(&path, CLUSTER, NodeId::from(node), Cut::Last).unwrap();
    let twice = recover(&path, CLUSTER, NodeId::from(node), Cut::Last).unwrap();
    let comparable = |survivor: &Survivor| Survivor { term: 0, ..survivor.clone() };
    assert_eq!(comparable(&once), comparable(&twice));
    let store = leads(&path, node).await;
    assert_eq!(store.rows("/").unwrap().1.len() as u64, WRITES);
    store.shutdown().await;
}

/// A survivor with an entry in its log that no majority may have: the leader wrote it when the others were gone already.
async fn with_a_tail() -> (Cluster, u64, PathBuf) {
    let mut cluster = Cluster::of_three(Kind::Disk).await;
    let leader = cluster.leader().await;
    for number in 1..=WRITES {
        cluster.put(leader, &number.to_string()).await;
    }
    let log = |cluster: &Cluster| cluster.store(leader).inner.metrics.borrow_watched().last_log_index;
    let before = log(&cluster);
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.cut(node);
    }
    let txn = Txn::new().put(key("tail"), document("tail"));
    tokio::select! {
        outcome = cluster.store(leader).propose(RequestId(7000), txn) => panic!("nobody can have agreed: {outcome:?}"),
        () = until("the entry is in the log", || async { (log(&cluster) > before).then_some(()) }) => {}
    }
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let path = cluster.path(leader);
    (cluster, leader, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cut_decides_whether_what_nobody_acknowledged_is_done() {
    let (_cluster, node, path) = with_a_tail().await;
    let copy = path.with_extension("copy");
    copy_tree(&path, &copy);
    let seen = survey(&path, CLUSTER, NodeId::from(node)).unwrap();
    assert!(seen.last > seen.applied, "{seen:?}");

    let kept = recover(&path, CLUSTER, NodeId::from(node), Cut::Last).unwrap();
    assert_eq!((kept.last, kept.revision), (seen.last, Revision(WRITES + 1)));
    let store = leads(&path, node).await;
    assert_eq!(store.rows("/").unwrap().1.len() as u64, WRITES + 1);
    assert_eq!(write(&store, "next").await, Revision(WRITES + 2));
    store.shutdown().await;

    let cut = recover(&copy, CLUSTER, NodeId::from(node), Cut::Applied).unwrap();
    assert_eq!((cut.last, cut.revision), (seen.applied, Revision(WRITES)));
    let store = leads(&copy, node).await;
    assert_eq!(store.rows("/").unwrap().1.len() as u64, WRITES);
    assert_eq!(write(&store, "next").await, Revision(WRITES + 1));
    store.shutdown().await;
    // The mark was lowered with the log: the next start does not take the cut for a loss.
    let store = leads(&copy, node).await;
    assert_eq!(store.read(Read::Linearizable).await.unwrap(), Revision(WRITES + 1));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_leaves_at_any_step_opens_as_the_old_group_or_the_new_one() {
    let (_cluster, node, path) = with_a_tail().await;
    let id = NodeId::from(node);
    let old = survey(&path, CLUSTER, id).unwrap();
    let recovered = path.with_extension("recovered");
    copy_tree(&path, &recovered);
    let new = recover(&recovered, CLUSTER, id, Cut::Applied).unwrap();

    // Each part is replaced by one step: the mark is lowered, the snapshot removed, the database written, the snapshot made, the mark
    // raised. After any of them the directory is one of these mixtures.
    let lowered = path.with_extension("lowered");
    copy_tree(&path, &lowered);
    let mut mark = crate::log::mark::Mark::open(&lowered.join("mark")).unwrap();
    mark.set_last(mark.level().last.map(|last| crate::record::LogId { index: old.applied.unwrap().index, ..last }))
        .unwrap();
    mark.sync().unwrap();
    drop(mark);
    assert_eq!(survey(&lowered, CLUSTER, id).unwrap(), old, "a lower mark");
    fs::remove_dir_all(lowered.join("snapshots")).ok();
    assert_eq!(survey(&lowered, CLUSTER, id).unwrap(), old, "no snapshot");
    fs::remove_dir_all(lowered.join("db")).unwrap();
    copy_tree(&recovered.join("db"), &lowered.join("db"));
    assert_eq!(survey(&lowered, CLUSTER, id).unwrap(), new, "the new database under the lower mark");
    let store = leads(&lowered, node).await;
    assert_eq!(write(&store, "next").await, Revision(WRITES + 1));
    store.shutdown().await;
}

#[test]
fn of_two_survivors_the_one_with_the_newer_term_has_more_whatever_the_length_of_its_log() {
    let at = |term, index| Position { term, index };
    assert!(at(3, 10) > at(2, 90) && at(2, 91) > at(2, 90));
}

#[test]
fn where_there_is_no_store_nothing_is_made() {
    let directory = tempfile::tempdir().unwrap();
    assert!(survey(directory.path(), CLUSTER, NodeId(1)).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
