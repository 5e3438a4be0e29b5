//! The seam to other nodes: streams between them, opened by node id.
//!
//! The daemon implements it over the mesh, the simulator in memory. On every stream the first frame says what it is for ([`Opening`]);
//! who may open what is decided where it is accepted.
//!
//! Invariant: nothing above this file knows an address.

use std::fmt;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use quorate_proto::{
    ids::NodeId,
    wire::{self, WireError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The sending half of a stream.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// The receiving half of a stream.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// How much of a frame is allocated before more of it has arrived.
const STEP: usize = 64 << 10;

/// Which connection of a pair of nodes a stream takes, so that bulk never stands before agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Agreement, requests, heartbeats.
    Peer,
    /// Carried connections.
    Data,
}

/// What a stream between nodes is for: its first frame. Sent, so variants are only ever added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// One message of the Raft group and its answer.
    RaftCall,
    /// A pipe of messages of the Raft group.
    RaftPipe,
    /// A request as clients make it, asked by a node.
    Ask,
    /// A connection carried to a pod of the accepting node.
    Carry,
    /// A revision, and whether the accepting node's routes have come as far.
    Withdrawal,
}

/// Opens streams to other nodes.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// Opens a stream to a node, wherever it may be now.
    ///
    /// # Errors
    /// If the node cannot be reached.
    async fn open(&self, to: NodeId, lane: Lane) -> Result<(Writer, Reader), LinkError>;
}

/// A stream failed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The node could not be reached.
    #[error("node {to} cannot be reached: {because}")]
    Unreachable {
        /// The node.
        to: NodeId,
        /// What was tried and how it failed.
        because: String,
    },
    /// The stream broke.
    #[error("the stream broke")]
    Broken(#[source] std::io::Error),
    /// What came was no frame, or what was to go does not fit one.
    #[error("a malformed frame")]
    Malformed(#[source] WireError),
    /// The other side ended the stream between two frames.
    #[error("the other side ended the stream")]
    Ended,
}

/// Opens a stream and says what it is for.
///
/// # Errors
/// If the node cannot be reached or the stream breaks at once.
pub async fn open(links: &dyn Links, to: NodeId, lane: Lane, opening: Opening) -> Result<(Writer, Reader), LinkError> {
    let (mut writer, reader) = links.open(to, lane).await?;
    send(&mut writer, &opening, wire::cap::CONTROL).await?;
    Ok((writer, reader))
}

/// Asks one question on a stream of its own, and waits for its answer.
///
/// # Errors
/// If the node cannot be reached, the stream breaks, or either is beyond the cap.
pub async fn ask<Q: Serialize + Sync, A: DeserializeOwned>(
    links: &dyn Links,
    to: NodeId,
    opening: Opening,
    question: &Q,
    cap: usize,
) -> Result<A, LinkError> {
    let frame = wire::frame(question, cap).map_err(LinkError::Malformed)?;
    let (writer, mut reader) = links.open(to, Lane::Peer).await?;
    put(writer, opening, &[&frame]).await?;
    let answer = receive(&mut reader, cap).await?;
    hear_out(&mut reader);
    Ok(answer)
}

/// As [`ask`], with bytes that are no values of ours.
///
/// # Errors
/// As [`ask`].
pub async fn ask_bytes(
    links: &dyn Links,
    to: NodeId,
    opening: Opening,
    question: &[u8],
    cap: usize,
) -> Result<Bytes, LinkError> {
    let length = length(question, cap)?;
    let (writer, mut reader) = links.open(to, Lane::Peer).await?;
    put(writer, opening, &[&length, question]).await?;
    let answer = receive_bytes(&mut reader, cap).await?;
    hear_out(&mut reader);
    Ok(answer)
}

/// Says what a stream is for, what is asked on it, and that nothing follows: at once, so that all of it fits into one packet.
async fn put(mut writer: Writer, opening: Opening, question: &[&[u8]]) -> Result<(), LinkError> {
    let opening = wire::frame(&opening, wire::cap::CONTROL).map_err(LinkError::Malformed)?;
    writer.write_all(&opening).await.map_err(LinkError::Broken)?;
    for part in question {
        writer.write_all(part).await.map_err(LinkError::Broken)?;
    }
    writer.shutdown().await.map_err(LinkError::Broken)
}

/// Takes notice of the end of a stream that is here already: one that is dropped before it costs a message that tells the other side
/// to stop.
pub fn hear_out(reader: &mut Reader) {
    let mut nothing = [0; 1];
    // Whatever else is there is not waited for, and not wanted.
    drop(reader.read(&mut nothing).now_or_never());
}

/// Sends a value as a frame.
///
/// # Errors
/// If it is beyond the cap or the stream breaks.
pub async fn send<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    value: &T,
    cap: usize,
) -> Result<(), LinkError> {
    let frame = wire::frame(value, cap).map_err(LinkError::Malformed)?;
    writer.write_all(&frame).await.map_err(LinkError::Broken)?;
    writer.flush().await.map_err(LinkError::Broken)
}

/// Sends bytes that are no value of ours as a frame: a length and the bytes.
///
/// # Errors
/// If they are beyond the cap or the stream breaks.
pub async fn send_bytes(
    writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    bytes: &[u8],
    cap: usize,
) -> Result<(), LinkError> {
    writer.write_all(&length(bytes, cap)?).await.map_err(LinkError::Broken)?;
    writer.write_all(bytes).await.map_err(LinkError::Broken)?;
    writer.flush().await.map_err(LinkError::Broken)
}

/// The header of bytes that are sent as a frame.
fn length(bytes: &[u8], cap: usize) -> Result<[u8; wire::HEADER], LinkError> {
    let too_large = || LinkError::Malformed(WireError::TooLarge { length: bytes.len(), cap });
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= cap).ok_or_else(too_large)?;
    Ok(length.to_be_bytes())
}

/// Receives a value.
///
/// # Errors
/// [`LinkError::Ended`] if the stream ended before a frame began; otherwise if it broke or the frame is malformed or beyond the cap.
pub async fn receive<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin + ?Sized),
    cap: usize,
) -> Result<T, LinkError> {
    wire::decode(&receive_bytes(reader, cap).await?, cap).map_err(LinkError::Malformed)
}

/// Receives the bytes of a frame.
///
/// # Errors
/// As [`receive`].
pub async fn receive_bytes(reader: &mut (impl AsyncRead + Unpin + ?Sized), cap: usize) -> Result<Bytes, LinkError> {
    let mut header = [0; wire::HEADER];
    match reader.read(&mut header).await.map_err(LinkError::Broken)? {
        0 => return Err(LinkError::Ended),
        read => reader.read_exact(&mut header[read..]).await.map_err(LinkError::Broken)?,
    };
    let length = wire::length(header, cap).map_err(LinkError::Malformed)?;
    let mut bytes = BytesMut::new();
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize(length.min(start + STEP), 0);
        reader.read_exact(&mut bytes[start..]).await.map_err(LinkError::Broken)?;
    }
    Ok(bytes.freeze())
}

impl fmt::Display for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Peer => "peer",
            Self::Data => "data",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_and_bytes_pass_a_stream_as_they_were() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let bytes = vec![7; 3 * STEP];
        let sent = bytes.clone();
        let sender = async move {
            send(&mut near, &Opening::Carry, wire::cap::CONTROL).await.unwrap();
            send_bytes(&mut near, &sent, wire::cap::API).await.unwrap();
        };
        let receiver = async {
            assert_eq!(receive::<Opening>(&mut far, wire::cap::CONTROL).await.unwrap(), Opening::Carry);
            assert_eq!(receive_bytes(&mut far, wire::cap::API).await.unwrap(), bytes);
            assert!(matches!(receive_bytes(&mut far, wire::cap::API).await, Err(LinkError::Ended)));
        };
        tokio::join!(sender, receiver);
    }

    /// Links to one node that is at the far end of each stream.
    struct Wires(tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>);

    #[async_trait]
    impl Links for Wires {
        async fn open(&self, _: NodeId, _: Lane) -> Result<(Writer, Reader), LinkError> {
            let (near, far) = tokio::io::duplex(256);
            self.0.send(far).unwrap();
            let (reader, writer) = tokio::io::split(near);
            Ok((Box::new(writer), Box::new(reader)))
        }
    }

    #[tokio::test]
    async fn a_question_is_whole_before_its_answer_is_waited_for() {
        let (sender, mut opened) = tokio::sync::mpsc::unbounded_channel::<tokio::io::DuplexStream>();
        let answering = async {
            let mut far = opened.recv().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, [&[0, 0, 0, 2, 1, 0], &[0, 0, 0, 3][..], b"who"].concat());
            send_bytes(&mut far, b"me", wire::cap::API).await.unwrap();
        };
        let wires = Wires(sender);
        let asked = ask_bytes(&wires, NodeId(1), Opening::RaftCall, b"who", wire::cap::API);
        let (answer, ()) = tokio::join!(asked, answering);
        assert_eq!(answer.unwrap(), "me");
    }

    #[tokio::test]
    async fn a_question_beyond_its_cap_reaches_nobody() {
        let (sender, mut opened) = tokio::sync::mpsc::unbounded_channel();
        let asked = ask_bytes(&Wires(sender), NodeId(1), Opening::RaftCall, b"long", 3).await;
        assert!(matches!(asked, Err(LinkError::Malformed(WireError::TooLarge { length: 4, cap: 3 }))));
        assert!(opened.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_frame_beyond_its_cap_is_refused_by_its_length() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let error = receive_bytes(&mut far, wire::cap::CONTROL).await.unwrap_err();
        assert!(matches!(error, LinkError::Malformed(WireError::TooLarge { .. })), "{error}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_broken_not_ended() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&[0, 0]).await.unwrap();
        drop(near);
        assert!(matches!(receive_bytes(&mut far, wire::cap::CONTROL).await, Err(LinkError::Broken(_))));
    }
}
