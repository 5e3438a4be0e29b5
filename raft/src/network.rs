//! The seam to the network: what agreement needs of it, and no more.
//!
//! `node` implements it over the mesh, the simulator in memory. Peers are authenticated there: a caller's id is its proven identity.
//!
//! Invariant: an answer belongs to its request, and the frames of a pipe arrive whole, in order and once, or the pipe fails.

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Sink, Stream};
use quorate_proto::ids::NodeId;
use thiserror::Error;

/// How much a message hurries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Blocks of a snapshot: may take what the others leave.
    Bulk,
    /// Forwarded proposals and reads.
    Normal,
    /// Heartbeats and votes: late ones cost an election.
    Urgent,
}

/// Why a message got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// Refused, no route, no handshake: trying again at once makes no sense.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// It was reached, and the exchange failed.
    #[error("the exchange with the peer failed: {0}")]
    Failed(String),
    /// No answer before the deadline. The peer may have acted.
    #[error("the peer did not answer in time")]
    TimedOut,
}

/// Sends frames. Ready for the next one only when there is room: that is the back-pressure of replication.
pub type FrameSink = Pin<Box<dyn Sink<Bytes, Error = NetworkError> + Send>>;

/// Receives frames, each at most `proto::wire::cap::APPEND` bytes; the end of the stream is the peer's end of sending.
pub type FrameStream = Pin<Box<dyn Stream<Item = Result<Bytes, NetworkError>> + Send>>;

/// A long-lived pair of ordered streams of frames.
pub struct Pipe {
    /// To the peer. Closing it ends the peer's `receive`.
    pub send: FrameSink,
    /// From the peer.
    pub receive: FrameStream,
}

/// Reaches other nodes by their ids.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// One request and its answer, on a stream of its own. Requests and answers have at most `proto::wire::cap::APPEND` bytes.
    ///
    /// The other side hands the request to its [`Store::answer`](crate::Store::answer).
    async fn call(
        &self,
        to: NodeId,
        request: Bytes,
        urgency: Urgency,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError>;

    /// Opens a pipe; the other side hands it to its [`Store::accept`](crate::Store::accept).
    async fn open(&self, to: NodeId) -> Result<Pipe, NetworkError>;
}
