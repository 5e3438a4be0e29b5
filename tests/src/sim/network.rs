//! The simulated network: streams between hosts, with latency, that can be cut.
//!
//! A cut loses nothing at once: what is under way waits, as packets are sent again, and a stream breaks after five seconds of it, as a
//! QUIC connection does. New streams to a host that is cut off cannot be opened.
//!
//! Invariant: the bytes of a stream arrive whole and in order, or the stream ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use quorate_node::{
    links::{Lane, LinkError, Links, Reader, Writer},
    serve::Services,
};
use quorate_proto::ids::NodeId;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How much of a stream is under way at most.
const WINDOW: usize = 64 << 10;
/// How long a stream survives a cut.
const IDLE: Duration = Duration::from_secs(5);

/// All hosts and what is between them.
pub(super) struct Network {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    hosts: BTreeMap<NodeId, Attached>,
    cut: BTreeSet<NodeId>,
    random: StdRng,
}

/// A host that is on.
#[derive(Clone)]
struct Attached {
    services: Services,
    tasks: TaskTracker,
    off: CancellationToken,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        let state =
            State { hosts: BTreeMap::new(), cut: BTreeSet::new(), random: StdRng::seed_from_u64(seed) };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    pub(super) fn attach(&self, node: NodeId, services: Services, tasks: TaskTracker, off: CancellationToken) {
        self.state().hosts.insert(node, Attached { services, tasks, off });
    }

    /// A host is off: its streams end.
    pub(super) fn remove(&self, node: NodeId) {
        if let Some(host) = self.state().hosts.remove(&node) {
            host.off.cancel();
        }
        self.note();
    }

    pub(super) fn cut(&self, node: NodeId) {
        self.state().cut.insert(node);
        self.note();
    }

    pub(super) fn heal(&self, node: NodeId) {
        self.state().cut.remove(&node);
        self.note();
    }

    pub(super) fn is_cut(&self, node: NodeId) -> bool {
        self.state().cut.contains(&node)
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.state();
        !state.cut.contains(&from) && !state.cut.contains(&to)
    }

    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between half a millisecond and two.
    fn latency(&self) -> Duration {
        Duration::from_micros(self.state().random.random_range(500..2000))
    }

    /// Carries bytes one way until either side ends it, a host goes off, or a cut lasts too long.
    async fn carry(
        self: Arc<Self>,
        (from, to): (NodeId, NodeId),
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) {
        let mut changed = self.changed.subscribe();
        let mut buffer = vec![0; WINDOW];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            sleep(self.latency()).await;
            let restored = async {
                while !self.reaches(from, to) {
                    if changed.changed().await.is_err() {
                        return;
                    }
                }
            };
            if timeout(IDLE, restored).await.is_err() || writer.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        // What a caller would learn from an end it could not have been told of is that the stream broke.
        if self.reaches(from, to) && writer.shutdown().await.is_err() {
            return;
        }
    }
}

/// One host's way to the others.
pub(super) struct SimLinks {
    pub(super) own: NodeId,
    pub(super) network: Arc<Network>,
    pub(super) tasks: TaskTracker,
    pub(super) off: CancellationToken,
}

#[async_trait]
impl Links for SimLinks {
    async fn open(&self, to: NodeId, lane: Lane) -> Result<(Writer, Reader), LinkError> {
        let (network, own) = (&self.network, self.own);
        sleep(network.latency()).await;
        let unreachable = |because: &str| LinkError::Unreachable { to, because: because.to_owned() };
        if !network.reaches(own, to) {
            return Err(unreachable("no answer"));
        }
        let host = network.state().hosts.get(&to).cloned().ok_or_else(|| unreachable("the host is off"))?;
        let (near, near_far) = tokio::io::duplex(WINDOW);
        let (far, far_near) = tokio::io::duplex(WINDOW);
        let (near_reader, near_writer) = tokio::io::split(near_far);
        let (far_reader, far_writer) = tokio::io::split(far_near);
        for (pair, reader, writer) in [((own, to), near_reader, far_writer), ((to, own), far_reader, near_writer)] {
            let carried = Arc::clone(network).carry(pair, reader, writer);
            let (ours, theirs) = (self.off.clone(), host.off.clone());
            self.tasks.spawn(async move { ours.run_until_cancelled(theirs.run_until_cancelled(carried)).await });
        }
        let (far_reader, far_writer) = tokio::io::split(far);
        let (services, off) = (host.services.clone(), host.off.clone());
        host.tasks.spawn(async move {
            let served = services.node(own, lane, Box::new(far_writer), Box::new(far_reader));
            if let Some(Err(error)) = off.run_until_cancelled(served).await {
                tracing::trace!(%error, "a simulated stream broke off");
            }
        });
        let (reader, writer) = tokio::io::split(near);
        Ok((Box::new(writer), Box::new(reader)))
    }
}
