//! Writes: a transaction is proposed here or on the leader, and tried again while that is safe.
//!
//! Invariant: a proposal that is answered was committed exactly once; one that is refused without being unknown was not done.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use openraft::{
    errors::{ClientWriteError, RaftError},
    raft::WriteResult,
};
use quorate_proto::{
    ids::{NodeId, RequestId},
    txn::{Command, CommandOutcome, MAX_OPERATIONS, MAX_TXN, Outcome, Txn},
};
use thiserror::Error;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Inner, PROPOSE, Store, forward};
use crate::{
    mutant::{self, Mutant},
    network::NetworkError,
    rpc::{Answer, Refused},
    space::RESERVE,
    types::{Proposal, Reply, TypeConfig},
};

/// Why a proposal has no outcome.
#[derive(Debug, Error)]
pub enum ProposeError {
    /// There is a leader, but it hears no majority, or cannot be reached. Nothing was done.
    #[error("no quorum: too few nodes reach each other; nothing was changed")]
    NoQuorum,
    /// Nobody leads. Nothing was done.
    #[error("no leader was elected in time; nothing was changed")]
    NoLeader,
    /// It may have been done, or may yet be. A retry with the same request id is safe, another is not.
    #[error("whether the change was made is not known")]
    Unknown,
    /// Beyond a limit.
    #[error("a transaction of {found} {what} is beyond the limit of {limit}")]
    TooLarge {
        /// `operations` or `bytes`.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The store was shut down, or has failed.
    #[error("the store has stopped")]
    Stopped,
    /// The leader's disk has too little room for it. Nothing was done.
    #[error("the leader's disk has only {} MiB left, of {} that are kept in reserve", free >> 20, RESERVE >> 20)]
    Full {
        /// Bytes that are free there.
        free: u64,
    },
}

/// What one try to propose came to.
pub(crate) enum Tried {
    Done(CommandOutcome),
    /// Nothing was done; who may lead.
    NotLeader(Option<NodeId>),
    Unknown,
    Stopped,
    /// Nothing was done: so many bytes are free.
    Full(u64),
}

/// Checks a transaction against the limits.
pub(crate) fn limits(txn: &Txn) -> Result<(), ProposeError> {
    let check = |what, found, limit| {
        if found > limit { Err(ProposeError::TooLarge { what, found, limit }) } else { Ok(()) }
    };
    check("operations", txn.operations(), MAX_OPERATIONS)?;
    check("bytes", txn.size(), MAX_TXN)
}

impl Store {
    /// Proposes a transaction, here or on the leader, and waits for its outcome. Tries again by itself while that is safe.
    ///
    /// May be dropped while it waits; the outcome is then unknown.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, request: RequestId, txn: Txn) -> Result<Outcome, ProposeError> {
        limits(&txn)?;
        let found = txn.size();
        let command = crate::record::encode(&Command::Apply { request, txn }).map_err(|_| ProposeError::TooLarge {
            what: "bytes",
            found,
            limit: MAX_TXN,
        })?;
        match self.submitted(command, false).await? {
            CommandOutcome::Applied(revision) => Ok(Outcome::Applied(revision)),
            CommandOutcome::Stale(key) => Ok(Outcome::Stale(key)),
            // The request id is that of another command: what became of this one is not known.
            _ => Err(ProposeError::Unknown),
        }
    }

    /// Has an encoded command committed, here or on the leader. Whether it `reads`: it may then be answered with a page.
    pub(super) async fn submitted(&self, command: Bytes, reads: bool) -> Result<CommandOutcome, ProposeError> {
        let began = Instant::now();
        let (patience, deadline) =
            (began + self.inner.timing.patience(), began + PROPOSE.max(self.inner.timing.patience()));
        let mut unknown = false;
        let mut led = false;
        loop {
            match timeout_at(deadline, self.inner.submit(command.clone())).await {
                Ok(Tried::Done(outcome)) => return Ok(outcome),
                Ok(Tried::Stopped) => return Err(if unknown { ProposeError::Unknown } else { ProposeError::Stopped }),
                Ok(Tried::Unknown) => unknown = true,
                Ok(Tried::Full(free)) => return Err(full(unknown, free)),
                Ok(Tried::NotLeader(Some(leader))) => {
                    led = true;
                    match timeout_at(deadline, self.inner.forward(leader, &command, reads)).await {
                        Ok(Tried::Done(outcome)) => return Ok(outcome),
                        Ok(Tried::Full(free)) => return Err(full(unknown, free)),
                        Ok(Tried::NotLeader(_)) => {}
                        Ok(Tried::Unknown | Tried::Stopped) => unknown = true,
                        Err(_) => return Err(ProposeError::Unknown),
                    }
                }
                Ok(Tried::NotLeader(None)) => {}
                Err(_) => return Err(ProposeError::Unknown),
            }
            // The request id makes trying again safe even when the first try may have been done.
            if Instant::now() >= if unknown { deadline } else { patience } {
                return Err(match (unknown, led || self.inner.is_leader()) {
                    (true, _) => ProposeError::Unknown,
                    (false, true) => ProposeError::NoQuorum,
                    (false, false) => ProposeError::NoLeader,
                });
            }
            self.inner.pause().await;
        }
    }
}

/// What is refused for want of room, unless an earlier try may have been done.
const fn full(unknown: bool, free: u64) -> ProposeError {
    if unknown { ProposeError::Unknown } else { ProposeError::Full { free } }
}

impl Inner {
    /// Proposes here.
    pub(crate) async fn submit(&self, command: Bytes) -> Tried {
        if let Some(free) = self.no_room_for(&command) {
            return Tried::Full(free);
        }
        match self.raft.client_write(Proposal(command)).await {
            Ok(response) => self.tried(Ok(response.data)),
            Err(RaftError::APIError(error)) => self.tried(Err(error)),
            Err(RaftError::Fatal(_)) => Tried::Stopped,
        }
    }

    /// Proposes several here, in one piece; what each came to, in their order.
    pub(crate) async fn submit_all(&self, commands: Vec<Bytes>) -> Vec<Tried> {
        if self.room().short().is_some() {
            // While there is hardly any room, each is looked at by itself.
            return stream::iter(commands).then(|command| self.submit(command)).collect().await;
        }
        let count = commands.len();
        let written = match self.raft.client_write_many(commands.into_iter().map(Proposal)).await {
            Ok(written) => {
                let tried = |result: WriteResult<TypeConfig>| self.tried(result.map(|response| response.response));
                written.map(|result| result.map_or(Tried::Stopped, tried)).collect().await
            }
            Err(_) => Vec::new(),
        };
        // It ends early if the store stops.
        written.into_iter().chain(std::iter::repeat_with(|| Tried::Stopped)).take(count).collect()
    }

    fn tried(&self, result: Result<Reply, ClientWriteError<TypeConfig>>) -> Tried {
        match result {
            // Only commands are proposed here, and each has an outcome.
            Ok(reply) => reply.0.map_or(Tried::Unknown, Tried::Done),
            Err(ClientWriteError::ForwardToLeader(refusal)) => Tried::NotLeader(self.other(&refusal)),
            Err(_) => Tried::Unknown,
        }
    }

    /// Proposes on the leader: one hop, no further.
    async fn forward(&self, leader: NodeId, command: &Bytes, reads: bool) -> Tried {
        let (told, answer) = oneshot::channel();
        let proposal = forward::Proposal { leader, command: command.clone(), reads, told };
        if self.forwards.send(proposal).await.is_err() {
            return Tried::Stopped;
        }
        match answer.await {
            Ok(Ok(Answer::Outcome(outcome))) => Tried::Done(outcome),
            Ok(Ok(Answer::Refused(Refused::Full(free)))) => Tried::Full(free),
            Ok(Ok(Answer::Refused(Refused::NotLeader(_) | Refused::Stranger | Refused::Malformed(_)))) => {
                Tried::NotLeader(None)
            }
            Ok(Err(NetworkError::Unreachable(_))) => Tried::NotLeader(None),
            Ok(_) | Err(_) if mutant::is(Mutant::UnknownSaidNotDone) => Tried::NotLeader(None),
            Ok(_) | Err(_) => Tried::Unknown,
        }
    }
}
