//! Queries, watches of ranges and compaction, on any of three stores.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use quorate_proto::{
    branch::{Branch, Operation, OperationResult, Operator, Target},
    ids::RequestId,
    query::Query,
    range::KeyRange,
    request::Read,
    txn::{MAX_TXN, Revision, Txn},
    watch::{Delivery, Update, WatchFrom, WatchSpec},
    wire::{self, cap},
};
use tokio::time::timeout;

use super::fixture::{Cluster, Kind, document, key, until};
use crate::{Delivered, RangeWatch, ReadError, SharedUpdate, WatchError, columns::Column, engine::look};

async fn update(watch: &mut RangeWatch) -> Arc<SharedUpdate> {
    match timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap() {
        Delivered::Update(update) => update,
        mark @ Delivered::Progress(_) => panic!("{mark:?}"),
    }
}

/// What an update says: key, whether it was put, and whether it says what was before.
fn said(update: &Update) -> Vec<(&str, bool, bool)> {
    update.events.iter().map(|event| (event.key.name(), event.now.is_some(), event.before.is_some())).collect()
}

async fn delete(cluster: &Cluster, request: u128, name: &str) -> Revision {
    cluster.store(1).propose(RequestId(request), Txn::new().delete(key(name))).await.unwrap();
    cluster.store(1).read(Read::Linearizable).await.unwrap()
}

fn of(name: &str, from: WatchFrom) -> WatchSpec {
    WatchSpec::new(KeyRange::key(&key(name)), from)
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_range_is_told_of_what_it_asked_for_and_of_nothing_else() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    for name in ["a", "b", "a"] {
        cluster.put(1, name).await;
    }
    let last = delete(&cluster, 900, "a").await;
    cluster.reaches(2, last).await;
    let store = cluster.store(2);
    let past = WatchFrom::After(Revision(0));
    let mut all = store.watch_range(of("a", past)).unwrap();
    let mut puts = store.watch_range(WatchSpec { no_deletes: true, ..of("a", past) }).unwrap();
    let mut deletes = store.watch_range(WatchSpec { no_puts: true, previous: true, ..of("a", past) }).unwrap();
    for (revision, expected) in [(1, ("a", true, false)), (3, ("a", true, false)), (4, ("a", false, false))] {
        let told = update(&mut all).await;
        assert_eq!((told.update().revision.0, said(told.update())), (revision, vec![expected]));
    }
    assert_eq!([update(&mut puts).await, update(&mut puts).await].map(|told| told.update().revision.0), [1, 3]);
    let told = update(&mut deletes).await;
    assert_eq!(said(told.update()), [("a", false, true)]);
    assert_eq!(told.update().events[0].before.as_ref().unwrap().version, 2);
    assert!(timeout(Duration::from_secs(5), puts.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_watch_says_the_same_from_memory_and_from_the_store_and_after_it_was_resumed() {
    let mut cluster = Cluster::of_three(Kind::Memory).await;
    let spec = |from| WatchSpec { previous: true, ..WatchSpec::new(KeyRange::all(), from) };
    let mut live = cluster.store(1).watch_range(spec(WatchFrom::Now)).unwrap();
    let both =
        Branch::new().then(Operation::put(key("a"), document("a"))).then(Operation::put(key("b"), document("b")));
    cluster.store(1).branch(RequestId(900), both).await.unwrap();
    cluster.put(1, "a").await;
    let last = delete(&cluster, 901, "b").await;
    let mut told = Vec::new();
    for _ in 0..last.0 {
        told.push(update(&mut live).await.update().clone());
    }
    drop(live);
    cluster.reaches(2, last).await;
    cluster.stop(2).await;
    cluster.start(2).await;
    cluster.reaches(2, last).await;
    let mut again = cluster.store(2).watch_range(spec(WatchFrom::After(Revision(0)))).unwrap();
    assert_eq!(*update(&mut again).await.update(), told[0], "of one transaction at once");
    let mut resumed = cluster.store(3).watch_range(spec(WatchFrom::After(again.delivered()))).unwrap();
    for expected in &told[1..] {
        assert_eq!(update(&mut resumed).await.update(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_progress_is_never_ahead_of_what_was_told_and_never_behind_where_the_watch_began() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    cluster.put(1, "a").await;
    let marks = |from| WatchSpec { progress_millis: Some(1000), ..of("a", from) };
    let mut watch = cluster.store(1).watch_range(marks(WatchFrom::Now)).unwrap();
    let mut future = cluster.store(1).watch_range(marks(WatchFrom::After(Revision(4)))).unwrap();
    assert!(timeout(Duration::from_secs(5), future.next()).await.is_err(), "there is nothing to say yet");
    for name in ["b", "c"] {
        cluster.put(1, name).await;
    }
    let mark = async |watch: &mut RangeWatch| match watch.next().await.unwrap() {
        Delivered::Progress(revision) => revision,
        Delivered::Update(update) => panic!("{update:?}"),
    };
    until("it has come to the newest revision", || async { Some(()) }).await;
    let first = mark(&mut watch).await;
    assert!(first <= Revision(3));
    assert_eq!(mark(&mut watch).await, Revision(3), "nothing of its range, and all of it seen");
    let last = cluster.put(1, "a").await;
    assert_eq!(update(&mut watch).await.update().revision, last);
    assert_eq!(mark(&mut watch).await, last);
    assert_eq!(mark(&mut future).await, last);
    let next = cluster.put(1, "a").await;
    assert_eq!(update(&mut future).await.update().revision, next);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_watches_share_one_encoded_event() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let spec = || WatchSpec::new(KeyRange::prefix("/core/").unwrap(), WatchFrom::Now);
    let mut watches: Vec<_> = (0..10_000).map(|_| cluster.store(1).watch_range(spec()).unwrap()).collect();
    cluster.put(1, "a").await;
    let first = update(&mut watches[0]).await;
    let frame = first.frame().unwrap();
    for watch in &mut watches[1..] {
        let told = update(watch).await;
        assert!(Arc::ptr_eq(&told, &first));
        assert_eq!(told.frame().unwrap().as_ptr(), frame.as_ptr(), "the same bytes");
    }
    let sent: Delivery = wire::decode(&frame, cap::APPEND).unwrap();
    assert_eq!(sent, Delivery::Update(first.update().clone()));
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_and_what_is_yet_to_come_are_told_apart() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    for name in ["a", "b", "a", "c"] {
        cluster.put(1, name).await;
    }
    cluster.store(2).compact(RequestId(900), Revision(3)).await.unwrap();
    let store = cluster.store(3);
    let at = |revision| Query::new(KeyRange::all()).at(Revision(revision));
    let page = store.query(Read::Linearizable, &at(3)).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| (row.key.name(), row.version)).collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
    let past = store.query(Read::Linearizable, &at(2)).await.unwrap_err();
    assert_eq!(past.to_string(), "revisions before 3 are compacted");
    let future = store.query(Read::Linearizable, &at(5)).await.unwrap_err();
    assert_eq!(future.to_string(), "revision 5 is yet to come: the store is at 4");
    let watch = store.watch_range(WatchSpec::new(KeyRange::all(), WatchFrom::After(Revision(2))));
    assert!(matches!(watch, Err(WatchError::Compacted { oldest: Revision(3) })));
    let again = store.compact(RequestId(901), Revision(3)).await.unwrap_err();
    assert_eq!(again.to_string(), "revisions before 3 are compacted");
    let beyond = store.compact(RequestId(902), Revision(9)).await.unwrap_err();
    assert_eq!(beyond.to_string(), "revision 9 is yet to come: the store is at 4");
    let behind = store.query(Read::AtLeast(Revision(9)), &at(3)).await.unwrap_err();
    assert!(matches!(behind, ReadError::Behind { at: Revision(4), wanted: Revision(9) }), "{behind}");
}

async fn what_is_compacted_goes(kind: Kind) {
    let mut cluster = Cluster::of_three(kind).await;
    for _ in 0..300 {
        cluster.put(1, "a").await;
    }
    let last = delete(&cluster, 900, "a").await;
    cluster.store(1).compact(RequestId(901), last).await.unwrap();
    cluster.stop(2).await;
    cluster.start(2).await;
    for node in 1..=3 {
        // A follower may be behind what was acknowledged: until then it still has what is to go.
        cluster.reaches(node, last).await;
        until("nothing of it is left", || async {
            let store = cluster.store(node);
            let left = look(&*store.inner.engine, |view| {
                let mut rows = 0;
                for column in [Column::History, Column::Revisions] {
                    view.scan(column, &[], None, &mut |_, _| {
                        rows += 1;
                        Ok(std::ops::ControlFlow::Continue(()))
                    })?;
                }
                Ok(rows)
            });
            assert!(store.rows("/").unwrap().1.is_empty(), "it never comes back");
            (left.unwrap() == 0).then_some(())
        })
        .await;
    }
    let revision = cluster.put(2, "a").await;
    cluster.reaches(3, revision).await;
    let page = cluster.store(3).query(Read::AtLeast(revision), &Query::new(KeyRange::all())).await.unwrap();
    assert_eq!((page.rows[0].created, page.rows[0].version), (revision, 1));
    for node in 1..=3 {
        cluster.stop(node).await;
        cluster.start(node).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_goes_from_every_node_in_memory() {
    what_is_compacted_goes(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compacted_goes_from_every_node_on_disk() {
    what_is_compacted_goes(Kind::Disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_chooses_is_one_revision_on_every_node() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let once = || {
        Branch::new()
            .when(&key("lock"), Operator::Equal, Target::Created(Revision(0)))
            .then(Operation::put(key("lock"), document("mine")))
            .otherwise(Operation::Query(Query::new(KeyRange::key(&key("lock")))))
    };
    let first = cluster.store(1).branch(RequestId(900), once()).await.unwrap();
    assert!(first.succeeded);
    assert_eq!(cluster.store(2).branch(RequestId(900), once()).await.unwrap(), first, "a retry");
    let second = cluster.store(3).branch(RequestId(901), once()).await.unwrap();
    assert_eq!((second.succeeded, second.revision), (false, first.revision));
    let twice = Branch::new().then(Operation::put(key("a"), document("a"))).then(Operation::delete(KeyRange::all()));
    let refused = cluster.store(1).branch(RequestId(902), twice).await.unwrap_err();
    assert_eq!(refused.to_string(), "/core/configmaps/default/a is written twice in one transaction");
}

#[tokio::test(start_paused = true)]
async fn transactions_that_read_much_are_answered_whole_however_many_go_to_the_leader_at_once() {
    let cluster = Cluster::of_three(Kind::Memory).await;
    let follower = cluster.follower().await;
    cluster.propose(follower, Txn::new().put(key("large"), document(&"x".repeat(MAX_TXN / 2)))).await.unwrap();
    let read = || Branch::new().then(Operation::Query(Query::new(KeyRange::key(&key("large")))));
    let store = cluster.store(follower);
    let answers = join_all((0..20).map(|number| store.branch(RequestId(900 + number), read()))).await;
    for answer in answers {
        let results = answer.unwrap().results.expect("what it read is there");
        assert!(matches!(results.as_slice(), [OperationResult::Found(page)] if page.rows.len() == 1), "{results:?}");
    }
}
