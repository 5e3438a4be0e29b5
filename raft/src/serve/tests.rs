//! What becomes of a pipe that breaks.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{Sink, stream};
use quorate_proto::{ids::ClusterId, world::Random};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{Config, Memory, Network, NetworkError, Storage, Timing, Urgency};

struct Nobody;

#[async_trait]
impl Network for Nobody {
    async fn call(&self, _: NodeId, _: Bytes, _: Urgency, _: Duration) -> Result<Bytes, NetworkError> {
        Err(NetworkError::TimedOut)
    }

    async fn open(&self, _: NodeId) -> Result<Pipe, NetworkError> {
        Err(NetworkError::TimedOut)
    }
}

struct Zeros;

impl Random for Zeros {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// Fails once, and may then not be used any more: as a sink's contract is, and as `sink_map_err` holds it.
struct Breaks {
    broken: bool,
}

impl Breaks {
    fn fails(&mut self) -> Poll<Result<(), NetworkError>> {
        assert!(!self.broken, "a sink that has failed was used again");
        self.broken = true;
        Poll::Ready(Err(NetworkError::Failed("reset".to_owned())))
    }
}

impl Sink<Bytes> for Breaks {
    type Error = NetworkError;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        self.get_mut().fails()
    }

    fn start_send(self: Pin<&mut Self>, _: Bytes) -> Result<(), NetworkError> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        self.get_mut().fails()
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        self.get_mut().fails()
    }
}

#[tokio::test]
async fn a_leader_that_takes_no_answers_any_more_ends_its_pipe_and_nothing_else() {
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let config = Config::new(ClusterId(7), NodeId(1), Timing::CAREFUL);
    let storage = Storage::Memory(Memory::default());
    let opened = Store::open(config, storage, Arc::new(Nobody), Arc::new(Zeros), tasks.clone(), shutdown.clone()).await;
    let store = opened.unwrap();
    let vote = record::Vote { term: 1, node: NodeId(2), committed: true };
    let heartbeat = Append { vote, previous: None, entries: Vec::new(), committed: None };
    let received = stream::iter([Ok(rpc::encode(&heartbeat).unwrap())]);
    store.accept(NodeId(2), Pipe { send: Box::pin(Breaks { broken: false }), receive: Box::pin(received) }).await;
    store.shutdown().await;
}

#[test]
fn entries_that_leave_a_gap_are_taken_from_nobody() {
    let id = |index| record::LogId { term: 1, node: NodeId(1), index };
    let entry = |index| record::Entry { id: id(index), body: record::Body::Blank };
    let vote = record::Vote { term: 1, node: NodeId(1), committed: true };
    let sent = |previous: Option<u64>, entries: &[u64]| Append {
        vote,
        previous: previous.map(id),
        entries: entries.iter().copied().map(entry).collect(),
        committed: None,
    };
    for whole in [sent(None, &[0, 1]), sent(Some(246), &[247, 248]), sent(Some(246), &[])] {
        assert!(restore(whole).is_ok());
    }
    for torn in [sent(None, &[1]), sent(Some(246), &[250]), sent(Some(246), &[247, 249]), sent(Some(246), &[246])] {
        assert!(restore(torn.clone()).is_err(), "{torn:?}");
    }
}
