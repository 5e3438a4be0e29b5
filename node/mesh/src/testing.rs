//! What the tests of this crate share: a clock that stands still, randomness from a seed, a cluster's authority, handlers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use quorate_proto::{
    hello::Epoch,
    ids::{ClusterId, NodeId},
    wire::cap,
    world::{Clock, Instant, Random, Timestamp},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Caller, ClusterAuthority, Config, Handler, Handlers, Identity, LinkClass, Membership, Mesh, Stream, join::Admission,
};

/// 2027-01-15, in the middle of nowhere.
pub(crate) fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn days(days: i64) -> Timestamp {
    Timestamp::from_second(wall().as_second() + days * 86_400).unwrap()
}

/// A clock that moves only when it is told to.
#[derive(Default)]
pub(crate) struct Still(AtomicU64);

impl Still {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_second(wall().as_second() + self.0.load(Ordering::SeqCst) as i64).unwrap()
    }
}

/// Numbers from a seed (SplitMix64).
pub(crate) struct Chance(AtomicU64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for Chance {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

pub(crate) fn authority(cluster: u64) -> ClusterAuthority {
    ClusterAuthority::generate(ClusterId::from(cluster), wall(), &Chance::new(cluster)).unwrap()
}

pub(crate) fn identity(authority: &ClusterAuthority, node: u64) -> Identity {
    Identity::issue(authority, NodeId::from(node), wall(), &Chance::new(node)).unwrap()
}

/// Answers every stream with one frame: who the handler is, who calls, and the frame that came.
pub(crate) struct Echo(pub(crate) &'static str);

#[async_trait]
impl Handler for Echo {
    async fn stream(&self, caller: Caller, mut stream: Stream) {
        while let Ok(Some(said)) = stream.read_frame::<String>(cap::CONTROL).await {
            let subject = caller.subject.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            let answer = format!("{} heard {said} from {subject} for {}", self.0, caller.alpn);
            if stream.write_frame(&answer, cap::CONTROL).await.is_err() {
                return;
            }
        }
        stream.finish().unwrap_or_default();
    }
}

/// Says a word and reads the answer.
pub(crate) async fn ask(stream: &mut Stream, word: &str) -> Result<String, crate::frame::FrameError> {
    stream.write_frame(&word, cap::CONTROL).await?;
    stream.read_frame(cap::CONTROL).await?.ok_or(crate::frame::FrameError::Ended)
}

/// A node of a test's cluster; stops when it is dropped.
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) authorities: Vec<bytes::Bytes>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.mesh.node()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.mesh.local_address()
    }

    /// Stops it, and waits until everything it started has ended.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        within(self.tasks.wait()).await;
    }
}

/// How a node is started.
pub(crate) struct Start {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) members: Arc<dyn Membership>,
    pub(crate) admission: Option<Arc<dyn Admission>>,
    pub(crate) clock: Arc<Still>,
    pub(crate) listen: SocketAddr,
}

impl Start {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            incarnation: 1,
            epoch: Epoch::default(),
            members: Arc::new(|_| true),
            admission: None,
            clock: Arc::default(),
            listen: ([127, 0, 0, 1], 0).into(),
        }
    }

    pub(crate) fn run(self) -> Node {
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let (node, authorities) = (self.identity.node, self.identity.credentials.authorities.clone());
        let config = Config {
            listen: self.listen,
            addresses: Vec::new(),
            identity: self.identity,
            incarnation: self.incarnation,
            epoch: self.epoch,
            build: "test".to_owned(),
            link: LinkClass::Lan,
            segmentation_offload: true,
        };
        let handlers = Handlers {
            peer: Arc::new(Echo("peer")),
            data: Arc::new(Echo("data")),
            client: Arc::new(Echo("client")),
            doq: Some(Arc::new(Echo("doq"))),
            admission: self.admission,
        };
        let random = Arc::new(Chance::new(node.0 as u64 ^ self.incarnation));
        let mesh =
            Mesh::start(config, handlers, self.members, self.clock, random, tasks.clone(), shutdown.clone()).unwrap();
        Node { mesh, authorities, tasks, shutdown }
    }
}

/// A deadline for what must come, however slow the machine.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it did not come within 30 s")
}

/// Waits until the peers are as they should be.
pub(crate) async fn until(mesh: &Mesh, so: impl Fn(&crate::Peers) -> bool) {
    let mut peers: watch::Receiver<crate::Peers> = mesh.peers();
    within(peers.wait_for(|peers| so(peers))).await.unwrap();
}
