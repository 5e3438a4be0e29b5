//! Several stores in one process, over a network that is cut and healed at will.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use quorate_proto::{
    ids::{ClusterId, NodeId, RequestId},
    key::Key,
    txn::{Change, Document, Outcome, Revision, Txn},
    world::Random,
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, PollSender},
    task::TaskTracker,
};

use crate::{
    Config, Memory, Network, NetworkError, OpenError, Pipe, ProposeError, Storage, Store, Timing, Urgency, Watch,
    voters::{self, Policy, Registered},
};

pub(super) const CLUSTER: ClusterId = ClusterId(7);

/// Long enough for the busiest machine; nothing waits for it unless it fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Repeats with its seed.
pub(super) struct Seeded(AtomicU64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed >> 56) as u8;
        }
    }
}

/// The network between the stores of a test.
#[derive(Default)]
pub(super) struct Switch {
    stores: Mutex<BTreeMap<NodeId, Store>>,
    cut: Mutex<BTreeSet<NodeId>>,
    pub(super) snapshot_blocks: AtomicU64,
    /// Calls for proposals and reads.
    pub(super) questions: AtomicU64,
    /// How often all pipes that were open went dead.
    dead: AtomicU64,
}

impl Switch {
    /// All pipes that are open take what is sent and never deliver it; new ones are well, and calls too.
    pub(super) fn kill_pipes(&self) {
        self.dead.fetch_add(1, Ordering::Relaxed);
    }

    fn reach(&self, from: NodeId, to: NodeId) -> Result<Store, NetworkError> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return Err(NetworkError::Unreachable("the link is cut".to_owned()));
        }
        let store = self.stores.lock().unwrap().get(&to).cloned();
        store.ok_or_else(|| NetworkError::Unreachable("nobody there".to_owned()))
    }
}

struct Port {
    node: NodeId,
    switch: Arc<Switch>,
    tasks: TaskTracker,
}

#[async_trait]
impl Network for Port {
    async fn call(
        &self,
        to: NodeId,
        request: Bytes,
        urgency: Urgency,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        let store = self.switch.reach(self.node, to)?;
        match urgency {
            Urgency::Bulk => self.switch.snapshot_blocks.fetch_add(1, Ordering::Relaxed),
            Urgency::Normal => self.switch.questions.fetch_add(1, Ordering::Relaxed),
            Urgency::Urgent => 0,
        };
        let answer = timeout(deadline, store.answer(self.node, request)).await.map_err(|_| NetworkError::TimedOut)?;
        drop(store);
        self.switch.reach(self.node, to).map(|_| answer)
    }

    async fn open(&self, to: NodeId) -> Result<Pipe, NetworkError> {
        let store = self.switch.reach(self.node, to)?;
        let (ours, theirs) = pipes(&self.switch, self.node, to);
        let from = self.node;
        self.tasks.spawn(async move { store.accept(from, theirs).await });
        Ok(ours)
    }
}

fn pipes(switch: &Arc<Switch>, a: NodeId, b: NodeId) -> (Pipe, Pipe) {
    let born = switch.dead.load(Ordering::Relaxed);
    let direction = || {
        let (sender, receiver) = mpsc::channel::<Bytes>(4);
        let send = PollSender::new(sender).sink_map_err(|_| NetworkError::Failed("the pipe is broken".to_owned()));
        let switch = Arc::clone(switch);
        let receive = stream::unfold((receiver, switch), move |(mut receiver, switch)| async move {
            let frame = receiver.recv().await?;
            if switch.dead.load(Ordering::Relaxed) > born {
                std::future::pending::<()>().await;
            }
            let frame = switch.reach(a, b).map(|_| frame);
            Some((frame, (receiver, switch)))
        });
        (send, receive)
    };
    let ((to_b, at_b), (to_a, at_a)) = (direction(), direction());
    (Pipe { send: Box::pin(to_b), receive: at_a.boxed() }, Pipe { send: Box::pin(to_a), receive: at_b.boxed() })
}

/// Where the stores of a test keep their rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Disk,
    Memory,
}

struct Running {
    store: Store,
    tasks: TaskTracker,
}

/// Some stores that can reach each other.
pub(super) struct Cluster {
    kind: Kind,
    directory: TempDir,
    memories: BTreeMap<u64, Memory>,
    running: BTreeMap<u64, Running>,
    pub(super) switch: Arc<Switch>,
    pub(super) limits: crate::LogLimits,
    requests: AtomicU64,
}

impl Cluster {
    /// No store yet.
    pub(super) fn empty(kind: Kind) -> Self {
        Self {
            kind,
            directory: tempfile::tempdir().unwrap(),
            memories: BTreeMap::new(),
            running: BTreeMap::new(),
            switch: Arc::default(),
            limits: crate::LogLimits::default(),
            requests: AtomicU64::new(1),
        }
    }

    /// Three voters.
    pub(super) async fn of_three(kind: Kind) -> Self {
        let mut cluster = Self::empty(kind);
        cluster.start(1).await;
        cluster.store(1).initialize().await.unwrap();
        cluster.start(2).await;
        cluster.start(3).await;
        cluster.settle(3).await;
        cluster
    }

    pub(super) fn path(&self, node: u64) -> std::path::PathBuf {
        self.directory.path().join(node.to_string())
    }

    pub(super) async fn start(&mut self, node: u64) -> &Store {
        let storage = match self.kind {
            Kind::Disk => Storage::Disk(self.path(node)),
            Kind::Memory => Storage::Memory(self.memories.entry(node).or_default().clone()),
        };
        let tasks = TaskTracker::new();
        let port = Port { node: NodeId::from(node), switch: Arc::clone(&self.switch), tasks: tasks.clone() };
        let mut config = Config::new(CLUSTER, NodeId::from(node), Timing::CAREFUL);
        config.log = self.limits;
        let opened =
            Store::open(config, storage, Arc::new(port), Seeded::new(node), tasks.clone(), CancellationToken::new())
                .await;
        let store = opened.unwrap();
        self.switch.stores.lock().unwrap().insert(NodeId::from(node), store.clone());
        self.running.insert(node, Running { store, tasks });
        self.store(node)
    }

    /// What a store in memory has written.
    pub(super) fn disk(&self, node: u64) -> Memory {
        self.memories[&node].clone()
    }

    pub(super) fn store(&self, node: u64) -> &Store {
        &self.running[&node].store
    }

    /// Ends a store in good order.
    pub(super) async fn stop(&mut self, node: u64) {
        let running = self.running.remove(&node).unwrap();
        running.store.shutdown().await;
        self.switch.stores.lock().unwrap().remove(&NodeId::from(node));
        running.tasks.close();
        drop(running.store);
        running.tasks.wait().await;
    }

    /// Where a store in memory keeps its rows.
    pub(super) fn memory(&self, node: u64) -> &Memory {
        &self.memories[&node]
    }

    /// Cuts a store off from all others.
    pub(super) fn cut(&self, node: u64) {
        self.switch.cut.lock().unwrap().insert(NodeId::from(node));
    }

    pub(super) fn heal(&self) {
        self.switch.cut.lock().unwrap().clear();
    }

    /// The node that leads, once there is one among those that are not cut off.
    pub(super) async fn leader(&self) -> u64 {
        until("somebody leads", || async {
            let cut = self.switch.cut.lock().unwrap().clone();
            let mut nodes = self.running.iter().filter(|(node, _)| !cut.contains(&NodeId::from(**node)));
            nodes.find(|(_, running)| running.store.status().borrow().leading).map(|(node, _)| *node)
        })
        .await
    }

    pub(super) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.running.keys().find(|node| **node != leader).unwrap()
    }

    /// Lets the planner work until there are so many voters and nothing is left to do.
    pub(super) async fn settle(&self, voters: usize) {
        until("the voters are settled", || async {
            let registered = Registered { may_vote: true, zone: String::new() };
            let registered = self.running.keys().map(|node| (NodeId::from(*node), registered.clone())).collect();
            let policy = Policy { stable: Duration::ZERO, ..Policy::default() };
            let store = self.store(self.leader().await);
            let view = store.view(registered, policy)?;
            let step = voters::plan(&view).step.map(|(step, _)| step);
            if let Some(step) = step {
                // Refused steps are planned anew.
                drop(store.step(&view, step).await);
                return None;
            }
            (view.voters.len() == 1 && view.voters[0].len() == voters).then_some(())
        })
        .await;
    }

    /// Writes a key; the revision it was written at.
    pub(super) async fn put(&self, node: u64, name: &str) -> Revision {
        match self.propose(node, Txn::new().put(key(name), document(name))).await.unwrap() {
            Outcome::Applied(revision) => revision,
            stale => panic!("{stale:?}"),
        }
    }

    /// Proposes a transaction under a request id of its own.
    pub(super) async fn propose(&self, node: u64, txn: Txn) -> Result<Outcome, ProposeError> {
        let request = RequestId(u128::from(self.requests.fetch_add(1, Ordering::Relaxed)));
        self.store(node).propose(request, txn).await
    }

    /// Waits until a node has applied a revision.
    pub(super) async fn reaches(&self, node: u64, revision: Revision) {
        let mut status = self.store(node).status();
        timeout(DEADLINE, status.wait_for(|status| status.revision >= revision)).await.unwrap().unwrap();
    }

    pub(super) fn names(&self, node: u64) -> Vec<String> {
        let (_, rows) = self.store(node).rows("/").unwrap();
        rows.into_iter().map(|(key, _)| key.name().to_owned()).collect()
    }
}

/// Opens a store on its own, for what it answers.
pub(super) async fn open_alone(path: &Path, cluster: ClusterId, node: u64) -> Result<Store, OpenError> {
    let config = Config::new(cluster, NodeId::from(node), Timing::CAREFUL);
    open_with(config, Storage::Disk(path.to_owned())).await
}

/// Opens a store on its own.
pub(super) async fn open_with(config: Config, storage: Storage) -> Result<Store, OpenError> {
    let (node, seed) = (config.node, config.node.0 as u64);
    let port = Port { node, switch: Arc::default(), tasks: TaskTracker::new() };
    Store::open(config, storage, Arc::new(port), Seeded::new(seed), TaskTracker::new(), CancellationToken::new()).await
}

/// Waits until something is so.
pub(super) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("it did not come to be that {what}"))
}

/// Copies a directory.
pub(super) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new("", "configmaps", Some("default"), name).unwrap()
}

pub(super) fn document(text: &str) -> Document {
    Document(Bytes::from(format!("\"{text}\"")))
}

/// The next changes of a watch, as far as `upto`.
pub(super) async fn changes(watch: &mut Watch, upto: Revision) -> Vec<Change> {
    let mut seen = Vec::new();
    while watch.delivered() < upto {
        let changes = timeout(DEADLINE, watch.next()).await.expect("a change is missing").unwrap();
        seen.extend(changes.iter().cloned());
    }
    seen
}
