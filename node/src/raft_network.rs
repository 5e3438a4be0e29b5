//! Carries the Raft group's messages over links.
//!
//! A call is a short stream of its own; the append pipe is one long stream of frames.
//!
//! Invariant: answers on a pipe keep the order of their requests, because a stream does.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt as _};
use quorate_proto::{
    refusal::chain,
    {ids::NodeId, wire::cap},
};
use quorate_raft::{Network, NetworkError, Pipe, Urgency};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::links::{self, Lane, LinkError, Links, Opening, Reader, Writer};

/// The Raft group's way to other nodes.
pub struct RaftNetwork {
    links: Arc<dyn Links>,
}

impl RaftNetwork {
    /// Over these links.
    #[must_use]
    pub const fn new(links: Arc<dyn Links>) -> Self {
        Self { links }
    }
}

#[async_trait]
impl Network for RaftNetwork {
    async fn call(
        &self,
        to: NodeId,
        request: Bytes,
        _urgency: Urgency,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        let exchange = links::ask_bytes(&*self.links, to, Opening::RaftCall, &request, cap::APPEND);
        match tokio::time::timeout(deadline, exchange).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(NetworkError::TimedOut),
        }
    }

    async fn open(&self, to: NodeId) -> Result<Pipe, NetworkError> {
        let (writer, reader) = links::open(&*self.links, to, Lane::Peer, Opening::RaftPipe).await.map_err(failed)?;
        Ok(pipe(writer, reader))
    }
}

/// A stream as a pipe of frames. Closing its sending half ends the peer's receiving one.
#[must_use]
pub fn pipe(writer: Writer, reader: Reader) -> Pipe {
    let codec = || LengthDelimitedCodec::builder().length_field_type::<u32>().max_frame_length(cap::APPEND).new_codec();
    let broken = |error| failed(LinkError::Broken(error));
    Pipe {
        send: Box::pin(SinkExt::<Bytes>::sink_map_err(FramedWrite::new(writer, codec()), broken)),
        receive: Box::pin(
            FramedRead::new(reader, codec()).map(move |frame| frame.map(BytesMut::freeze).map_err(broken)),
        ),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn failed(error: LinkError) -> NetworkError {
    match error {
        LinkError::Unreachable { .. } => NetworkError::Unreachable(error.to_string()),
        _ => NetworkError::Failed(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_that_is_closed_one_way_ends_there_and_goes_on_the_other_way() {
        let (near, far) = tokio::io::duplex(64);
        let ends = [near, far].map(tokio::io::split);
        let [mut near, mut far] = ends.map(|(reader, writer)| pipe(Box::new(writer), Box::new(reader)));
        near.send.send(Bytes::from_static(b"entries")).await.unwrap();
        near.send.close().await.unwrap();
        assert_eq!(far.receive.next().await.unwrap().unwrap(), "entries");
        assert!(far.receive.next().await.is_none());
        far.send.send(Bytes::from_static(b"acknowledged")).await.unwrap();
        assert_eq!(near.receive.next().await.unwrap().unwrap(), "acknowledged");
    }
}
