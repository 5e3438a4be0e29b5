//! The server side of agreement: what other nodes ask of this one.
//!
//! Callers are authenticated by the mesh. A node whose membership may be behind must still hear a leader it does not know, and vote for a
//! candidate that is ahead of it; a caller is refused only by one who knows better.
//!
//! Invariant: whatever arrives is decoded within its limit and checked before it reaches the log: what is proposed is a whole command.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use openraft::{
    async_runtime::watch::WatchReceiver,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest, VoteRequest,
        VoteResponse,
    },
};
use quorate_proto::{
    ids::NodeId,
    txn::{Command, CommandOutcome},
};
use tokio::time::timeout;

use crate::{
    beats::Asked,
    network::Pipe,
    record,
    rpc::{self, Answer, Append, Appended, Ballot, Refused, Request},
    space::Room,
    state,
    store::{Store, Tried, check_limits},
    types::{self, LogId, Runtime, Snapshot, TypeConfig},
};

/// A forwarded proposal is not waited for any longer: the asker has given up by then.
const FORWARDED: Duration = Duration::from_secs(10);

impl Store {
    /// Answers a request of another node: the server side of [`Network::call`](crate::Network::call).
    ///
    /// `from` is the caller's proven identity. The request has at most `proto::wire::cap::APPEND` bytes, or is refused.
    pub async fn answer(&self, from: NodeId, request: Bytes) -> Bytes {
        let answer = match rpc::decode(&request) {
            _ if self.inner.fence.fault().is_some() => Answer::Refused(Refused::Stopped),
            Ok(request) => self.serve(from, request).await,
            Err(error) => Answer::Refused(Refused::Malformed(error.to_string())),
        };
        rpc::encode(&answer).unwrap_or_default()
    }

    /// Serves a pipe of another node: the server side of [`Network::open`](crate::Network::open). Returns when either side ends it.
    pub async fn accept(&self, from: NodeId, pipe: Pipe) {
        let Pipe { mut send, receive } = pipe;
        if let Some(free) = lacking(self.inner.room()) {
            // Whoever is full stays a member: heartbeats come by calls. The leader tries again later.
            if let Ok(frame) = rpc::encode(&Appended::Refused(Refused::Full(free)))
                && send.send(frame).await.is_err()
            {
                return;
            }
            return drop(send.close().await);
        }
        tracing::debug!(%from, "receives entries");
        let room = self.inner.room.clone();
        // Whatever is not understood ends the pipe, as a broken one does: the leader begins anew.
        let requests = receive
            .map(move |frame| {
                let append: Append = rpc::decode(&frame.ok()?).ok()?;
                let has_room = append.entries.is_empty() || lacking(*room.borrow()).is_none();
                restore(append).ok().filter(|_| has_room)
            })
            .take_while(|request| std::future::ready(request.is_some()))
            .filter_map(std::future::ready);
        let serve = async move {
            let mut answers = std::pin::pin!(self.inner.raft.stream_append(Box::pin(requests)));
            while let Some(answer) = answers.next().await {
                if let Ok(Ok(_) | Err(StreamAppendError::Conflict(_))) = &answer {
                    self.inner.heard.note(from);
                }
                let (answer, last) = match answer {
                    Ok(Ok(upto)) => (Appended::Upto(upto.map(record::LogId::from)), false),
                    Ok(Err(StreamAppendError::Conflict(id))) => (Appended::Conflict(Some(id.into())), true),
                    Ok(Err(StreamAppendError::HigherVote(vote))) => (Appended::HigherVote(vote.into()), true),
                    Err(_) => (Appended::Refused(Refused::Stopped), true),
                };
                let Ok(frame) = rpc::encode(&answer) else { break };
                if let Err(error) = send.send(frame).await {
                    // What has failed may not be used again, not even to close it: it ends by being dropped.
                    tracing::debug!(%from, %error, "receives no more entries");
                    return;
                }
                if last {
                    break;
                }
            }
            // The peer sees the end of the stream either way.
            let closed = send.close().await;
            tracing::debug!(%from, ?closed, "receives no more entries");
        };
        let shutdown = self.inner.shutdown.clone();
        // `stream_append` spawns, and openraft's tasks inherit their seed.
        Runtime::scope(self.inner.random.number(), shutdown.run_until_cancelled(serve)).await;
    }

    async fn serve(&self, from: NodeId, request: Request) -> Answer {
        let raft = &self.inner.raft;
        match request {
            Request::Append(append)
                if !append.entries.is_empty()
                    && let Some(free) = lacking(self.inner.room()) =>
            {
                Answer::Refused(Refused::Full(free))
            }
            Request::Append(append) => {
                let last = append.entries.last().map(|entry| entry.id).or(append.previous);
                let Ok(request) = restore(append) else {
                    return Answer::Refused(Refused::Malformed("an entry cannot be".to_owned()));
                };
                let answer = raft.append_entries(request).await;
                if !matches!(answer, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
                    self.inner.heard.note(from);
                }
                match answer {
                    Ok(AppendEntriesResponse::Success) => Answer::Appended(Appended::Upto(last)),
                    Ok(AppendEntriesResponse::PartialSuccess(upto)) => {
                        Answer::Appended(Appended::Upto(upto.map(record::LogId::from)))
                    }
                    Ok(AppendEntriesResponse::Conflict) => Answer::Appended(Appended::Conflict(None)),
                    Ok(AppendEntriesResponse::HigherVote(vote)) => Answer::Appended(Appended::HigherVote(vote.into())),
                    Err(_) => Answer::Refused(Refused::Stopped),
                }
            }
            Request::Vote(ballot) if self.knows_better(from, &ballot) => Answer::Refused(Refused::Stranger),
            Request::PreVote(ballot) if self.knows_better(from, &ballot) => Answer::Refused(Refused::Stranger),
            Request::Vote(ballot) => voted(raft.vote(request_vote(&ballot)).await),
            Request::PreVote(ballot) => voted(raft.pre_vote(request_vote(&ballot)).await),
            Request::Transfer { from, to, last } => {
                let request = TransferLeaderRequest::new(from.into(), to, last.map(LogId::from));
                match raft.handle_transfer_leader(request).await {
                    Ok(handed) => Answer::Transferred(handed.is_ok()),
                    Err(_) => Answer::Refused(Refused::Stopped),
                }
            }
            Request::Snapshot(_) | Request::Block { .. } if let Some(free) = self.inner.room().short() => {
                Answer::Refused(Refused::Full(free))
            }
            Request::Snapshot(id) => self.inbound(|inbound| inbound.announce(id)),
            Request::Block { snapshot, index, crc, bytes } => {
                self.inbound(|inbound| inbound.block(&snapshot, index, crc, bytes))
            }
            Request::Install { snapshot, vote } => self.install(&snapshot, vote).await,
            Request::Propose(_)
            | Request::ProposeAll(_)
            | Request::ReadIndex
            | Request::Lease { .. }
            | Request::Hash(_)
                if !self.is_member(from) =>
            {
                Answer::Refused(Refused::Stranger)
            }
            Request::Propose(command) => self.proposed(command).await,
            Request::ProposeAll(commands) => self.proposed_all(commands).await,
            Request::Lease { lease, keep_alive } => match self.asked(lease, keep_alive).await {
                Asked::Left(left) => Answer::Lease(Some(left)),
                Asked::NoLease => Answer::Lease(None),
                Asked::NotLeading => Answer::Refused(Refused::NotLeader(None)),
            },
            Request::Hash(revision) => Answer::Hash(self.inner.hash_at(revision).await),
            Request::ReadIndex => match self.inner.read_index().await {
                Ok(id) => Answer::ReadAt(id),
                Err(refused) => Answer::Refused(refused),
            },
        }
    }

    async fn proposed(&self, command: Bytes) -> Answer {
        match check(&command) {
            Err(refused) => Answer::Refused(refused),
            Ok(()) => {
                Answer::from(answered(timeout(FORWARDED, self.inner.submit(command)).await.unwrap_or(Tried::Unknown)))
            }
        }
    }

    async fn proposed_all(&self, commands: Vec<Bytes>) -> Answer {
        let refusals: Vec<Option<Refused>> = commands.iter().map(|command| check(command).err()).collect();
        let sound = commands.into_iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
        let sound: Vec<Bytes> = sound.map(|(command, _)| command).collect();
        // Those of a message that is given up are all unknown, also those that were done.
        let tried = timeout(FORWARDED, self.inner.submit_all(sound)).await.unwrap_or_default();
        let mut tried = tried.into_iter();
        let answers = refusals.into_iter().map(|refusal| match refusal {
            Some(refused) => Err(refused),
            None => answered(tried.next().unwrap_or(Tried::Unknown)),
        });
        Answer::All(answers.collect())
    }

    fn inbound(&self, arrive: impl FnOnce(&mut crate::inbound::Inbound) -> std::io::Result<u64>) -> Answer {
        let mut inbound = self.inner.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        match arrive(&mut inbound) {
            Ok(blocks) => Answer::Have(blocks),
            Err(error) => Answer::Refused(Refused::Malformed(error.to_string())),
        }
    }

    async fn install(&self, id: &rpc::SnapshotId, vote: record::Vote) -> Answer {
        let finished = {
            let mut inbound = self.inner.inbound.lock().unwrap_or_else(PoisonError::into_inner);
            inbound.finish(id).and_then(|snapshot| {
                let (header, _) = snapshot.read()?;
                Ok(Snapshot { meta: state::announce(&header)?, snapshot })
            })
        };
        let snapshot = match finished {
            Ok(snapshot) => snapshot,
            Err(error) => return Answer::Refused(Refused::Malformed(error.to_string())),
        };
        match self.inner.raft.install_full_snapshot(vote.into(), snapshot).await {
            Ok(response) => Answer::Installed(response.vote.into()),
            Err(_) => Answer::Refused(Refused::Stopped),
        }
    }

    /// Whether this node knows of a membership without the candidate that the candidate has not heard of: it was removed.
    fn knows_better(&self, candidate: NodeId, ballot: &Ballot) -> bool {
        let membership = Arc::clone(&self.inner.metrics.borrow_watched().membership_config);
        membership.get_node(&candidate).is_none() && membership.log_id().map(record::LogId::from) > ballot.last
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.inner.metrics.borrow_watched().membership_config.get_node(&node).is_some()
    }
}

/// Checks that what is proposed is a whole command, within the limits.
fn check(command: &Bytes) -> Result<(), Refused> {
    let checked = record::decode::<Command>(command).map_err(|error| error.to_string());
    let checked = checked.and_then(|command| check_limits(&command).map_err(|error| error.to_string()));
    checked.map_err(Refused::Malformed)
}

fn answered(tried: Tried) -> Result<CommandOutcome, Refused> {
    match tried {
        Tried::Done(outcome) => Ok(outcome),
        Tried::NotLeader(leader) => Err(Refused::NotLeader(leader)),
        Tried::Unknown => Err(Refused::Unknown),
        Tried::Stopped => Err(Refused::Stopped),
        Tried::Full(free) => Err(Refused::Full(free)),
    }
}

/// How many bytes are free, if those are too few for entries.
const fn lacking(room: Room) -> Option<u64> {
    match room {
        Room::None { free } => Some(free),
        Room::Enough | Room::Low { .. } => None,
    }
}

fn restore(append: Append) -> std::io::Result<AppendEntriesRequest<TypeConfig>> {
    if !append.is_whole() {
        return Err(record::damaged("entries that do not follow on each other".to_owned()));
    }
    Ok(AppendEntriesRequest {
        vote: append.vote.into(),
        prev_log_id: append.previous.map(LogId::from),
        entries: append.entries.into_iter().map(record::Entry::restore).collect::<std::io::Result<_>>()?,
        leader_commit: append.committed.map(LogId::from),
    })
}

fn request_vote(ballot: &Ballot) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(types::Vote::from(ballot.vote), ballot.last.map(LogId::from));
    request.leadership_transfer = ballot.transfer;
    request
}

fn voted<E>(response: Result<VoteResponse<TypeConfig>, E>) -> Answer {
    match response {
        Ok(response) => Answer::Voted {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(record::LogId::from),
        },
        Err(_) => Answer::Refused(Refused::Stopped),
    }
}

#[cfg(test)]
mod tests;
