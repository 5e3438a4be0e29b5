//! Carries the Raft group's messages over links.
//!
//! A call is a short stream of its own; the append pipe is one long stream of frames.
//!
//! Invariant: answers on a pipe keep the order of their requests, because a stream does.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, sink, stream};
use quorate_proto::{ids::NodeId, wire::cap};
use quorate_raft::{Network, NetworkError, Pipe, Urgency};

use crate::links::{self, Lane, LinkError, Links, Opening, Reader, Writer};

/// The Raft group's way to other nodes.
pub(crate) struct RaftNetwork {
    links: Arc<dyn Links>,
}

impl RaftNetwork {
    /// Over these links.
    #[must_use]
    pub(crate) const fn new(links: Arc<dyn Links>) -> Self {
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
        let exchange = async {
            let (mut writer, mut reader) = links::open(&*self.links, to, Lane::Peer, Opening::RaftCall).await?;
            links::send_bytes(&mut writer, &request, cap::APPEND).await?;
            links::receive_bytes(&mut reader, cap::APPEND).await
        };
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

/// A stream as a pipe of frames.
#[must_use]
pub(crate) fn pipe(writer: Writer, reader: Reader) -> Pipe {
    let send = sink::unfold(writer, |mut writer, frame: Bytes| async move {
        links::send_bytes(&mut writer, &frame, cap::APPEND).await.map_err(failed)?;
        Ok(writer)
    });
    let receive = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match links::receive_bytes(&mut reader, cap::APPEND).await {
            Ok(frame) => Some((Ok(frame), Some(reader))),
            Err(LinkError::Ended) => None,
            Err(error) => Some((Err(failed(error)), None)),
        }
    });
    Pipe { send: Box::pin(send.sink_map_err(|error: NetworkError| error)), receive: receive.boxed() }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn failed(error: LinkError) -> NetworkError {
    match error {
        LinkError::Unreachable { .. } => NetworkError::Unreachable(error.to_string()),
        _ => NetworkError::Failed(crate::desired::chain(&error)),
    }
}
