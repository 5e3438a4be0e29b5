//! The store: what the rest of Quorate sees of agreement.
//!
//! Invariant: a proposal that is answered was committed exactly once; one that is refused without being unknown was not done.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    ChangeMembers, EmptyNode, Precondition, ReadPolicy, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, ForwardToLeader, InitializeError, LinearizableReadError, RaftError},
};
use quorate_proto::{
    ids::{NodeId, RequestId},
    key::Key,
    request::Read,
    txn::{Command, MAX_OPERATIONS, MAX_TXN, Outcome, Revision, Txn, Versioned},
    wire::cap,
    world::Random,
};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{self, Config, Timing},
    engine::{Engine, look},
    inbound::Inbound,
    machine,
    network::{Network, NetworkError, Urgency},
    open::{self, OpenError, Opened, Storage},
    peer::Peers,
    record::LogId,
    rpc::{self, Answer, Refused, Request},
    state::{State, progress},
    status::{HealthLog, Keeper, MetricsReceiver, Status},
    types::{Proposal, Runtime, TypeConfig},
    voters::{Policy, Registered, Step, View},
    watch::{Feed, Watch, WatchError},
};

pub(crate) type Raft = openraft::Raft<TypeConfig, State>;

/// A proposal is given up after this time; whether it was done is then unknown.
const PROPOSE: Duration = Duration::from_secs(10);

/// A read waits so long for this node to catch up.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Between two tries to reach a leader.
const RETRY: Duration = Duration::from_millis(25);

/// A replicated, versioned key-value store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    node: NodeId,
    timing: Timing,
    engine: Arc<dyn Engine>,
    feed: Arc<Feed>,
    network: Arc<dyn Network>,
    pub(crate) raft: Raft,
    pub(crate) metrics: MetricsReceiver,
    pub(crate) inbound: Mutex<Inbound>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) shutdown: CancellationToken,
    status: watch::Receiver<Status>,
    health: Arc<Mutex<HealthLog>>,
}

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
}

/// Why a read cannot be answered.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Nobody could confirm what the newest state is.
    #[error("no quorum: the newest state cannot be confirmed")]
    NoQuorum,
    /// This node did not catch up in time.
    #[error("this node is at revision {at}, and did not reach {wanted} in time")]
    Behind {
        /// Where it is.
        at: Revision,
        /// What was asked for.
        wanted: Revision,
    },
    /// The store was shut down, or has failed.
    #[error("the store has stopped")]
    Stopped,
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Storage(#[source] io::Error),
}

/// Why a membership step was not taken.
#[derive(Debug, Error)]
pub enum StepError {
    /// This node does not lead, or something else changed meanwhile: plan anew.
    #[error("the step is refused: {0}")]
    Refused(String),
    /// The store was shut down, or has failed.
    #[error("the store has stopped")]
    Stopped,
}

/// What one try to propose came to.
pub(crate) enum Tried {
    Done(Outcome),
    /// Nothing was done; who may lead.
    NotLeader(Option<NodeId>),
    Unknown,
    Stopped,
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
    /// Opens a store and takes part in agreement. A new store waits until it is initialized, or added by a leader.
    ///
    /// Returns at once; all tasks are spawned on `tasks` and end at `shutdown`. Openraft's own end with [`Store::shutdown`].
    ///
    /// # Errors
    /// If the storage cannot be used, is another store's, or has lost something: see [`OpenError`].
    pub async fn open(
        config: Config,
        storage: Storage,
        network: Arc<dyn Network>,
        random: Arc<dyn Random>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, OpenError> {
        // Stopping the store must not stop whoever opened it.
        let shutdown = shutdown.child_token();
        let settings = Arc::new(config::openraft(&config).map_err(OpenError::Timing)?);
        let Opened { engine, vault, log, writer, meta, blocking } = open::open(&config, storage)?;
        if blocking {
            // Syncs wait for the disk: on a thread of their own they hold up nothing else.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| OpenError::Raft(error.to_string()))?;
            let thread = std::thread::Builder::new().name("raft-log".to_owned());
            thread.spawn(move || runtime.block_on(writer)).map_err(|error| OpenError::Raft(error.to_string()))?;
        } else {
            tasks.spawn(writer);
        }
        let feed = Arc::new(Feed::new(progress(&meta)));
        let state = State::new(Arc::clone(&engine), vault.clone(), Arc::clone(&feed), tasks.clone(), meta);
        let peers = Peers { node: config.node, network: Arc::clone(&network) };
        let starting = Raft::new(config.node, settings, peers, log.clone(), state);
        let raft = Runtime::scope(random.number(), starting).await?;
        let health = Arc::new(Mutex::new(HealthLog::default()));
        let (sender, status) = watch::channel(Status::default());
        let keeper = Keeper {
            node: config.node,
            timing: config.timing,
            limits: config.log,
            raft: raft.clone(),
            log,
            progress: feed.progress(),
            status: sender,
            health: Arc::clone(&health),
        };
        tasks.spawn(keeper.run(shutdown.clone()));
        let metrics = raft.metrics();
        let inner = Inner {
            node: config.node,
            timing: config.timing,
            engine,
            feed,
            network,
            raft,
            metrics,
            inbound: Mutex::new(Inbound::new(vault)),
            random,
            shutdown,
            status,
            health,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Begins a cluster with this node as its only voter: on exactly one node, once. Returns when its first entry is applied. On a store
    /// that was initialized before it does nothing but wait.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] if it does not come to lead in time, [`ProposeError::Stopped`] if the store has stopped.
    pub async fn initialize(&self) -> Result<(), ProposeError> {
        match self.inner.raft.initialize(BTreeMap::from([(self.inner.node, EmptyNode {})])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(_) => return Err(ProposeError::Stopped),
        }
        let mut progress = self.inner.feed.progress();
        // The first entry is the membership, the second the leader's own: with it, the store can change.
        let applied = progress.wait_for(|progress| progress.applied.is_some_and(|id| id.index >= 1));
        match timeout(self.inner.timing.patience() + PROPOSE, applied).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::NoLeader),
        }
    }

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
                Ok(Tried::NotLeader(Some(leader))) => {
                    led = true;
                    match timeout_at(deadline, self.inner.forward(leader, &command)).await {
                        Ok(Tried::Done(outcome)) => return Ok(outcome),
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

    /// Waits until this node's state may answer a read, and says at which revision it is.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, read: Read) -> Result<Revision, ReadError> {
        let mut progress = self.inner.feed.progress();
        match read {
            Read::Stale => {}
            Read::AtLeast(wanted) => {
                let reached = timeout(CATCH_UP, progress.wait_for(|progress| progress.revision >= wanted)).await;
                match reached {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return Err(ReadError::Stopped),
                    Err(_) => return Err(ReadError::Behind { at: self.inner.revision(), wanted }),
                }
            }
            Read::Linearizable => {
                let id = self.linearize().await?;
                let applied = |applied: &Option<LogId>| applied.is_some_and(|applied| applied.index >= id.index);
                match timeout(CATCH_UP, progress.wait_for(|progress| applied(&progress.applied))).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return Err(ReadError::Stopped),
                    Err(_) => return Err(ReadError::NoQuorum),
                }
            }
        }
        Ok(self.inner.revision())
    }

    /// All keys that begin with `prefix`, in order, and the revision they are of.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn rows(&self, prefix: &str) -> Result<(Revision, Vec<(Key, Versioned)>), ReadError> {
        look(&*self.inner.engine, |view| machine::rows(view, prefix)).map_err(ReadError::Storage)
    }

    /// All changes after `from`; waits for those to come. Begin with the revision [`Store::rows`] returned.
    ///
    /// # Errors
    /// If `from` is no longer kept.
    pub fn watch(&self, from: Revision) -> Result<Watch, WatchError> {
        let inner = &self.inner;
        Watch::new(Arc::clone(&inner.feed), Arc::clone(&inner.engine), inner.shutdown.clone(), from)
    }

    /// The cluster as this node sees it, whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// What [`plan`](crate::voters::plan) decides on; `None` on a node that does not lead.
    #[must_use]
    pub fn view(&self, registered: BTreeMap<NodeId, Registered>, policy: Policy) -> Option<View> {
        if !self.inner.status.borrow().leading {
            return None;
        }
        let membership = Arc::clone(&self.inner.metrics.borrow_watched().membership_config);
        Some(View {
            leader: self.inner.node,
            voters: membership.get_joint_config().clone(),
            learners: membership.membership().learner_ids().collect(),
            health: self.inner.health.lock().unwrap_or_else(PoisonError::into_inner).report(),
            registered,
            policy,
        })
    }

    /// Takes one step that was planned on `view`. A step that was planned on something older is refused.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn step(&self, view: &View, step: Step) -> Result<(), StepError> {
        let (vote, membership) = {
            let metrics = self.inner.metrics.borrow_watched();
            (metrics.vote, Arc::clone(&metrics.membership_config))
        };
        if *membership.get_joint_config() != view.voters {
            return Err(StepError::Refused("the voters have changed since".to_owned()));
        }
        if !vote.committed || vote.leader_id.node_id != self.inner.node {
            return Err(StepError::Refused("this node does not lead".to_owned()));
        }
        let change = match step {
            Step::Transfer(to) => return self.transfer(to).await,
            Step::Finish => ChangeMembers::AddVoterIds(BTreeSet::new()),
            Step::AddLearner(node) => ChangeMembers::AddNodes(BTreeMap::from([(node, EmptyNode {})])),
            Step::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            Step::Remove(nodes) => ChangeMembers::RemoveNodes(nodes),
        };
        let preconditions = [
            Precondition::CommittedLeaderId { committed_leader_id: vote.leader_id },
            Precondition::LastMembershipLogId { last_membership_log_id: *membership.log_id() },
        ];
        match self.inner.raft.change_membership_if(change, true, preconditions).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(StepError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(StepError::Stopped),
        }
    }

    /// Hands leadership to another voter, and waits until someone else leads.
    ///
    /// # Errors
    /// If nobody took over within an election.
    pub async fn transfer(&self, to: NodeId) -> Result<(), StepError> {
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|_| StepError::Stopped)?;
        let mut status = self.inner.status.clone();
        let (node, patience) = (self.inner.node, self.inner.timing.patience());
        let taken =
            timeout(patience, status.wait_for(|status| status.leader.is_some_and(|leader| leader != node))).await;
        match taken {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StepError::Stopped),
            Err(_) => Err(StepError::Refused("nobody took over".to_owned())),
        }
    }

    /// Stops taking part: hands leadership over if it can, stops openraft, closes all files. Other clones of the store answer `Stopped`.
    pub async fn shutdown(&self) {
        let heir = {
            let health = self.inner.health.lock().unwrap_or_else(PoisonError::into_inner).report();
            let status = self.inner.status.borrow();
            let healthy = |node: NodeId| health.get(&node).is_some_and(|health| health.healthy_for.is_some());
            status.members.iter().filter(|member| member.voter && healthy(member.id)).map(|member| member.id).next()
        };
        if let (true, Some(heir)) = (self.inner.is_leader(), heir)
            && let Err(error) = self.transfer(heir).await
        {
            tracing::info!(%error, "stops without having handed leadership over");
        }
        self.inner.shutdown.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "agreement did not stop in good order");
        }
        self.inner.engine.close();
        while !self.inner.engine.closed() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn linearize(&self) -> Result<LogId, ReadError> {
        let patience = Instant::now() + self.inner.timing.patience();
        loop {
            let leader = match timeout_at(patience, self.read_index()).await {
                Ok(Ok(id)) => return Ok(id),
                Ok(Err(Refused::NotLeader(leader))) => leader,
                Ok(Err(Refused::Stopped)) => return Err(ReadError::Stopped),
                Ok(Err(_)) | Err(_) => None,
            };
            if let Some(leader) = leader
                && let Ok(Answer::ReadAt(id)) = self.inner.ask(leader, &Request::ReadIndex, patience).await
            {
                return Ok(id);
            }
            if Instant::now() >= patience {
                return Err(ReadError::NoQuorum);
            }
            self.inner.pause().await;
        }
    }

    /// Up to which entry a read must have applied, if this node leads.
    pub(crate) async fn read_index(&self) -> Result<LogId, Refused> {
        match self.inner.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Ok((*id.log_id()).into()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Refused::NotLeader(self.inner.other(&forward)))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(Refused::NotLeader(None)),
            Err(RaftError::Fatal(_)) => Err(Refused::Stopped),
        }
    }
}

impl Inner {
    fn revision(&self) -> Revision {
        self.feed.progress().borrow().revision
    }

    fn is_leader(&self) -> bool {
        self.metrics.borrow_watched().state == ServerState::Leader
    }

    /// The leader that a refusal names, unless that is this node.
    fn other(&self, forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
        forward.leader_id.filter(|leader| *leader != self.node)
    }

    /// Proposes here.
    pub(crate) async fn submit(&self, command: Bytes) -> Tried {
        match self.raft.client_write(Proposal(command)).await {
            // Only commands are proposed here, and each has an outcome.
            Ok(response) => response.data.0.map_or(Tried::Unknown, Tried::Done),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Tried::NotLeader(self.other(&forward))
            }
            Err(RaftError::APIError(_)) => Tried::Unknown,
            Err(RaftError::Fatal(_)) => Tried::Stopped,
        }
    }

    /// Proposes on the leader: one hop, no further.
    async fn forward(&self, leader: NodeId, command: &Bytes) -> Tried {
        match self.ask(leader, &Request::Propose(command.clone()), Instant::now() + PROPOSE).await {
            Ok(Answer::Outcome(outcome)) => Tried::Done(outcome),
            Ok(Answer::Refused(Refused::NotLeader(_) | Refused::Stranger | Refused::Malformed(_))) => {
                Tried::NotLeader(None)
            }
            Err(NetworkError::Unreachable(_)) => Tried::NotLeader(None),
            Ok(_) | Err(_) => Tried::Unknown,
        }
    }

    /// Asks the leader, until another one is known: a leader that died would not answer before the deadline.
    async fn ask(&self, leader: NodeId, request: &Request, until: Instant) -> Result<Answer, NetworkError> {
        let failed = |error: &dyn std::error::Error| NetworkError::Failed(error.to_string());
        let request = rpc::encode(request).map_err(|error| failed(&error))?;
        debug_assert!(request.len() <= cap::APPEND, "encoding has checked it");
        let deadline = until.saturating_duration_since(Instant::now());
        let mut status = self.status.clone();
        let deposed = status.wait_for(|status| status.leader.is_some_and(|newer| newer != leader));
        let answer = tokio::select! {
            answer = self.network.call(leader, request, Urgency::Normal, deadline) => answer?,
            _ = deposed => return Err(NetworkError::Failed("another node leads by now".to_owned())),
        };
        rpc::decode(&answer).map_err(|error| failed(&error))
    }

    /// A moment before the next try: until the leader changes, or a little while.
    async fn pause(&self) {
        let mut status = self.status.clone();
        status.mark_unchanged();
        let changed = async {
            // Nobody tells the status of a store that is stopping: that is no change, and no reason to try at once for ever.
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        // Whichever comes first: both mean the same.
        drop(timeout(RETRY, changed).await);
    }
}
