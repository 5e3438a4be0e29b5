//! The seam to other nodes: streams between them, opened by node id.
//!
//! The daemon implements it over the mesh, the simulator in memory. On every stream the first frame says what it is for ([`Opening`]);
//! who may open what is decided where it is accepted.
//!
//! Invariant: nothing above this file knows an address.

use std::fmt;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
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
    let too_large = || LinkError::Malformed(WireError::TooLarge { length: bytes.len(), cap });
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= cap).ok_or_else(too_large)?;
    writer.write_all(&length.to_be_bytes()).await.map_err(LinkError::Broken)?;
    writer.write_all(bytes).await.map_err(LinkError::Broken)?;
    writer.flush().await.map_err(LinkError::Broken)
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
