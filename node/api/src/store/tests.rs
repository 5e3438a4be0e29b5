use std::time::Duration;

use async_trait::async_trait;
use quorate_proto::{
    key::Key,
    lease::{LeaseId, MAX_LEASE_KEYS},
    query::{Page, Query},
    range::KeyRange,
    refusal::Reason,
    request::Read,
    txn::{Command, CommandOutcome, Revision},
    watch::{WatchFrom, WatchSpec},
    wire::{self, cap},
};

use super::*;
use crate::seam::Deliveries;

/// A store that answers the same to whatever it is asked.
struct Same {
    query: Result<Page, Unread>,
    deliveries: Vec<Result<Bytes, Ended>>,
    lease: Option<Lease>,
}

impl Default for Same {
    fn default() -> Self {
        Self { query: Ok(Page::default()), deliveries: Vec::new(), lease: None }
    }
}

#[async_trait]
impl KeyValue for Same {
    async fn query(&self, _read: Read, _query: &Query) -> Result<Page, Unread> {
        self.query.clone()
    }

    async fn execute(&self, _command: &Command) -> Result<CommandOutcome, Refusal> {
        Ok(CommandOutcome::Granted)
    }

    fn watch(&self, spec: WatchSpec) -> Result<(Revision, Deliveries), Ended> {
        match spec.from {
            WatchFrom::After(Revision(0)) => Err(Ended::Compacted { oldest: Revision(5) }),
            _ => Ok((Revision(9), stream::iter(self.deliveries.clone()).boxed())),
        }
    }

    async fn keep_alive(&self, _lease: LeaseId) -> Result<Option<Duration>, Refusal> {
        Ok(Some(Duration::from_secs(7)))
    }

    async fn lease(&self, _lease: LeaseId) -> Result<Option<Lease>, Refusal> {
        Ok(self.lease.clone())
    }
}

async fn ask(store: &Same, request: StoreRequest) -> Vec<Answer> {
    match answers(store, request).await {
        Ok(answers) => answers.collect().await,
        Err(refusal) => vec![Answer::Refused(refusal)],
    }
}

fn query() -> StoreRequest {
    StoreRequest::Query { read: Read::Stale, query: Query::new(KeyRange::prefix("/kv/").unwrap()) }
}

fn watch(after: u64) -> StoreRequest {
    StoreRequest::Watch(WatchSpec::new(KeyRange::prefix("/kv/").unwrap(), WatchFrom::After(Revision(after))))
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_says_which_of_three_reasons_it_is() {
    let answer = async |query| ask(&Same { query, ..Same::default() }, self::query()).await;
    let compacted = answer(Err(Unread::Compacted { oldest: Revision(5) })).await;
    assert_eq!(compacted, [Answer::Store(StoreAnswer::Compacted { oldest: Revision(5) })]);
    let (asked, at) = (Revision(9), Revision(5));
    let future = answer(Err(Unread::FutureRevision { asked, at })).await;
    assert_eq!(future, [Answer::Store(StoreAnswer::FutureRevision { asked, at })]);
    let refusal = Refusal::new(Reason::Unavailable, "nothing was read", "no quorum");
    assert_eq!(answer(Err(Unread::Refused(refusal.clone()))).await, [Answer::Refused(refusal)]);
}

#[tokio::test]
async fn a_watch_says_where_it_begins_and_how_it_ends() {
    let after = Revision(11);
    let end = Ended::Cancelled { after, because: "the node is stopping".to_owned() };
    let store = Same { deliveries: vec![Ok(Bytes::from_static(b"x")), Err(end)], ..Same::default() };
    let expected = [
        StoreAnswer::Watching(Revision(9)),
        StoreAnswer::Watched { bytes: Bytes::from_static(b"x"), more: false },
        StoreAnswer::Cancelled { after, because: "the node is stopping".to_owned() },
    ];
    assert_eq!(ask(&store, watch(9)).await, expected.map(Answer::Store));
    assert_eq!(ask(&store, watch(0)).await, [Answer::Store(StoreAnswer::Compacted { oldest: Revision(5) })]);
}

#[tokio::test]
async fn a_delivery_that_fits_no_frame_comes_in_pieces_that_do() {
    let whole: Bytes = (0..cap::APPEND).map(|at| (at % 251) as u8).collect();
    let store = Same { deliveries: vec![Ok(whole.clone()), Ok(Bytes::from_static(b"next"))], ..Same::default() };
    let (mut joined, mut deliveries) = (Vec::new(), Vec::new());
    for answer in ask(&store, watch(9)).await {
        assert!(wire::frame(&answer, cap::API).is_ok());
        if let Answer::Store(StoreAnswer::Watched { bytes, more }) = answer {
            joined.extend_from_slice(&bytes);
            if !more {
                deliveries.push(std::mem::take(&mut joined));
            }
        }
    }
    assert_eq!(deliveries, [whole.to_vec(), b"next".to_vec()]);
}

#[tokio::test]
async fn a_lease_is_shown_without_what_is_the_clusters_and_says_if_there_is_more() {
    let id = LeaseId::new(7).unwrap();
    let lease = |keys| Some(Lease { id, ttl_seconds: 9, remaining_millis: 100, keys });
    let asked = async |keys| {
        let answers = ask(&Same { lease: lease(keys), ..Same::default() }, StoreRequest::TimeToLive(id)).await;
        match answers.as_slice() {
            [answer @ Answer::Store(StoreAnswer::Lease { lease: Some(lease), more })] => {
                assert!(wire::frame(answer, cap::API).is_ok());
                (lease.keys.len(), *more)
            }
            other => panic!("{other:?}"),
        }
    };
    let own = |number: u32| Key::new("kv", &"b".repeat(240), Some(&"n".repeat(240)), &format!("{number}")).unwrap();
    let event = Key::new("", "events", Some("default"), "e").unwrap();
    assert_eq!(asked(vec![event, own(1)]).await, (1, false));
    let (count, more) = asked((0..MAX_LEASE_KEYS).map(own).collect()).await;
    assert!(more && count > 1000, "{count}");
    let none = ask(&Same::default(), StoreRequest::TimeToLive(id)).await;
    assert_eq!(none, [Answer::Store(StoreAnswer::Lease { lease: None, more: false })]);
    let kept = ask(&Same::default(), StoreRequest::KeepAlive(id)).await;
    assert_eq!(kept, [Answer::Store(StoreAnswer::Kept(Some(7)))]);
}
