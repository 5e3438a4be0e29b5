//! etcd's side of a session: its v3 API, gRPC spoken by hand over `h2`, so that the client costs little.
//!
//! Invariant: an operation is done only when its call ended with `grpc-status` 0.

use std::{fmt, sync::Arc};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::Request;
use quorate_proto::{
    key::Key,
    txn::{Change, Document, Outcome, Revision, Txn, Versioned, Write},
};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::{Failure, protobuf, session::Rows};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Windows large enough that none of it ever waits for one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 22;

/// Bytes before a message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// An HTTP/2 connection to a member.
#[derive(Clone)]
pub struct Connection {
    endpoint: String,
    requests: SendRequest<Bytes>,
}

/// A watch stream.
pub struct Watch {
    body: RecvStream,
    buffer: BytesMut,
    /// What came in one message, and was not taken yet: newest first.
    pending: Vec<Arc<[Change]>>,
    _open: SendStream<Bytes>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If nobody answers there.
    pub async fn open(endpoint: &str) -> Result<Self, Failure> {
        let socket = TcpStream::connect(endpoint).await?;
        socket.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (requests, driver) = builder.handshake(socket).await?;
        // It ends with the connection; whoever asks then learns why.
        TaskTracker::new().spawn(driver);
        Ok(Self { endpoint: endpoint.to_owned(), requests })
    }

    /// Puts a value; done when it is acknowledged.
    ///
    /// # Errors
    /// If it is not.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
        protobuf::put_bytes(&mut message, 1, key.as_bytes());
        protobuf::put_bytes(&mut message, 2, value);
        self.call(PUT, &message).await.map(drop)
    }

    /// Has a transaction decided that compares at most one key.
    ///
    /// # Errors
    /// If it is not known to be decided.
    pub async fn transact(&self, txn: &Txn) -> Result<Outcome, Failure> {
        let mut message = BytesMut::new();
        for compare in &txn.compares {
            let mut field = BytesMut::new();
            // That the revision which last wrote it is the one that was seen; 0: that it does not exist.
            protobuf::put_number(&mut field, 2, 2);
            protobuf::put_bytes(&mut field, 3, compare.key.as_str().as_bytes());
            protobuf::put_number(&mut field, 6, compare.seen.map_or(0, |seen| seen.0));
            protobuf::put_bytes(&mut message, 1, &field);
        }
        for write in &txn.writes {
            let (mut operation, mut field) = (BytesMut::new(), BytesMut::new());
            protobuf::put_bytes(&mut field, 1, write.key().as_str().as_bytes());
            let number = match write {
                Write::Put(_, document) => {
                    protobuf::put_bytes(&mut field, 2, &document.0);
                    2
                }
                Write::Delete(_) => 3,
            };
            protobuf::put_bytes(&mut operation, number, &field);
            protobuf::put_bytes(&mut message, 2, &operation);
        }
        let answer = self.call(TXN, &message).await?;
        match (protobuf::number(&answer, 2), txn.compares.first()) {
            (0, Some(compare)) => Ok(Outcome::Stale(compare.key.clone())),
            _ => Ok(Outcome::Applied(revision(&answer))),
        }
    }

    /// All keys that begin with a text.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows(&self, prefix: &str, stale: bool, at: Option<Revision>) -> Result<Rows, Failure> {
        let mut message = prefixed(prefix);
        protobuf::put_number(&mut message, 4, at.map_or(0, |at| at.0));
        protobuf::put_number(&mut message, 7, u64::from(stale));
        let answer = self.call(RANGE, &message).await?;
        let rows = protobuf::all(&answer, 2).into_iter().map(row).collect::<Result<_, _>>()?;
        Ok(Rows { revision: revision(&answer), rows })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn get(&self, key: &str, stale: bool) -> Result<Option<Vec<u8>>, Failure> {
        let mut message = BytesMut::new();
        protobuf::put_bytes(&mut message, 1, key.as_bytes());
        if stale {
            protobuf::put_number(&mut message, 7, 1);
        }
        let answer = self.call(RANGE, &message).await?;
        Ok(protobuf::bytes(&answer, 2).and_then(|row| protobuf::bytes(row, 5)).map(<[u8]>::to_vec))
    }

    /// Whether the member says that it leads.
    ///
    /// # Errors
    /// If it says nothing.
    pub async fn leads(&self) -> Result<bool, Failure> {
        let answer = self.call(STATUS, &[]).await?;
        let own = protobuf::bytes(&answer, 1).map_or(0, |header| protobuf::number(header, 2));
        Ok(own != 0 && protobuf::number(&answer, 4) == own)
    }

    /// Watches a key from now on.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn watch(&self, key: &str) -> Result<Watch, Failure> {
        let mut create = BytesMut::new();
        protobuf::put_bytes(&mut create, 1, key.as_bytes());
        self.watch_as(&create).await
    }

    /// Watches all keys that begin with a text, after a revision.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn follow(&self, prefix: &str, after: Revision) -> Result<Watch, Failure> {
        let mut create = prefixed(prefix);
        protobuf::put_number(&mut create, 3, after.0 + 1);
        self.watch_as(&create).await
    }

    async fn watch_as(&self, create: &[u8]) -> Result<Watch, Failure> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut stream) = requests.send_request(request(&self.endpoint, WATCH)?, false)?;
        let mut message = BytesMut::new();
        protobuf::put_bytes(&mut message, 1, create);
        stream.send_data(protobuf::frame(&message), false)?;
        let body = response.await?.into_body();
        let mut watch = Watch { body, buffer: BytesMut::new(), pending: Vec::new(), _open: stream };
        watch.next().await?; // that it was created
        Ok(watch)
    }

    /// One unary call: its answer's message.
    async fn call(&self, method: &str, message: &[u8]) -> Result<Bytes, Failure> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut stream) = requests.send_request(request(&self.endpoint, method)?, false)?;
        stream.send_data(protobuf::frame(message), true)?;
        let response = response.await?;
        let early = response.headers().get("grpc-status").cloned(); // an error may come without a body
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.extend_from_slice(&data);
        }
        let late = body.trailers().await?.and_then(|trailers| trailers.get("grpc-status").cloned());
        match late.or(early) {
            Some(status) if status != "0" => Err(format!("etcd answers {method} with status {status:?}").into()),
            _ if answer.len() >= HEADER => Ok(answer.split_off(HEADER).freeze()),
            _ => Err(format!("etcd answers {method} with nothing").into()),
        }
    }
}

impl Watch {
    /// Waits for the next message: an event, or that the watch was created.
    ///
    /// # Errors
    /// If the watch ends.
    pub async fn next(&mut self) -> Result<(), Failure> {
        self.message().await.map(drop)
    }

    /// Waits for what the next revision did.
    ///
    /// # Errors
    /// If the watch ends.
    pub async fn changes(&mut self) -> Result<Arc<[Change]>, Failure> {
        loop {
            if let Some(changes) = self.pending.pop() {
                return Ok(changes);
            }
            let message = self.message().await?;
            if protobuf::number(&message, 4) != 0 {
                return Err("etcd cancelled the watch".into());
            }
            let changes: Vec<Change> = protobuf::all(&message, 11).into_iter().map(change).collect::<Result<_, _>>()?;
            self.pending = changes.chunk_by(|one, next| one.revision == next.revision).map(Into::into).collect();
            self.pending.reverse();
        }
    }

    async fn message(&mut self) -> Result<Bytes, Failure> {
        loop {
            if let Some((header, rest)) = self.buffer.split_at_checked(HEADER) {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if rest.len() >= length {
                    self.buffer.advance(HEADER);
                    return Ok(self.buffer.split_to(length).freeze());
                }
            }
            let data = self.body.data().await.ok_or("etcd ended the watch")??;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

/// A request's fields that name all keys which begin with a text.
fn prefixed(prefix: &str) -> BytesMut {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let mut message = BytesMut::new();
    protobuf::put_bytes(&mut message, 1, prefix.as_bytes());
    protobuf::put_bytes(&mut message, 2, &end);
    message
}

/// The store's revision in an answer's header.
fn revision(answer: &[u8]) -> Revision {
    Revision(protobuf::bytes(answer, 1).map_or(0, |header| protobuf::number(header, 3)))
}

/// A key and what it is.
fn row(row: &[u8]) -> Result<(Key, Versioned), Failure> {
    let key = Key::parse(std::str::from_utf8(protobuf::bytes(row, 1).unwrap_or_default())?)?;
    let document = Document(Bytes::copy_from_slice(protobuf::bytes(row, 5).unwrap_or_default()));
    let (created, modified) = (Revision(protobuf::number(row, 2)), Revision(protobuf::number(row, 3)));
    Ok((key, Versioned { document, created, modified }))
}

/// An event.
fn change(event: &[u8]) -> Result<Change, Failure> {
    let (key, now) = row(protobuf::bytes(event, 2).unwrap_or_default())?;
    let deleted = protobuf::number(event, 1) == 1;
    Ok(Change { revision: now.modified, key, now: (!deleted).then_some(now) })
}

fn request(endpoint: &str, method: &str) -> Result<Request<()>, http::Error> {
    Request::post(format!("http://{endpoint}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
}
