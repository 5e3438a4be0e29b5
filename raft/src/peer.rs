//! The client side of agreement: what openraft sends, carried by the [`Network`].
//!
//! Entries go through a long-lived pipe, many under way at once. Heartbeats and votes are short calls of their own, so that no backlog
//! delays them. openraft waits for acknowledgements without limit, so a pipe that stops moving is given up here.
//!
//! Invariant: what the transport did not deliver is an error, never a grant.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use openraft::{
    EmptyNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{self, RPCError, ReplicationClosed, StreamingError},
    network::{RPCOption, RPCTypes, stream_append_sequential},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use quorate_proto::ids::NodeId;
use tokio::time::{Instant, timeout};

use crate::{
    delay::{Delays, Outstanding},
    network::{Network, NetworkError, Pipe, Urgency},
    record,
    rpc::{self, Answer, Append, Appended, Ballot, Request, SnapshotId},
    snapshot::SnapshotFile,
    types::{self, LogId, Snapshot, TypeConfig},
};

type RpcError = RPCError<TypeConfig>;

/// A block of a snapshot that is not acknowledged for so long ends the transfer; the next one resumes it.
const BLOCK_DEADLINE: Duration = Duration::from_secs(10);

/// Installing may take this long.
const INSTALL_DEADLINE: Duration = Duration::from_secs(120);

/// A pipe on which nothing is acknowledged for so long though something is due is given up: longer than a healthy disk ever takes.
const STALLED: Duration = Duration::from_secs(3);

/// Makes clients.
pub(crate) struct Peers {
    pub(crate) node: NodeId,
    pub(crate) network: Arc<dyn Network>,
    /// Is told how long acknowledgements take.
    pub(crate) delays: Arc<Delays>,
}

/// Sends to one node.
pub(crate) struct Peer {
    node: NodeId,
    target: NodeId,
    network: Arc<dyn Network>,
    delays: Arc<Delays>,
    /// Whether it sends heartbeats only.
    heartbeats: bool,
}

impl Peers {
    fn peer(&self, target: NodeId, heartbeats: bool) -> Peer {
        let (network, delays) = (Arc::clone(&self.network), Arc::clone(&self.delays));
        Peer { node: self.node, target, network, delays, heartbeats }
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _: &EmptyNode) -> Peer {
        self.peer(target, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, _: &EmptyNode) -> Peer {
        self.peer(target, true)
    }
}

impl Peer {
    async fn call(
        &self,
        request: &Request,
        urgency: Urgency,
        kind: RPCTypes,
        deadline: Duration,
    ) -> Result<Answer, RpcError> {
        let request = rpc::encode(request).map_err(|error| failed(&error))?;
        let answer = self.network.call(self.target, request, urgency, deadline).await;
        let answer = answer.map_err(|error| self.network_error(&error, kind, deadline))?;
        match rpc::decode(&answer).map_err(|error| failed(&error))? {
            // Asking again at once makes no sense: it backs off.
            Answer::Refused(refused) => {
                Err(RPCError::Unreachable(errors::Unreachable::from_string(format!("refused: {refused:?}"))))
            }
            answer => Ok(answer),
        }
    }

    fn network_error(&self, error: &NetworkError, action: RPCTypes, timeout: Duration) -> RpcError {
        match error {
            NetworkError::Unreachable(_) => RPCError::Unreachable(errors::Unreachable::new(error)),
            NetworkError::Failed(_) => failed(error),
            NetworkError::TimedOut => {
                RPCError::Timeout(errors::Timeout { action, id: self.node, target: self.target, timeout })
            }
        }
    }

    async fn ballot(&self, request: &Request, option: &RPCOption) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.call(request, Urgency::Urgent, RPCTypes::Vote, option.soft_ttl()).await? {
            Answer::Voted { vote, granted, last } => {
                Ok(VoteResponse::new(types::Vote::from(vote), last.map(LogId::from), granted))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: types::Vote,
        file: SnapshotFile,
        last: Option<LogId>,
    ) -> Result<types::Vote, RpcError> {
        let digest = file.digest().map_err(|error| failed(&error))?;
        let id = SnapshotId { last: last.map(record::LogId::from), digest, blocks: file.blocks() };
        let send = async |request: Request, deadline: Duration| {
            self.call(&request, Urgency::Bulk, RPCTypes::InstallSnapshot, deadline).await
        };
        let mut answer = send(Request::Snapshot(id.clone()), BLOCK_DEADLINE).await?;
        loop {
            match answer {
                Answer::Have(index) if index < id.blocks => {
                    let bytes = file.block(index).map_err(|error| failed(&error))?;
                    let block = Request::Block { snapshot: id.clone(), index, crc: crc32fast::hash(&bytes), bytes };
                    answer = send(block, BLOCK_DEADLINE).await?;
                }
                Answer::Have(_) => {
                    let install = Request::Install { snapshot: id.clone(), vote: vote.into() };
                    answer = send(install, INSTALL_DEADLINE).await?;
                }
                Answer::Installed(vote) => return Ok(vote.into()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Sends requests through a pipe, and yields what comes back. Opens it only for the first request: openraft's back-off waits inside
    /// `input`, and whoever opens before asking would spin against a peer that is gone.
    async fn pipe<'s, S>(&'s self, mut input: S, patience: Duration) -> Result<Answers<'s>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let failed_pipe = move |error: NetworkError| self.network_error(&error, RPCTypes::AppendEntries, patience);
        let Some(first) = input.next().await else { return Ok(Box::pin(stream::empty())) };
        let opened = timeout(patience, self.network.open(self.target)).await;
        let Pipe { mut send, receive } = opened.unwrap_or(Err(NetworkError::TimedOut)).map_err(failed_pipe)?;
        let outstanding = Arc::new(Outstanding::new(STALLED));
        let sent = Arc::clone(&outstanding);
        let all_sent = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&all_sent);
        let sending = async move {
            let mut requests = stream::once(std::future::ready(first)).chain(input);
            while let Some(request) = requests.next().await {
                let append = append(&request);
                if !append.is_whole() {
                    // openraft reads the log while it cuts it. What is gone is sent as a snapshot when it begins anew.
                    return Err(failed_pipe(NetworkError::Failed("the log was cut while it was read".to_owned())));
                }
                let frame = rpc::encode(&append).map_err(|error| failed(&error))?;
                sent.send();
                send.send(frame).await.map_err(failed_pipe)?;
            }
            ended.store(true, Ordering::Relaxed);
            send.close().await.map_err(failed_pipe)
        };
        // Sending yields nothing but its failure; what arrives is what counts.
        let sending = stream::once(sending).filter_map(|sent| std::future::ready(sent.err().map(Err)));
        let receiving = stream::unfold(Some((receive, outstanding, all_sent)), move |pipe| async move {
            let (mut receive, outstanding, all_sent) = pipe?;
            let frame = tokio::select! {
                frame = receive.next() => frame,
                () = outstanding.overdue() => Some(Err(NetworkError::TimedOut)),
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Some((Err(failed_pipe(error)), None)),
                None if all_sent.load(Ordering::Relaxed) => return None,
                // What is sent from now on would be taken by nobody, and nobody would say so.
                None => {
                    let error = NetworkError::Failed("the peer has ended the pipe".to_owned());
                    return Some((Err(failed_pipe(error)), None));
                }
            };
            if let Some(took) = outstanding.acknowledge() {
                self.delays.note(self.target, took);
            }
            Some((acknowledged(&frame), Some((receive, outstanding, all_sent))))
        });
        Ok(Box::pin(stream::select(receiving, Box::pin(sending))))
    }
}

type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>;

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let append = append(&request);
        let last = append.entries.last().map(|entry| entry.id).or(append.previous);
        let began = Instant::now();
        let answer =
            self.call(&Request::Append(append), Urgency::Urgent, RPCTypes::AppendEntries, option.hard_ttl()).await?;
        self.delays.note_round_trip(began.elapsed());
        match answer {
            Answer::Appended(Appended::Upto(upto)) if upto == last => Ok(AppendEntriesResponse::Success),
            Answer::Appended(Appended::Upto(upto)) => Ok(AppendEntriesResponse::PartialSuccess(upto.map(LogId::from))),
            Answer::Appended(Appended::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Answer::Appended(Appended::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> BoxFuture<'s, Result<Answers<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.heartbeats {
            return stream_append_sequential(self, input, option);
        }
        let answers = stream::once(async move {
            let answers = self.pipe(input, option.soft_ttl()).await;
            answers.unwrap_or_else(|error| Box::pin(stream::once(std::future::ready(Err(error)))))
        });
        Box::pin(std::future::ready(Ok(Box::pin(answers.flatten()) as Answers<'s>)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ballot(&Request::Vote(ballot(&request)), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ballot(&Request::PreVote(ballot(&request)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: types::Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut cancel = pin!(cancel);
        let sent = tokio::select! {
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot.snapshot, snapshot.meta.last_log_id) => sent,
        };
        Ok(SnapshotResponse::new(sent?))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let from = record::Vote::from(*request.from_leader());
        let last = request.last_log_id().map(|id| record::LogId::from(*id));
        let request = Request::Transfer { from, to: *request.to_node_id(), last };
        match self.call(&request, Urgency::Urgent, RPCTypes::TransferLeader, option.soft_ttl()).await? {
            Answer::Transferred(true) => Ok(Ok(())),
            other => Err(unexpected(&other)),
        }
    }
}

fn append(request: &AppendEntriesRequest<TypeConfig>) -> Append {
    Append {
        vote: request.vote.into(),
        previous: request.prev_log_id.map(record::LogId::from),
        entries: request.entries.iter().map(record::Entry::from).collect(),
        committed: request.leader_commit.map(record::LogId::from),
    }
}

fn ballot(request: &VoteRequest<TypeConfig>) -> Ballot {
    Ballot {
        vote: request.vote.into(),
        last: request.last_log_id.map(record::LogId::from),
        transfer: request.leadership_transfer,
    }
}

fn acknowledged(frame: &Bytes) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    match rpc::decode(frame).map_err(|error| failed(&error))? {
        Appended::Upto(upto) => Ok(Ok(upto.map(LogId::from))),
        Appended::Conflict(Some(id)) => Ok(Err(StreamAppendError::Conflict(id.into()))),
        Appended::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote.into()))),
        Appended::Conflict(None) => {
            Err(RPCError::Network(errors::NetworkError::from_string("a conflict without an entry")))
        }
        Appended::Refused(refused) => {
            Err(RPCError::Unreachable(errors::Unreachable::from_string(format!("refused: {refused:?}"))))
        }
    }
}

fn failed<E: std::error::Error + 'static>(error: &E) -> RpcError {
    RPCError::Network(errors::NetworkError::new(error))
}

fn unexpected(answer: &Answer) -> RpcError {
    RPCError::Network(errors::NetworkError::from_string(format!("an answer to something else: {answer:?}")))
}
