//! The simulated network: streams between hosts, with latency, that can be cut, one way or both, and lose packets.
//!
//! A cut loses nothing at once: what is under way waits, as packets are sent again, and all streams break after five seconds of it, both
//! ways and at both ends, as those of a QUIC connection do. New streams to a host that is cut off cannot be opened; one that is frozen
//! does not even refuse. A packet that is lost comes later.
//!
//! Invariant: the bytes of a stream arrive whole and in order, or the stream ends.

use std::{
    collections::BTreeMap,
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

use super::{check::Checker, faults::Faults};

/// How much of a stream is under way at most.
const WINDOW: usize = 64 << 10;
/// How long streams survive a cut.
const IDLE: Duration = Duration::from_secs(5);
/// How long whoever opens a stream waits for a host that is silent.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// After how long a packet that was lost is sent again.
const AGAIN: Duration = Duration::from_millis(40);

/// All hosts and what is between them.
pub(super) struct Network {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    checker: Arc<Checker>,
}

struct State {
    hosts: BTreeMap<NodeId, Attached>,
    faults: Faults,
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
    pub(super) fn new(seed: u64, checker: &Arc<Checker>) -> Self {
        let state = State { hosts: BTreeMap::new(), faults: Faults::default(), random: StdRng::seed_from_u64(seed) };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0), checker: Arc::clone(checker) }
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

    /// Makes or ends faults.
    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
        self.note();
    }

    pub(super) fn is_cut(&self, node: NodeId) -> bool {
        self.state().faults.is_cut(node)
    }

    /// Whether there is any fault.
    pub(super) fn is_faulty(&self) -> bool {
        self.state().faults.any()
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.state().faults.reaches(from, to)
    }

    fn connects(&self, from: NodeId, to: NodeId) -> bool {
        self.state().faults.connects(from, to)
    }

    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between half a millisecond and two, and longer for every time the packet is lost.
    fn latency(&self) -> Duration {
        let mut state = self.state();
        let mut latency = Duration::from_micros(state.random.random_range(500..2000));
        let loss = state.faults.loss();
        while loss > 0 && state.random.random_range(0..100) < loss {
            latency += AGAIN;
        }
        latency
    }

    /// Carries bytes one way until either side ends it.
    async fn carry(
        &self,
        (from, to): (NodeId, NodeId),
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) {
        let mut buffer = vec![0; WINDOW];
        loop {
            let read = reader.read(&mut buffer).await.unwrap_or_default();
            self.checker.trace("carry");
            sleep(self.latency()).await;
            self.until(|| self.reaches(from, to)).await;
            let carried = if read == 0 { writer.shutdown().await } else { writer.write_all(&buffer[..read]).await };
            if read == 0 || carried.is_err() {
                return;
            }
        }
    }

    /// Waits until a connection between two hosts is lost: both ends then find their streams broken, whether they used them or not.
    async fn lost(&self, from: NodeId, to: NodeId) {
        loop {
            self.until(|| !self.connects(from, to)).await;
            if timeout(IDLE, self.until(|| self.connects(from, to))).await.is_err() {
                return;
            }
        }
    }

    async fn until(&self, so: impl Fn() -> bool) {
        let mut changed = self.changed.subscribe();
        while !so() {
            if changed.changed().await.is_err() {
                return;
            }
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
        network.checker.trace("open");
        sleep(network.latency()).await;
        let unreachable = |because: &str| LinkError::Unreachable { to, because: because.to_owned() };
        let silent = || [own, to].into_iter().any(|node| network.state().faults.is_silent(node));
        if timeout(HANDSHAKE, network.until(|| !silent())).await.is_err() || !network.connects(own, to) {
            return Err(unreachable("no answer"));
        }
        let host = network.state().hosts.get(&to).cloned().ok_or_else(|| unreachable("the host is off"))?;
        let (near, near_far) = tokio::io::duplex(WINDOW);
        let (far, far_near) = tokio::io::duplex(WINDOW);
        let (near_reader, near_writer) = tokio::io::split(near_far);
        let (far_reader, far_writer) = tokio::io::split(far_near);
        let (ours, theirs, connection) = (self.off.clone(), host.off.clone(), Arc::clone(network));
        self.tasks.spawn(async move {
            let there = connection.carry((own, to), near_reader, far_writer);
            let back = connection.carry((to, own), far_reader, near_writer);
            tokio::select! {
                _ = async { tokio::join!(there, back) } => {}
                () = connection.lost(own, to) => {}
                () = ours.cancelled() => {}
                () = theirs.cancelled() => {}
            }
        });
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
