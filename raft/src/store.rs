//! The store: what the rest of Quorate sees of agreement.
//!
//! Invariant: whatever is asked of a store that has stopped is answered with `Stopped`, never left waiting.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::{
    EmptyNode, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ForwardToLeader, InitializeError, RaftError},
};
use quorate_proto::{
    ids::{ClusterId, NodeId},
    txn::Revision,
    wire::cap,
    world::Random,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beats::Beats,
    config::{self, Config, Timing},
    delay::{Delay, Delays},
    engine::{Engine, look},
    fault::{Fault, Fence},
    heard::Heard,
    inbound::Inbound,
    machine,
    network::{Network, NetworkError, Urgency},
    open::{self, OpenError, Opened, Storage},
    peer::Peers,
    rpc::{self, Answer, Request},
    scrub,
    space::{self, Room},
    state::{State, progress},
    status::{HealthLog, Keeper, MetricsReceiver, Status},
    types::{Runtime, TypeConfig},
    voters::{self, Policy},
    watch::Feed,
};

mod backup;
mod command;
mod compaction;
mod compare;
mod forward;
mod lease;
mod linearize;
mod members;
mod propose;
mod read;
mod room;

pub use command::CommandError;
pub(crate) use command::check_limits;
pub use compaction::Retention;
use forward::Forwarder;
pub use members::StepError;
pub use propose::ProposeError;
pub(crate) use propose::Tried;
pub use read::ReadError;

pub(crate) type Raft = openraft::Raft<TypeConfig, State>;

/// A proposal is given up after this time; whether it was done is then unknown.
const PROPOSE: Duration = Duration::from_secs(10);

/// Between two tries to reach a leader.
const RETRY: Duration = Duration::from_millis(25);

/// A replicated, versioned key-value store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    cluster: ClusterId,
    node: NodeId,
    timing: Timing,
    /// Whether the engine waits for a disk.
    blocking: bool,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) feed: Arc<Feed>,
    network: Arc<dyn Network>,
    pub(crate) raft: Raft,
    pub(crate) metrics: MetricsReceiver,
    pub(crate) inbound: Mutex<Inbound>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) shutdown: CancellationToken,
    status: watch::Receiver<Status>,
    health: Arc<Mutex<HealthLog>>,
    forwards: mpsc::Sender<forward::Proposal>,
    reads: mpsc::Sender<linearize::Waiting>,
    beats: Mutex<Beats>,
    /// How long the others take to have entries on their disks, and how long this node does.
    delays: Arc<Delays>,
    own_delay: Arc<Delay>,
    pub(crate) fence: Fence,
    pub(crate) heard: Arc<Heard>,
    pub(crate) room: watch::Receiver<Room>,
    /// The file that says that a process uses the directory.
    running: Option<PathBuf>,
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
        let Opened { engine, vault, log, writer, meta, fence, running, killed, blocking } =
            open::open(&config, storage)?;
        if blocking {
            // Syncs wait for the disk: on a thread of their own they hold up nothing else.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| OpenError::Raft(error.to_string()))?;
            let thread = std::thread::Builder::new().name("raft-log".to_owned());
            thread.spawn(move || runtime.block_on(writer)).map_err(|error| OpenError::Raft(error.to_string()))?;
        } else {
            tasks.spawn(writer);
        }
        let leases = look(&*engine, |view| machine::leases(view));
        let leases = leases.map_err(|error| OpenError::Raft(error.to_string()))?;
        let feed = Arc::new(Feed::new(progress(&meta), leases.into_iter().collect()));
        let state =
            State::new(Arc::clone(&engine), vault.clone(), Arc::clone(&feed), tasks.clone(), log.written(), meta);
        let delays = Arc::new(Delays::default());
        let peers = Peers { node: config.node, network: Arc::clone(&network), delays: Arc::clone(&delays) };
        let starting = Raft::new(config.node, settings, peers, log.clone(), state);
        let raft = Runtime::scope(random.number(), starting).await?;
        if blocking {
            let (engine, vault, shutdown) = (Arc::clone(&engine), vault.clone(), shutdown.clone());
            tasks.spawn(scrub::keep(engine, vault, killed, tasks.clone(), shutdown));
        }
        let (rooms, room) = watch::channel(Room::Enough);
        tasks.spawn(space::keep(Arc::clone(&engine), rooms, shutdown.clone()));
        let health = Arc::new(Mutex::new(HealthLog::default()));
        let heard = Arc::new(Heard::new(config.timing));
        let own_delay = log.delay();
        let (sender, status) = watch::channel(Status::default());
        let keeper = Keeper {
            node: config.node,
            timing: config.timing,
            limits: config.log,
            raft: raft.clone(),
            log,
            vault: vault.clone(),
            progress: feed.progress(),
            status: sender,
            health: Arc::clone(&health),
            fence: fence.clone(),
            heard: Arc::clone(&heard),
            room: room.clone(),
        };
        tasks.spawn(keeper.run(shutdown.clone()));
        let (forwards, queue) = mpsc::channel(forward::QUEUE);
        let forwarder = Forwarder { queue, network: Arc::clone(&network), status: status.clone(), patience: PROPOSE };
        tasks.spawn(forwarder.run(shutdown.clone()));
        let (reads, waiting) = mpsc::channel(linearize::QUEUE);
        let metrics = raft.metrics();
        let inner = Inner {
            cluster: config.cluster,
            node: config.node,
            timing: config.timing,
            blocking,
            engine,
            feed,
            network,
            raft,
            metrics,
            inbound: Mutex::new(Inbound::new(vault)),
            random,
            shutdown: shutdown.clone(),
            status,
            health,
            forwards,
            reads,
            beats: Mutex::default(),
            delays,
            own_delay,
            fence,
            heard,
            room,
            running,
        };
        let inner = Arc::new(inner);
        tasks.spawn(lease::keep(Arc::clone(&inner)));
        tasks.spawn(compare::keep(Arc::clone(&inner)));
        tasks.spawn(compaction::sweep(Arc::clone(&inner)));
        tasks.spawn(compaction::retain(Arc::clone(&inner), config.retention));
        let store = Self { inner };
        tasks.spawn(linearize::run(store.clone(), waiting, shutdown));
        Ok(store)
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

    /// The cluster as this node sees it, whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// What this run has measured, as far as it was enough to say something.
    #[must_use]
    pub fn measured(&self) -> (Option<Duration>, Option<Duration>) {
        (self.inner.own_delay.nearly_all(), self.inner.delays.round_trip())
    }

    /// Heartbeats and elections, as they were set when the store was opened.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.inner.timing
    }

    /// Stops taking part: hands leadership over if it can, stops openraft, closes all files. Other clones of the store answer `Stopped`.
    pub async fn shutdown(&self) {
        // Who is registered makes no difference to who can lead.
        let heir = self.view(BTreeMap::new(), Policy::default()).and_then(|view| voters::heir(&view));
        if let Some(heir) = heir
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
        // A store that was fenced is not whole: whoever opens it next looks at all of it.
        if let (Some(running), None) = (&self.inner.running, self.inner.fence.fault())
            && let Err(error) = std::fs::remove_file(running)
        {
            tracing::debug!(%error, path = %running.display(), "the next start checks the whole store");
        }
    }

    /// Why this store takes no part any more, if it was fenced. [`Status::fault`] follows, and knows of more.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.inner.fence.fault()
    }

    /// Takes no part any more, because of this: nothing is read, written, voted or answered from now on. See [`Status::fault`].
    pub fn fence(&self, fault: Fault) {
        self.inner.fence.raise(fault);
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

    /// Asks the leader, until another one is known.
    async fn ask(&self, leader: NodeId, request: &Request, until: Instant) -> Result<Answer, NetworkError> {
        ask(&*self.network, self.status.clone(), leader, request, until).await
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

/// Asks the leader, until another one is known: a leader that died would not answer before the deadline.
async fn ask(
    network: &dyn Network,
    mut status: watch::Receiver<Status>,
    leader: NodeId,
    request: &Request,
    until: Instant,
) -> Result<Answer, NetworkError> {
    let failed = |error: &dyn std::error::Error| NetworkError::Failed(error.to_string());
    let request = rpc::encode(request).map_err(|error| failed(&error))?;
    debug_assert!(request.len() <= cap::APPEND, "encoding has checked it");
    let deadline = until.saturating_duration_since(Instant::now());
    let deposed = status.wait_for(|status| status.leader.is_some_and(|newer| newer != leader));
    let answer = tokio::select! {
        answer = network.call(leader, request, Urgency::Normal, deadline) => answer?,
        _ = deposed => return Err(NetworkError::Failed("another node leads by now".to_owned())),
    };
    rpc::decode(&answer).map_err(|error| failed(&error))
}
