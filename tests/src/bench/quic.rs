//! Our side of a session: the store's own verbs over QUIC, as the mesh's client speaks it.
//!
//! Invariant: an operation is done only when the store has answered that it was applied.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use quorate_mesh::{Client, Stream, UserIdentity};
use quorate_node::world::{SystemClock, SystemRandom};
use quorate_proto::{
    ids::RequestId,
    key::Key,
    query::Query,
    range::KeyRange,
    request::{Answer, ClusterStatus, Read, Request},
    store::{StoreAnswer, StoreRequest},
    txn::{Command, CommandOutcome, Document, Txn},
    watch::{WatchFrom, WatchSpec},
    wire::cap,
    world::Random as _,
};

use crate::Failure;

/// A QUIC connection to a node.
pub(crate) struct Connection {
    client: Client,
    /// What this connection's request ids begin with.
    origin: u64,
    requests: AtomicU64,
}

/// A watch's stream.
pub(crate) struct Watch(Stream);

impl Connection {
    /// Connects to `host:port` as a user.
    pub(crate) async fn open(endpoint: &str, user: &UserIdentity) -> Result<Self, Failure> {
        let client = Client::connect(&[endpoint.to_owned()], user, Arc::new(SystemClock::start())).await?;
        Ok(Self { client, origin: SystemRandom.number(), requests: AtomicU64::new(0) })
    }

    pub(crate) async fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = RequestId(u128::from(self.origin) << 64 | u128::from(number));
        let txn = Txn::new().put(Key::parse(key)?, Document(Bytes::copy_from_slice(value)));
        match self.ask(StoreRequest::Execute(Command::Apply { request, txn })).await? {
            StoreAnswer::Outcome(CommandOutcome::Applied(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn get(&self, key: &str, stale: bool) -> Result<Option<Vec<u8>>, Failure> {
        let read = if stale { Read::Stale } else { Read::Linearizable };
        match self.ask(StoreRequest::Query { read, query: Query::new(range(key)?) }).await? {
            StoreAnswer::Page(page) => {
                let row = page.rows.into_iter().next();
                Ok(row.and_then(|row| row.document).map(|document| document.0.to_vec()))
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn watch(&self, key: &str) -> Result<Watch, Failure> {
        let mut stream = self.client.open().await?;
        let spec = WatchSpec::new(range(key)?, WatchFrom::Now);
        stream.write_frame(&Request::Store(StoreRequest::Watch(spec)), cap::API).await?;
        stream.finish()?;
        let mut watch = Watch(stream);
        match watch.answer().await? {
            StoreAnswer::Watching(_) => Ok(watch),
            other => Err(unexpected(&other)),
        }
    }

    /// The cluster as the node sees it.
    pub(crate) async fn status(&self) -> Result<ClusterStatus, Failure> {
        match self.request(&Request::Status).await? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn leads(&self) -> Result<bool, Failure> {
        let status = self.status().await?;
        Ok(status.leader == Some(status.node))
    }

    async fn ask(&self, request: StoreRequest) -> Result<StoreAnswer, Failure> {
        match self.request(&Request::Store(request)).await? {
            Answer::Store(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    async fn request(&self, request: &Request) -> Result<Answer, Failure> {
        let mut stream = self.client.open().await?;
        stream.write_frame(request, cap::API).await?;
        stream.finish()?;
        match stream.read_frame(cap::API).await? {
            Some(Answer::Refused(refusal)) => Err(refusal.into()),
            Some(answer) => Ok(answer),
            None => Err("there was no answer".into()),
        }
    }
}

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<(), Failure> {
        match self.answer().await? {
            StoreAnswer::Watched { more: false, .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn answer(&mut self) -> Result<StoreAnswer, Failure> {
        match self.0.read_frame(cap::API).await? {
            Some(Answer::Store(answer)) => Ok(answer),
            Some(other) => Err(unexpected(&other)),
            None => Err("the watch ended".into()),
        }
    }
}

fn range(key: &str) -> Result<KeyRange, Failure> {
    Ok(KeyRange::key(&Key::parse(key)?))
}

fn unexpected(answer: &dyn std::fmt::Debug) -> Failure {
    format!("an answer to something else: {answer:?}").into()
}
