//! The part that answers names: holds the newest zone, and answers one message whichever way it came.
//!
//! Invariant: what is asked after [`Names::publish`] returns is answered from the new zone.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hickory_net::xfer::Protocol;
use hickory_proto::op::{Query, ResponseCode};
use hickory_server::server::Request;
use ipnet::Ipv4Net;
use quorate_proto::world::Random;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    StartError,
    answer::{self, Answer, Verdict},
    forward::Upstream,
    message::{self, Response, Screen},
    server,
    settings::Settings,
    shuffle::Shuffle,
    zone::Zone,
};

/// Addresses behind a carrier's NAT: private in all but name (RFC 6598).
const SHARED: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10);

/// What answering names needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose names these are.
    pub settings: Arc<Settings>,
    /// Addresses to answer on over UDP and TCP: single ones, never the wildcard, or answers would leave from another address than was
    /// asked. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Resolvers for names outside the cluster, as the host has them. Those that are ourselves are left out.
    pub upstreams: Vec<SocketAddr>,
    /// Public networks that may ask, too. Private ones always may.
    pub clients: Vec<Ipv4Net>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what askers can make us hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Questions about names outside the cluster under way at once; beyond, they fail at once.
    pub forwards: usize,
    /// Answers about names outside the cluster that are kept.
    pub cache: u64,
    /// TCP connections open at once on an address of ours; beyond, they are closed at once.
    pub connections: usize,
    /// Of these, those that come from one address.
    pub connections_each: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { forwards: 1024, cache: 8192, connections: 256, connections_each: 16 }
    }
}

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: the answer may have to be cut.
    Udp,
    /// A TCP connection.
    Tcp,
    /// A QUIC stream.
    Quic,
}

/// Answers names. Cheap to clone.
#[derive(Clone)]
pub struct Names {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    clients: Vec<Ipv4Net>,
    zone: ArcSwapOption<Zone>,
    upstream: Option<Upstream>,
    shuffle: Shuffle,
    listening: Vec<SocketAddr>,
}

impl Names {
    /// Begins to answer. Until the first [`Names::publish`], names of the cluster fail (`SERVFAIL`): they are not known yet.
    ///
    /// # Errors
    /// If an address cannot be listened on, or the resolvers cannot be used.
    pub fn start(
        config: Config,
        random: &dyn Random,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, StartError> {
        let sockets = server::bind(&config.listen)?;
        let ourselves = |at: &SocketAddr| {
            at.ip() == IpAddr::V4(config.settings.server) || sockets.iter().any(|socket| socket.address == *at)
        };
        let upstreams: Vec<SocketAddr> = config.upstreams.iter().copied().filter(|at| !ourselves(at)).collect();
        let upstream =
            Upstream::new(&upstreams, config.limits.cache, config.limits.forwards).map_err(StartError::Upstream)?;
        let names = Self {
            inner: Arc::new(Inner {
                settings: config.settings,
                clients: config.clients,
                zone: ArcSwapOption::empty(),
                upstream,
                shuffle: Shuffle::new(random.number()),
                listening: sockets.iter().map(|socket| socket.address).collect(),
            }),
        };
        server::serve(&names, sockets, config.limits, tasks, shutdown);
        Ok(names)
    }

    /// Replaces the zone.
    pub fn publish(&self, zone: Arc<Zone>) {
        self.inner.zone.store(Some(zone));
    }

    /// The zone answers are made from; `None` before the first.
    #[must_use]
    pub fn zone(&self) -> Option<Arc<Zone>> {
        self.inner.zone.load_full()
    }

    /// The addresses that are listened on, over UDP and TCP both.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.inner.listening
    }

    /// Answers a message; `None` for what must not be answered. Names of the cluster take no waiting; others may take seconds.
    pub async fn answer(&self, message: &[u8], transport: Transport, source: SocketAddr) -> Option<Bytes> {
        match message::screen(message) {
            Screen::Silence => None,
            Screen::Error(asked, code) => Some(message::bare(&asked, code)),
            // hickory has no word for QUIC without its own listener; what is written depends on our `transport` alone.
            Screen::Question(asked) => match Request::from_bytes(message.to_vec(), source, Protocol::Tcp) {
                Ok(request) => Some(self.respond(&request, transport).await.bytes()),
                Err(_) => Some(message::bare(&asked, ResponseCode::FormErr)),
            },
        }
    }

    /// What a request gets that passed [`message::screen`].
    pub(crate) async fn respond<'a>(&self, request: &'a Request, transport: Transport) -> Response<'a> {
        let answer = match request.request_info() {
            Ok(_) if request.version() > 0 => Answer::empty(ResponseCode::BADVERS),
            Ok(info) => self.decide(info.query.original(), info.src.ip()).await,
            Err(_) => Answer::empty(ResponseCode::FormErr),
        };
        Response::new(request, answer, self.inner.upstream.is_some(), transport)
    }

    /// What a question gets: from the zone at once, or from others after a while.
    async fn decide(&self, question: &Query, source: IpAddr) -> Answer {
        if !self.may_ask(source) {
            return Answer::empty(ResponseCode::Refused);
        }
        let Inner { settings, zone, upstream, shuffle, .. } = &*self.inner;
        let verdict = answer::answer(settings, zone.load().as_deref(), question, || shuffle.number());
        match (verdict, upstream) {
            (Verdict::Answer(answer), _) | (Verdict::Alias(answer, _), None) => answer,
            (Verdict::Outside, Some(upstream)) => upstream.ask(&question.name, question.query_type).await,
            // Without resolvers we know of no other names, and do not claim to.
            (Verdict::Outside, None) => Answer::empty(ResponseCode::Refused),
            (Verdict::Alias(mut ours, target), Some(upstream)) => {
                let theirs = upstream.ask(&target, question.query_type).await;
                ours.code = theirs.code;
                ours.answers.extend(theirs.answers);
                ours.authorities = theirs.authorities;
                ours
            }
        }
    }

    /// Private, shared and link-local networks, loopback, and those that were named. Anyone else could use us to flood a third party.
    fn may_ask(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(address) => {
                let ranges = [SHARED, self.inner.settings.service_range, self.inner.settings.pod_range];
                address.is_private()
                    || address.is_loopback()
                    || address.is_link_local()
                    || ranges.iter().chain(&self.inner.clients).any(|range| range.contains(&address))
            }
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(mapped) => self.may_ask(mapped.into()),
                None => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
            },
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Names").field("listening", &self.inner.listening).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
