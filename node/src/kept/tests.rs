use std::{num::NonZeroU64, sync::Arc};

use quorate_api::{Caller, Desired as _};
use quorate_proto::{
    branch::{Branch, Operation},
    key::Key,
    range::KeyRange,
    request::{Answer, Request},
    snapshot::Snapshot,
    store::{StoreAnswer, StoreRequest},
    txn::{Document, Txn},
    watch::WatchFrom,
    world::Random as _,
};

use super::*;
use crate::{
    testing::{Alone, namespace, until, within},
    world::SystemRandom,
};

fn key(name: &str) -> Key {
    Key::new("kv", "bench", None, name).unwrap()
}

fn all() -> KeyRange {
    KeyRange::prefix("/kv/").unwrap()
}

fn put(name: &str, value: &'static str) -> StoreRequest {
    let txn = Txn::new().put(key(name), Document(bytes::Bytes::from_static(value.as_bytes())));
    StoreRequest::Execute(Command::Apply { request: SystemRandom.request_id(), txn })
}

async fn asked(alone: &Alone, request: StoreRequest) -> futures_util::stream::BoxStream<'static, Answer> {
    alone.node.services.api.handle(Caller::User("ada".to_owned()), Request::Store(request))
}

async fn ask(alone: &Alone, request: StoreRequest) -> StoreAnswer {
    match within(asked(alone, request).await.next()).await {
        Some(Answer::Store(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_users_keep_is_written_read_watched_and_ends_with_its_lease() {
    let alone = Alone::start().await;
    let mut watch = asked(&alone, StoreRequest::Watch(WatchSpec::new(all(), WatchFrom::Now))).await;
    let Some(Answer::Store(StoreAnswer::Watching(begun))) = within(watch.next()).await else { panic!() };
    let StoreAnswer::Outcome(CommandOutcome::Applied(first)) = ask(&alone, put("a", "1")).await else { panic!() };
    assert!(first > begun);
    let lease = LeaseId(NonZeroU64::MIN);
    let grant = Command::Grant { request: SystemRandom.request_id(), lease, ttl_seconds: 60 };
    assert_eq!(ask(&alone, StoreRequest::Execute(grant)).await, StoreAnswer::Outcome(CommandOutcome::Granted));
    assert_eq!(ask(&alone, StoreRequest::KeepAlive(lease)).await, StoreAnswer::Kept(Some(60)));
    let document = Document(bytes::Bytes::from_static(b"2"));
    let branch = Branch::new().then(Operation::Put { key: key("b"), document, lease: Some(lease), previous: false });
    ask(&alone, StoreRequest::Execute(Command::Branch { request: SystemRandom.request_id(), branch })).await;
    match ask(&alone, StoreRequest::TimeToLive(lease)).await {
        StoreAnswer::Lease { lease: Some(lease), more: false } => assert_eq!(lease.keys, [key("b")]),
        other => panic!("{other:?}"),
    }
    let query = StoreRequest::Query { read: Read::Linearizable, query: Query::new(all()) };
    let keys = async || match ask(&alone, query.clone()).await {
        StoreAnswer::Page(page) => page.rows.into_iter().map(|row| row.key).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys().await, [key("a"), key("b")]);
    let revoke = Command::Revoke { request: SystemRandom.request_id(), lease, granted: None };
    ask(&alone, StoreRequest::Execute(revoke)).await;
    assert_eq!(keys().await, [key("a")]);
    assert_eq!(ask(&alone, StoreRequest::KeepAlive(lease)).await, StoreAnswer::Kept(None));

    let mut told = Vec::new();
    while told.len() < 3 {
        let Some(Answer::Store(StoreAnswer::Watched { bytes, more: false })) = within(watch.next()).await else {
            panic!()
        };
        let Delivery::Update(update) = wire::decode(&bytes, cap::APPEND).unwrap() else { panic!() };
        told.extend(update.events.into_iter().map(|event| (event.key, event.now.is_some())));
    }
    assert_eq!(told, [(key("a"), true), (key("b"), true), (key("b"), false)]);
}

#[tokio::test]
async fn what_is_no_longer_kept_or_yet_to_come_is_told_apart() {
    let alone = Alone::start().await;
    for value in ["1", "2", "3"] {
        ask(&alone, put("a", value)).await;
    }
    let StoreAnswer::Outcome(CommandOutcome::Applied(last)) = ask(&alone, put("a", "4")).await else { panic!() };
    let compact = Command::Compact { request: SystemRandom.request_id(), revision: last };
    let compacted = ask(&alone, StoreRequest::Execute(compact.clone())).await;
    assert_eq!(compacted, StoreAnswer::Outcome(CommandOutcome::Compacted(last)));
    let (old, future) = (Revision(last.0 - 1), Revision(last.0 + 100));
    let query = |at| StoreRequest::Query { read: Read::Linearizable, query: Query::new(all()).at(at) };
    assert_eq!(ask(&alone, query(old)).await, StoreAnswer::Compacted { oldest: last });
    match ask(&alone, query(future)).await {
        StoreAnswer::FutureRevision { asked, .. } => assert_eq!(asked, future),
        other => panic!("{other:?}"),
    }
    let watch = StoreRequest::Watch(WatchSpec::new(all(), WatchFrom::After(old)));
    assert_eq!(ask(&alone, watch).await, StoreAnswer::Compacted { oldest: last });
    let again = Command::Compact { request: SystemRandom.request_id(), revision: last };
    let refused = CommandOutcome::Refused(CommandRefusal::Compacted { oldest: last });
    assert_eq!(ask(&alone, StoreRequest::Execute(again)).await, StoreAnswer::Outcome(refused));
}

#[tokio::test]
async fn a_watch_ends_with_where_to_resume_when_its_node_stops() {
    let alone = Alone::start().await;
    let mut watch = asked(&alone, StoreRequest::Watch(WatchSpec::new(all(), WatchFrom::Now))).await;
    within(watch.next()).await.unwrap();
    let StoreAnswer::Outcome(CommandOutcome::Applied(last)) = ask(&alone, put("a", "1")).await else { panic!() };
    within(watch.next()).await.unwrap();
    alone.shutdown.cancel();
    match within(watch.next()).await {
        Some(Answer::Store(StoreAnswer::Cancelled { after, .. })) => assert_eq!(after, last),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_users_keep_is_in_no_snapshot_and_wakes_nobody_who_decides_on_objects() {
    let alone = Alone::start().await;
    alone.put(namespace("shop")).await;
    let mut snapshots = alone.node.snapshots.clone();
    let before: Arc<Snapshot> = Arc::clone(&snapshots.borrow_and_update());
    let StoreAnswer::Outcome(CommandOutcome::Applied(last)) = ask(&alone, put("a", "no JSON")).await else { panic!() };
    // A read waits until the snapshot has come as far as what was written; its objects are the same.
    let read = within(alone.node.agreed.snapshot(Read::Linearizable)).await.unwrap();
    assert!(read.revision() >= last);
    assert_eq!(read.all().collect::<Vec<_>>(), before.all().collect::<Vec<_>>());
    assert!(!snapshots.has_changed().unwrap());
    until(|| snapshots.borrow().revision() >= last).await;
    // A watch of objects that saw nothing of that can still be resumed from behind it.
    let mut changes = alone.node.agreed.changes(before.revision());
    for _ in 0..150 {
        ask(&alone, put("a", "x")).await;
    }
    let told = within(changes.next()).await.unwrap().unwrap();
    assert!(told[0].revision.0 >= before.revision().0 + 100);
}
