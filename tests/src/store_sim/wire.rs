//! What lies between simulated stores: messages on their way, and one end of it on every host.
//!
//! A message takes time; one that is lost takes longer, as it is sent again. What a fault holds up waits until the fault ends, or until the
//! connection is given up: then every call and pipe between the two hosts fails, at both ends.
//!
//! Invariant: frames of one pipe arrive in order and once; calls overtake each other, and a request may arrive twice.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Sink, StreamExt as _, stream};
use quorate_proto::ids::NodeId;
use quorate_raft::{Network, NetworkError, Pipe, Urgency};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::sim::faults::Faults;

/// How long a connection lives on which nothing arrives, in microseconds.
const IDLE: u64 = 5_000_000;
/// After how long a lost packet is sent again, in microseconds.
const AGAIN: u64 = 40_000;

/// What is said.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A call, to be answered under its number.
    Request { call: u64, urgency: Urgency, bytes: Bytes },
    /// The answer to a call.
    Answer { call: u64, bytes: Bytes },
    /// A pipe begins.
    Open { pipe: u64 },
    /// A frame of a pipe.
    Frame { pipe: u64, bytes: Bytes },
    /// One half of a pipe ends.
    Close { pipe: u64 },
    /// Nobody receives what a pipe carries.
    Reset { pipe: u64 },
    /// The connection is given up.
    Broken,
}

/// Something on its way.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) body: Body,
}

/// All messages on their way, and what is wrong between the hosts.
pub(super) struct Wire(Mutex<State>);

struct State {
    random: StdRng,
    now: u64,
    number: u64,
    queue: BTreeMap<(u64, u64), Message>,
    /// By link: since when nothing arrives, and what waits.
    held: BTreeMap<(NodeId, NodeId), (u64, Vec<Message>)>,
    /// When the last frame of a pipe arrives, by pipe and receiver.
    last: BTreeMap<(u64, NodeId), u64>,
    faults: Faults,
    latency: std::ops::Range<u64>,
    twice: u32,
}

impl Wire {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            now: 0,
            number: 0,
            queue: BTreeMap::new(),
            held: BTreeMap::new(),
            last: BTreeMap::new(),
            faults: Faults::default(),
            latency: USUAL,
            twice: 0,
        }))
    }

    /// Makes or ends faults.
    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// How long messages take, in microseconds.
    pub(super) fn set_latency(&self, latency: std::ops::Range<u64>) {
        self.state().latency = latency;
    }

    /// So many of a hundred requests arrive twice.
    pub(super) fn set_twice(&self, percent: u32) {
        self.state().twice = percent;
    }

    /// A number nobody has had before.
    fn number(&self) -> u64 {
        let mut state = self.state();
        state.number += 1;
        state.number
    }

    pub(super) fn send(&self, message: &Message) {
        self.state().send(message);
    }

    /// What arrives until `now`, in microseconds. What a fault holds up stays, until its connection is given up.
    pub(super) fn due(&self, now: u64) -> Vec<Message> {
        let mut state = self.state();
        state.now = now;
        let later = state.queue.split_off(&(now + 1, 0));
        let due = std::mem::replace(&mut state.queue, later);
        for message in due.into_values() {
            state.held.entry((message.from, message.to)).or_insert((now, Vec::new())).1.push(message);
        }
        let mut arrived = Vec::new();
        for ((from, to), (since, messages)) in std::mem::take(&mut state.held) {
            if state.faults.reaches(from, to) {
                arrived.extend(messages);
            } else if now - since > IDLE {
                let broken = |from, to| Message { from, to, body: Body::Broken };
                arrived.extend([broken(from, to), broken(to, from)]);
            } else {
                state.held.insert((from, to), (since, messages));
            }
        }
        arrived
    }

    /// A host is off: what is on its way to it or from it is lost.
    pub(super) fn forget(&self, node: NodeId) {
        let mut state = self.state();
        state.queue.retain(|_, message| message.to != node && message.from != node);
        state.held.retain(|(from, to), _| *from != node && *to != node);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a message takes where nothing is wrong, in microseconds.
pub(super) const USUAL: std::ops::Range<u64> = 500..3000;

impl State {
    fn send(&mut self, message: &Message) {
        let copies = match message.body {
            Body::Request { .. } if self.twice > 0 && self.random.random_range(0..100) < self.twice => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut at = self.now + self.random.random_range(self.latency.clone());
            let loss = self.faults.loss();
            while loss > 0 && self.random.random_range(0..100) < loss {
                at += AGAIN;
            }
            if let Body::Open { pipe } | Body::Frame { pipe, .. } | Body::Close { pipe } = message.body {
                let last = self.last.entry((pipe, message.to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.number += 1;
            self.queue.insert((at, self.number), message.clone());
        }
    }
}

/// One host's end of the wire, for as long as its process lives.
pub(super) struct Port {
    node: NodeId,
    wire: Arc<Wire>,
    lines: Mutex<Lines>,
}

type Answer = oneshot::Sender<Result<Bytes, NetworkError>>;
type Inlet = mpsc::UnboundedSender<Result<Bytes, NetworkError>>;

/// Calls that wait and pipes that are open, each with the host at its other end.
#[derive(Default)]
struct Lines {
    calls: BTreeMap<u64, (NodeId, Answer)>,
    pipes: BTreeMap<u64, (NodeId, Option<Inlet>, Arc<AtomicBool>)>,
}

impl Port {
    pub(super) fn new(node: NodeId, wire: &Arc<Wire>) -> Self {
        Self { node, wire: Arc::clone(wire), lines: Mutex::default() }
    }

    /// Takes in what is for a call or a pipe of this host.
    pub(super) fn take(&self, from: NodeId, body: Body) {
        let mut lines = self.lines();
        match body {
            Body::Answer { call, bytes } => {
                if let Some((_, answer)) = lines.calls.remove(&call) {
                    // Whoever called may have given up.
                    drop(answer.send(Ok(bytes)));
                }
            }
            Body::Frame { pipe, bytes } => {
                let inlet = lines.pipes.get(&pipe).and_then(|(_, inlet, _)| inlet.as_ref());
                let received = inlet.is_some_and(|inlet| inlet.send(Ok(bytes)).is_ok());
                if !received {
                    self.wire.send(&Message { from: self.node, to: from, body: Body::Reset { pipe } });
                }
            }
            Body::Reset { pipe } => {
                if let Some((_, inlet, broken)) = lines.pipes.remove(&pipe) {
                    broken.store(true, Ordering::Relaxed);
                    inlet.map(|inlet| inlet.send(Err(NetworkError::Failed("the other side has gone".to_owned()))));
                }
            }
            Body::Close { pipe } => {
                if let Some((_, inlet, _)) = lines.pipes.get_mut(&pipe) {
                    *inlet = None;
                }
            }
            Body::Broken => {
                let failed = || Err(NetworkError::Failed("the connection was lost".to_owned()));
                let (lost, calls): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut lines.calls).into_iter().partition(|(_, (peer, _))| *peer == from);
                lines.calls = calls.into_iter().collect();
                for (_, (_, answer)) in lost {
                    drop(answer.send(failed()));
                }
                lines.pipes.retain(|_, (peer, inlet, broken)| {
                    let lost = *peer == from;
                    if lost {
                        broken.store(true, Ordering::Relaxed);
                        inlet.take().map(|inlet| inlet.send(failed()));
                    }
                    !lost
                });
            }
            Body::Request { .. } | Body::Open { .. } => {}
        }
    }

    /// This host's end of a pipe.
    pub(super) fn pipe(&self, pipe: u64, peer: NodeId) -> Pipe {
        let (inlet, receiver) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(false));
        self.lines().pipes.insert(pipe, (peer, Some(inlet), Arc::clone(&broken)));
        let receive = stream::unfold(receiver, |mut receiver| async move {
            let frame = receiver.recv().await?;
            Some((frame, receiver))
        });
        let send = Outlet { from: self.node, to: peer, pipe, wire: Arc::clone(&self.wire), broken };
        Pipe { send: Box::pin(send), receive: receive.boxed() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let call = self.wire.number();
        let (sender, answer) = oneshot::channel();
        self.lines().calls.insert(call, (to, sender));
        let body = Body::Request { call, urgency, bytes: request };
        self.wire.send(&Message { from: self.node, to, body });
        let answer = timeout(deadline, answer).await;
        self.lines().calls.remove(&call);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NetworkError::Failed("the connection was lost".to_owned())),
            Err(_) => Err(NetworkError::TimedOut),
        }
    }

    async fn open(&self, to: NodeId) -> Result<Pipe, NetworkError> {
        let pipe = self.wire.number();
        let ours = self.pipe(pipe, to);
        self.wire.send(&Message { from: self.node, to, body: Body::Open { pipe } });
        Ok(ours)
    }
}

/// The sending half of a pipe.
struct Outlet {
    from: NodeId,
    to: NodeId,
    pipe: u64,
    wire: Arc<Wire>,
    broken: Arc<AtomicBool>,
}

impl Outlet {
    fn say(&self, body: Body) {
        self.wire.send(&Message { from: self.from, to: self.to, body });
    }
}

impl Sink<Bytes> for Outlet {
    type Error = NetworkError;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        Poll::Ready(if self.broken.load(Ordering::Relaxed) {
            Err(NetworkError::Failed("the connection was lost".to_owned()))
        } else {
            Ok(())
        })
    }

    fn start_send(self: Pin<&mut Self>, bytes: Bytes) -> Result<(), NetworkError> {
        self.say(Body::Frame { pipe: self.pipe, bytes });
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Outlet {
    /// The end of sending is told, however it came.
    fn drop(&mut self) {
        self.say(Body::Close { pipe: self.pipe });
    }
}
