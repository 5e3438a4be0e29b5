//! Our side of a session: the store's own verbs over QUIC, as the mesh's client speaks it.
//!
//! Invariant: an operation is done only when the store has answered that it was applied.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use quorate_mesh::{Client, Stream, UserIdentity};
use quorate_node::world::{SystemClock, SystemRandom};
use quorate_proto::{
    ids::RequestId,
    key::Key,
    query::Query,
    range::KeyRange,
    request::{Answer, ClusterStatus, Read, Request},
    store::{MAX_DELIVERY, StoreAnswer, StoreRequest},
    txn::{Change, Command, CommandOutcome, Document, Outcome, Revision, Txn},
    watch::{Delivery, WatchFrom, WatchSpec},
    wire::{self, cap},
    world::Random as _,
};

use super::{Failure, session::Rows};

/// A QUIC connection to a node.
pub struct Connection {
    client: Client,
    /// What this connection's request ids begin with.
    origin: u64,
    requests: AtomicU64,
}

/// A watch's stream.
pub struct Watch(Stream);

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to `host:port` as a user.
    ///
    /// # Errors
    /// If nobody answers there.
    pub async fn open(endpoint: &str, user: &UserIdentity) -> Result<Self, Failure> {
        let client = Client::connect(&[endpoint.to_owned()], user, Arc::new(SystemClock::start())).await?;
        Ok(Self { client, origin: SystemRandom.number(), requests: AtomicU64::new(0) })
    }

    /// Puts a value; done when it is acknowledged.
    ///
    /// # Errors
    /// If it is not.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = RequestId(u128::from(self.origin) << 64 | u128::from(number));
        let txn = Txn::new().put(Key::parse(key)?, Document(Bytes::copy_from_slice(value)));
        match self.transact(request, txn).await? {
            Outcome::Applied(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Has a transaction decided.
    ///
    /// # Errors
    /// The refusal, or why there is no answer.
    pub async fn transact(&self, request: RequestId, txn: Txn) -> Result<Outcome, Failure> {
        match self.ask(StoreRequest::Execute(Command::Apply { request, txn })).await? {
            StoreAnswer::Outcome(CommandOutcome::Applied(revision)) => Ok(Outcome::Applied(revision)),
            StoreAnswer::Outcome(CommandOutcome::Stale(key)) => Ok(Outcome::Stale(key)),
            other => Err(unexpected(&other)),
        }
    }

    /// All keys that begin with a text.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows(&self, prefix: &str, stale: bool, at: Option<Revision>) -> Result<Rows, Failure> {
        let read = if stale { Read::Stale } else { Read::Linearizable };
        let mut query = Query { at, ..Query::new(KeyRange::prefix(prefix)?) };
        let (mut revision, mut rows) = (None, Vec::new());
        loop {
            let page = match self.ask(StoreRequest::Query { read, query: query.clone() }).await? {
                StoreAnswer::Page(page) => page,
                other => return Err(unexpected(&other)),
            };
            // Further pages are of the same revision as the first.
            let revision = *revision.get_or_insert(page.revision);
            query.at.get_or_insert(revision);
            let rest = page.rows.last().and_then(|last| query.range.after(&last.key));
            rows.extend(page.rows.into_iter().filter_map(|row| Some((row.key.clone(), row.versioned()?))));
            match rest {
                Some(rest) if page.more => query.range = rest,
                _ => return Ok(Rows { revision, rows }),
            }
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn get(&self, key: &str, stale: bool) -> Result<Option<Vec<u8>>, Failure> {
        let read = if stale { Read::Stale } else { Read::Linearizable };
        match self.ask(StoreRequest::Query { read, query: Query::new(range(key)?) }).await? {
            StoreAnswer::Page(page) => {
                let row = page.rows.into_iter().next();
                Ok(row.and_then(|row| row.document).map(|document| document.0.to_vec()))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Watches a key from now on.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn watch(&self, key: &str) -> Result<Watch, Failure> {
        self.watch_as(WatchSpec::new(range(key)?, WatchFrom::Now)).await
    }

    /// Watches all keys that begin with a text, after a revision.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn follow(&self, prefix: &str, after: Revision) -> Result<Watch, Failure> {
        self.watch_as(WatchSpec::new(KeyRange::prefix(prefix)?, WatchFrom::After(after))).await
    }

    async fn watch_as(&self, spec: WatchSpec) -> Result<Watch, Failure> {
        let mut stream = self.client.open().await?;
        stream.write_frame(&Request::Store(StoreRequest::Watch(spec)), cap::API).await?;
        stream.finish()?;
        let mut watch = Watch(stream);
        match watch.answer().await? {
            StoreAnswer::Watching(_) => Ok(watch),
            other => Err(unexpected(&other)),
        }
    }

    /// The cluster as the node sees it.
    ///
    /// # Errors
    /// If it is not told.
    pub async fn status(&self) -> Result<ClusterStatus, Failure> {
        match self.request(&Request::Status).await? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the node says that it leads.
    ///
    /// # Errors
    /// If it says nothing.
    pub async fn leads(&self) -> Result<bool, Failure> {
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
    /// Waits for the next event.
    ///
    /// # Errors
    /// If the watch ends.
    pub async fn next(&mut self) -> Result<(), Failure> {
        match self.answer().await? {
            StoreAnswer::Watched { more: false, .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for what the next revision did.
    ///
    /// # Errors
    /// If the watch ends.
    pub async fn changes(&mut self) -> Result<Arc<[Change]>, Failure> {
        let mut envelope = BytesMut::new();
        loop {
            match self.answer().await? {
                StoreAnswer::Watched { bytes, more } => {
                    envelope.extend_from_slice(&bytes);
                    if more {
                        continue;
                    }
                }
                other => return Err(unexpected(&other)),
            }
            if let Delivery::Update(update) = wire::decode(&envelope.split(), MAX_DELIVERY)? {
                return Ok(update.changes().collect());
            }
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
