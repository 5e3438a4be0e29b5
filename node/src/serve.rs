//! Serves one stream that somebody opened: says what it is for, and hands it to the part that answers.
//!
//! Whoever is asked stops when nobody waits for the answer any more: a watch that is quiet would otherwise never notice.
//!
//! Invariant: a stream that is malformed or not allowed gets one clear answer where its caller can read one, and ends; it never harms
//! another stream.

use std::sync::Arc;

use futures_util::StreamExt as _;
use quorate_api::{Api, Caller};
use quorate_proto::{
    ids::NodeId,
    refusal::{Reason, Refusal, chain},
    request::{Answer, Request},
    wire::cap,
    world::Clock,
};
use quorate_raft::Store;
use quorate_traffic::Traffic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    heard::Heard,
    links::{self, Lane, LinkError, Opening, Reader, Writer},
    loops::Snapshots,
    raft_network, registration,
    withdrawal::{self, Routed},
};

/// The parts that answer streams.
#[derive(Clone)]
pub struct Services {
    /// Requests.
    pub api: Api,
    /// The Raft group's messages.
    pub store: Store,
    /// Carried connections; a simulated node has none.
    pub traffic: Option<Traffic>,
    /// Who is who.
    pub snapshots: Snapshots,
    /// How far this node's routes have come.
    pub(crate) routed: Routed,
    /// Who lives.
    pub(crate) heard: Arc<Heard>,
    /// Since when.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Services {
    fn name_of(&self, node: NodeId) -> Option<String> {
        registration::name_of(&self.snapshots.borrow(), node)
    }

    /// Serves a stream that another node opened.
    ///
    /// # Errors
    /// If the stream broke, or its first frame made no sense.
    pub async fn node(
        &self,
        from: NodeId,
        lane: Lane,
        mut writer: Writer,
        mut reader: Reader,
    ) -> Result<(), LinkError> {
        let opening = links::receive::<Opening>(&mut reader, cap::CONTROL).await?;
        // Whoever speaks lives. What it says next may be that it is well: that must not be answered with "not heard".
        if lane == Lane::Peer
            && let Some(name) = self.name_of(from)
        {
            self.heard.hear(&name, self.clock.now());
        }
        match (lane, opening) {
            (Lane::Peer, Opening::RaftCall) => {
                let request = links::receive_bytes(&mut reader, cap::APPEND).await?;
                links::hear_out(&mut reader);
                let answer = self.store.answer(from, request).await;
                links::send_bytes(&mut writer, &answer, cap::APPEND).await?;
                writer.shutdown().await.map_err(LinkError::Broken)
            }
            (Lane::Peer, Opening::RaftPipe) => {
                self.store.accept(from, raft_network::pipe(writer, reader)).await;
                Ok(())
            }
            (Lane::Peer, Opening::Ask) => {
                let name = self.name_of(from);
                self.request(Caller::Node { id: from, name }, writer, reader).await
            }
            (Lane::Peer, Opening::Withdrawal) => {
                withdrawal::answer(&self.routed, &mut writer, &mut reader).await?;
                writer.shutdown().await.map_err(LinkError::Broken)
            }
            (Lane::Data, Opening::Carry) => {
                let caller = self.name_of(from).unwrap_or_else(|| from.to_string());
                if let Some(traffic) = &self.traffic
                    && let Err(error) = traffic.accept(&caller, writer, reader).await
                {
                    tracing::debug!(error = %chain(&error), "a connection was not carried to its end");
                }
                Ok(())
            }
            (lane, opening) => {
                tracing::warn!(%from, %lane, ?opening, "a stream on the wrong lane was refused");
                Ok(())
            }
        }
    }

    /// Serves a stream that carries one request.
    ///
    /// # Errors
    /// If the stream broke.
    pub async fn request(&self, caller: Caller, mut writer: Writer, mut reader: Reader) -> Result<(), LinkError> {
        let request = match links::receive::<Request>(&mut reader, cap::API).await {
            Ok(request) => request,
            Err(LinkError::Malformed(error)) => {
                let refusal = Refusal::new(Reason::BadRequest, "the request was not understood", error.to_string())
                    .hint("client and node may be of different versions");
                links::send(&mut writer, &Answer::Refused(refusal), cap::API).await?;
                return writer.shutdown().await.map_err(LinkError::Broken);
            }
            Err(error) => return Err(error),
        };
        let mut answers = self.api.handle(caller, request);
        let (mut listening, mut byte) = (true, [0; 1]);
        loop {
            let answer = tokio::select! {
                answer = answers.next() => answer,
                // Whoever asks sends nothing more. Its end is polite, a reset means that it wants no answer any more.
                read = reader.read(&mut byte), if listening => match read {
                    Ok(0) => { listening = false; continue }
                    _ => return Ok(()),
                },
            };
            match answer {
                Some(answer) => links::send(&mut writer, &answer, cap::API).await?,
                None => return writer.shutdown().await.map_err(LinkError::Broken),
            }
        }
    }
}

/// Serves as long as somebody waits for the answer; `gone` ends when nobody does.
///
/// # Errors
/// If the stream broke.
pub(crate) async fn while_wanted(
    served: impl Future<Output = Result<(), LinkError>>,
    gone: impl Future<Output = ()>,
) -> Result<(), LinkError> {
    tokio::select! {
        served = served => served,
        () = gone => Ok(()),
    }
}

#[cfg(test)]
mod tests;
