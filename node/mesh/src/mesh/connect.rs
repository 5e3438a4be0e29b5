//! How a connection to a peer comes up, is kept, and is found again.
//!
//! Invariant: at most one search runs per peer and purpose, and of two connections both sides keep the same (`peers.rs`).

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quorate_proto::{
    hello::{Epoch, Hello, Introduction, MAX_ADDRESSES},
    ids::NodeId,
    wire::cap,
};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::{Inner, Slot, State};
use crate::{
    addresses::{Origin, canonical},
    alpn::Alpn,
    certificate::Subject,
    error::{MeshError, Tried, because},
    frame::{self, FrameError},
    link::{Close, Link},
    peers::Rank,
    port::{Caller, PeerConnections, expiry, serve_stream},
    settings::HELLO,
    stream::Stream,
    tls,
};

/// Addresses are tried this far apart, until one answers.
const STAGGER: Duration = Duration::from_millis(150);
/// The pause after the first search in vain, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Wall clocks that differ by more seconds are worth a warning.
const CLOCKS_APART: u64 = 60;
/// The longest version that is shown, in characters.
const MAX_BUILD: usize = 64;

/// Why there is no link after a hello.
#[derive(Debug, Error)]
enum HelloError {
    /// The stream or a frame on it was no good.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side is of another epoch.
    #[error("it belongs to another epoch of the cluster ({0})")]
    OtherEpoch(Epoch),
}

/// Takes over what the port accepted.
pub(super) struct Accepting(pub(super) Arc<Inner>);

#[async_trait]
impl PeerConnections for Accepting {
    async fn accepted(&self, connection: quinn::Connection, node: NodeId, alpn: Alpn) {
        match timeout(HELLO, self.0.answer_hello(&connection, node, alpn)).await {
            Ok(Ok(link)) => self.0.keep(link),
            Ok(Err(HelloError::OtherEpoch(epoch))) => {
                self.0.refuse_epoch(node, epoch).close(&connection);
            }
            Ok(Err(error)) => {
                tracing::debug!(%node, %alpn, %error, "no hello");
                Close::Protocol.close(&connection);
            }
            Err(_) => Close::Protocol.close(&connection),
        }
    }
}

impl Inner {
    /// A stream, from the connection there is or the one that comes up.
    pub(super) async fn open(self: &Arc<Self>, to: NodeId, alpn: Alpn) -> Result<Stream, MeshError> {
        if to == self.node || !self.members.is_member(to) {
            return Err(MeshError::NotMember(to));
        }
        let mut states = self.table().slots.entry((to, alpn)).or_default().state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(link) => match link.open().await {
                    Ok(stream) => return Ok(stream),
                    Err(_) => self.lost(&link),
                },
                State::Pausing(error) => return Err(error),
                State::Idle => self.search(to, alpn),
                State::Searching => {}
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(MeshError::Stopping),
                changed = states.changed() => changed.map_err(|_| MeshError::NotMember(to))?,
            }
        }
    }

    /// Starts to look for a peer, unless it is there or being looked for.
    fn search(self: &Arc<Self>, to: NodeId, alpn: Alpn) {
        let started = self.table().slots.entry((to, alpn)).or_default().state.send_if_modified(|state| {
            let start = match state {
                State::Idle => true,
                State::Up(link) => !link.is_alive(),
                State::Searching | State::Pausing(_) => false,
            };
            if start {
                *state = State::Searching;
            }
            start
        });
        if started {
            let inner = Arc::clone(self);
            self.tasks.spawn(async move {
                let shutdown = inner.shutdown.clone();
                shutdown.run_until_cancelled(inner.search_until_up(to, alpn)).await;
            });
        }
    }

    /// Dials until there is a connection, whoever dialled it, or the peer is no member any more.
    async fn search_until_up(self: &Arc<Self>, to: NodeId, alpn: Alpn) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.members.is_member(to) {
                true => match self.dial(to, alpn).await {
                    Ok(link) => return self.keep(link),
                    Err(error) => error,
                },
                false => MeshError::NotMember(to),
            };
            let Some((mut states, hurry)) =
                self.slot(to, alpn, |slot| (slot.state.subscribe(), Arc::clone(&slot.hurry)))
            else {
                return;
            };
            let gives_up = matches!(error, MeshError::NotMember(_));
            tracing::debug!(%error, "not found");
            self.set(to, alpn, |state| match state {
                State::Up(_) => None,
                _ if gives_up => Some(State::Idle),
                _ => Some(State::Pausing(error)),
            });
            if gives_up {
                return;
            }
            tokio::select! {
                () = sleep(self.jitter(pause)) => {}
                () = hurry.notified() => {}
                _ = states.wait_for(|state| matches!(state, State::Up(_))) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let mut up = false;
            self.set(to, alpn, |state| {
                up = matches!(state, State::Up(_));
                (!up).then_some(State::Searching)
            });
            if up {
                return;
            }
        }
    }

    /// Half to the whole of a pause, so that nodes that lost each other at once do not come back at once.
    fn jitter(&self, pause: Duration) -> Duration {
        let half = pause / 2;
        let share = u32::try_from(self.random.number() % 1000).unwrap_or_default();
        half + half * share / 1000
    }

    /// Races all known addresses, then exchanges hellos with whoever answered first.
    async fn dial(&self, to: NodeId, alpn: Alpn) -> Result<Link, MeshError> {
        let candidates = self.table().addresses.get(&to).map(|known| known.candidates()).unwrap_or_default();
        if candidates.is_empty() {
            return Err(MeshError::NoAddress(to));
        }
        let mut dials: FuturesUnordered<_> = (0_u32..)
            .zip(candidates)
            .map(|(position, address)| async move {
                sleep(STAGGER * position).await;
                (address, self.port.dial(to, alpn, address).await)
            })
            .collect();
        let mut tried = Vec::new();
        while let Some((address, dialled)) = dials.next().await {
            let because = match dialled {
                Ok(connection) => match timeout(HELLO, self.say_hello(&connection, to, alpn)).await {
                    Ok(Ok(link)) => return Ok(link),
                    failed => {
                        let reason = connection.close_reason();
                        match &failed {
                            Ok(Err(HelloError::OtherEpoch(epoch))) => {
                                self.refuse_epoch(to, *epoch).close(&connection);
                            }
                            _ => Close::Protocol.close(&connection),
                        }
                        if let Some(reason) = &reason {
                            let left_behind = Close::OtherEpoch.is(reason);
                            if left_behind {
                                self.left_behind();
                            }
                            if left_behind || Close::NotMember.is(reason) {
                                self.judged(to, false);
                            }
                        }
                        match (reason, failed) {
                            (Some(reason), _) => because(&reason),
                            (None, Ok(Err(error))) => error.to_string(),
                            (None, _) => "it answered, but said no hello".to_owned(),
                        }
                    }
                },
                Err(because) => because,
            };
            tried.push(Tried { address: address.to_string(), because });
        }
        Err(MeshError::Unreachable { node: to, tried })
    }

    /// The dialling side of the hello.
    async fn say_hello(&self, connection: &quinn::Connection, to: NodeId, alpn: Alpn) -> Result<Link, HelloError> {
        let dial = self.next_dial(to);
        let streams = connection.open_bi().await.map_err(|error| FrameError::Stream(error.into()))?;
        let mut stream = Stream::new(connection, TaskTracker::new().token(), streams);
        let ours = self.introduction(dial, canonical(connection.remote_address()));
        stream.write_frame(&Hello::new(self.epoch, ours), cap::CONTROL).await?;
        stream.finish().map_err(FrameError::from)?;
        let theirs: Hello = frame::expect(&mut stream.receive, cap::CONTROL).await?;
        let theirs = self.of_this_epoch(theirs)?;
        if theirs.dial != dial {
            return Err(FrameError::Ended.into());
        }
        Ok(self.link(connection, to, alpn, self.node, theirs)?)
    }

    /// The accepting side of the hello.
    async fn answer_hello(&self, connection: &quinn::Connection, from: NodeId, alpn: Alpn) -> Result<Link, HelloError> {
        let streams = connection.accept_bi().await.map_err(|error| FrameError::Stream(error.into()))?;
        let mut stream = Stream::new(connection, TaskTracker::new().token(), streams);
        let theirs: Hello = frame::expect(&mut stream.receive, cap::CONTROL).await?;
        let theirs = self.of_this_epoch(theirs)?;
        let ours = self.introduction(theirs.dial, canonical(connection.remote_address()));
        let link = self.link(connection, from, alpn, from, theirs)?;
        stream.write_frame(&Hello::new(self.epoch, ours), cap::CONTROL).await?;
        stream.finish().map_err(FrameError::from)?;
        Ok(link)
    }

    fn of_this_epoch(&self, hello: Hello) -> Result<Introduction, HelloError> {
        let (epoch, introduction) = hello.into_parts();
        if epoch == self.epoch { Ok(introduction) } else { Err(HelloError::OtherEpoch(epoch)) }
    }

    /// What a peer of another epoch is told: that it does not belong here, or that this node is the one that was left behind.
    fn refuse_epoch(&self, peer: NodeId, theirs: Epoch) -> Close {
        if theirs.number > self.epoch.number {
            self.left_behind();
            return Close::LeftBehind;
        }
        tracing::info!(%peer, %theirs, ours = %self.epoch, "a node of another epoch was refused: it must join again as a new node");
        Close::OtherEpoch
    }

    /// Says once, for the person who looks after this node, that the cluster went on without it.
    fn left_behind(&self) {
        if !self.left_behind.swap(true, Ordering::Relaxed) {
            tracing::error!(
                epoch = %self.epoch,
                "the cluster was recovered without this node, which can do nothing for it any more: stop it, then run `quorate join TOKEN --fresh` here"
            );
        }
    }

    pub(super) fn introduction(&self, dial: u64, seen: SocketAddr) -> Introduction {
        Introduction {
            cluster: self.cluster,
            node: self.node,
            incarnation: self.incarnation,
            dial,
            build: self.build.clone(),
            addresses: self.table().own_addresses.iter().copied().take(MAX_ADDRESSES).collect(),
            seen,
            wall: self.clock.wall().as_second(),
        }
    }

    /// Checks a hello against the certificate, and remembers what it tells.
    fn link(
        &self,
        connection: &quinn::Connection,
        peer: NodeId,
        alpn: Alpn,
        dialler: NodeId,
        theirs: Introduction,
    ) -> Result<Link, FrameError> {
        if theirs.cluster != self.cluster || theirs.node != peer {
            return Err(FrameError::Stream(std::io::Error::other(Close::Protocol.reason())));
        }
        {
            let mut table = self.table();
            let highest = table.dials.entry(peer).or_default();
            *highest = theirs.dial.max(*highest);
            table.addresses.entry(peer).or_default().worked(connection.remote_address(), self.clock.now());
        }
        let apart = theirs.wall.abs_diff(self.clock.wall().as_second());
        if apart > CLOCKS_APART {
            tracing::warn!(%peer, seconds = apart, "its clock and ours disagree: certificates may seem expired, or not good yet");
        }
        self.show(peer, |state| {
            state.incarnation = theirs.incarnation.max(state.incarnation);
            state.build = theirs.build.chars().take(MAX_BUILD).collect();
            state.sees_us_at = Some(canonical(theirs.seen));
        });
        self.learn(peer, Origin::Told, theirs.addresses);
        Ok(Link {
            peer,
            alpn,
            rank: Rank::new(theirs.incarnation, theirs.dial, dialler),
            connection: connection.clone(),
            streams: TaskTracker::new(),
        })
    }

    /// One more than any dial between the two nodes so far, as far as we know.
    fn next_dial(&self, to: NodeId) -> u64 {
        let mut table = self.table();
        let highest = table.dials.entry(to).or_default();
        *highest = highest.saturating_add(1);
        *highest
    }

    /// Keeps the better of a new connection and the one there is; lets the other run out, unless it is a ghost's.
    fn keep(self: &Arc<Self>, link: Link) {
        let link = Arc::new(link);
        self.judged(link.peer, true);
        if !self.members.is_member(link.peer) {
            Close::NotMember.close(&link.connection);
            self.set(link.peer, link.alpn, |state| matches!(state, State::Searching).then_some(State::Idle));
            return;
        }
        let mut other = None;
        self.table().slots.entry((link.peer, link.alpn)).or_default().state.send_modify(|state| match state {
            State::Up(present) if present.is_alive() && present.rank >= link.rank => other = Some(Arc::clone(&link)),
            State::Up(present) => {
                other = Some(Arc::clone(present));
                *state = State::Up(Arc::clone(&link));
            }
            _ => *state = State::Up(Arc::clone(&link)),
        });
        // Nobody answers on connections with an earlier start of the peer: whoever waits there learns it now.
        let newest = self.peers.borrow().get(&link.peer).map_or(link.rank.incarnation, |peer| peer.incarnation);
        let is_ghost = |link: &Arc<Link>| link.rank.incarnation < newest;
        for ghost in self.links(link.peer).iter().chain(&other).chain([&link]).filter(|link| is_ghost(link)) {
            Close::Superseded.close(&ghost.connection);
        }
        if let Some(other) = other.filter(|other| !is_ghost(other)) {
            tracing::debug!(peer = %other.peer, alpn = %other.alpn, "superseded");
            let shutdown = self.shutdown.clone();
            self.tasks.spawn(async move { shutdown.run_until_cancelled(other.retire()).await });
        }
        self.show(link.peer, |_| {});
        let inner = Arc::clone(self);
        self.tasks.spawn(async move { inner.attend(&link).await });
    }

    /// The connections to a peer that are in use.
    fn links(&self, peer: NodeId) -> Vec<Arc<Link>> {
        let table = self.table();
        let slots = [Alpn::Peer, Alpn::Data].into_iter().filter_map(|alpn| table.slots.get(&(peer, alpn)));
        slots.filter_map(Slot::link).collect()
    }

    /// Serves the streams of a connection until it ends; then looks for the peer anew, if it was the one in use.
    async fn attend(self: &Arc<Self>, link: &Arc<Link>) {
        let handler = if link.alpn == Alpn::Data { &self.handlers.data } else { &self.handlers.peer };
        let (_, leaf) = tls::presented(&link.connection);
        let not_after = leaf.ok().flatten().map(|leaf| leaf.not_after);
        let serving = async {
            while let Ok(streams) = link.connection.accept_bi().await {
                let (subject, address) = (Some(Subject::Node(link.peer)), link.remote());
                let caller = Caller { subject, address, alpn: link.alpn };
                serve_stream(handler, caller, link.stream(streams), &self.tasks, &self.shutdown);
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => return Close::Stopping.close(&link.connection),
            () = expiry(&link.connection, not_after, &*self.clock) => {}
            () = serving => {}
        }
        self.lost(link);
    }

    /// A connection ended. If it was the one in use, the peer is looked for anew.
    fn lost(self: &Arc<Self>, link: &Arc<Link>) {
        let reason = link.connection.close_reason();
        if let Some(known) = self.table().addresses.get_mut(&link.peer) {
            known.worked(link.remote(), self.clock.now());
        }
        let was_used = self.set(link.peer, link.alpn, |state| match state {
            State::Up(present) if Arc::ptr_eq(present, link) => Some(State::Idle),
            _ => None,
        });
        if !was_used {
            return;
        }
        tracing::debug!(peer = %link.peer, alpn = %link.alpn, because = reason.as_ref().map(because), "lost");
        self.show(link.peer, |_| {});
        if reason.is_some_and(|reason| Close::NotMember.is(&reason)) {
            self.judged(link.peer, false);
        } else {
            self.search(link.peer, link.alpn);
        }
    }

    /// Dials anew whatever we accepted: it cannot follow us to another address.
    pub(super) fn redial_accepted(self: &Arc<Self>) {
        let accepted: Vec<_> =
            self.table().slots.values().filter_map(Slot::link).filter(|link| !link.is_ours()).collect();
        for link in accepted {
            let inner = Arc::clone(self);
            self.tasks.spawn(async move {
                let shutdown = inner.shutdown.clone();
                let dialled = shutdown.run_until_cancelled(inner.dial(link.peer, link.alpn)).await;
                match dialled {
                    Some(Ok(newer)) => inner.keep(newer),
                    // The old connection ends by itself if it is dead, and then the peer is looked for.
                    Some(Err(error)) => tracing::debug!(%error, "not dialled anew"),
                    None => {}
                }
            });
        }
    }

    fn slot<T>(&self, to: NodeId, alpn: Alpn, read: impl FnOnce(&Slot) -> T) -> Option<T> {
        self.table().slots.get(&(to, alpn)).map(read)
    }

    /// Changes the state of a slot that exists; whether it did.
    fn set(&self, to: NodeId, alpn: Alpn, change: impl FnOnce(&State) -> Option<State>) -> bool {
        let changing = |slot: &Slot| {
            slot.state.send_if_modified(|state| match change(state) {
                Some(changed) => {
                    *state = changed;
                    true
                }
                None => false,
            })
        };
        self.slot(to, alpn, changing).unwrap_or(false)
    }
}
