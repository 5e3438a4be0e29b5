//! etcd's side of a session: its v3 API, gRPC spoken by hand over `h2`, so that the client costs little.
//!
//! Invariant: an operation is done only when its call ended with `grpc-status` 0.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::Request;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::{Failure, protobuf};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Windows large enough that none of it ever waits for one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 22;

/// Bytes before a message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// An HTTP/2 connection to a member.
#[derive(Clone)]
pub(crate) struct Connection {
    endpoint: String,
    requests: SendRequest<Bytes>,
}

/// A watch stream.
pub(crate) struct Watch {
    body: RecvStream,
    buffer: BytesMut,
    _open: SendStream<Bytes>,
}

impl Connection {
    /// Connects to `host:port`.
    pub(crate) async fn open(endpoint: &str) -> Result<Self, Failure> {
        let socket = TcpStream::connect(endpoint).await?;
        socket.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (requests, driver) = builder.handshake(socket).await?;
        // It ends with the connection; whoever asks then learns why.
        TaskTracker::new().spawn(driver);
        Ok(Self { endpoint: endpoint.to_owned(), requests })
    }

    pub(crate) async fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
        protobuf::put_bytes(&mut message, 1, key.as_bytes());
        protobuf::put_bytes(&mut message, 2, value);
        self.call(PUT, &message).await.map(drop)
    }

    pub(crate) async fn get(&self, key: &str, stale: bool) -> Result<Option<Vec<u8>>, Failure> {
        let mut message = BytesMut::new();
        protobuf::put_bytes(&mut message, 1, key.as_bytes());
        if stale {
            protobuf::put_number(&mut message, 7, 1);
        }
        let answer = self.call(RANGE, &message).await?;
        Ok(protobuf::bytes(&answer, 2).and_then(|row| protobuf::bytes(row, 5)).map(<[u8]>::to_vec))
    }

    pub(crate) async fn leads(&self) -> Result<bool, Failure> {
        let answer = self.call(STATUS, &[]).await?;
        let own = protobuf::bytes(&answer, 1).map_or(0, |header| protobuf::number(header, 2));
        Ok(own != 0 && protobuf::number(&answer, 4) == own)
    }

    pub(crate) async fn watch(&self, key: &str) -> Result<Watch, Failure> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut stream) = requests.send_request(request(&self.endpoint, WATCH)?, false)?;
        let (mut create, mut message) = (BytesMut::new(), BytesMut::new());
        protobuf::put_bytes(&mut create, 1, key.as_bytes());
        protobuf::put_bytes(&mut message, 1, &create);
        stream.send_data(protobuf::frame(&message), false)?;
        let body = response.await?.into_body();
        let mut watch = Watch { body, buffer: BytesMut::new(), _open: stream };
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
    pub(crate) async fn next(&mut self) -> Result<(), Failure> {
        loop {
            if let Some((header, rest)) = self.buffer.split_at_checked(HEADER) {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if rest.len() >= length {
                    self.buffer.advance(HEADER + length);
                    return Ok(());
                }
            }
            let data = self.body.data().await.ok_or("etcd ended the watch")??;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

fn request(endpoint: &str, method: &str) -> Result<Request<()>, http::Error> {
    Request::post(format!("http://{endpoint}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
}
