//! The sockets of an address. Over UDP hickory's server reads and sends, and [`Names`] decides; TCP has a file of its own (`tcp`).
//!
//! What hickory bounds: a message's bytes (4096). What it does not: how many datagrams are being answered (names of the cluster take no
//! waiting, those of others have their limit), and the space it sets aside for as many questions as a header claims. A message it cannot
//! read gets a bare `FORMERR` from it, whoever sent it, and even one that says it is an answer. There is no counting these, since hickory
//! asks nobody; they are harmless: twelve bytes for at least twelve, so nobody is flooded with more than was spent, and the `FORMERR` is
//! itself an answer that can be read and so gets none: two servers of this kind make no loop.
//!
//! hickory logs two lines per question at `info`, under `hickory_server`: filter that target at `warn`, or they are most of the work.
//!
//! Invariant: each socket has one address, so an answer leaves from the address that was asked; all of it stops at the token.

use std::{io, net::SocketAddr};

use async_trait::async_trait;
use hickory_net::runtime::Time;
use hickory_proto::op::{Header, HeaderCounts, Metadata};
use hickory_server::{
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::MessageResponseBuilder,
};
use quorate_proto::refusal::{Reason, Refusal};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    message::{self, Screen},
    names::{Limits, Names, Transport},
    tcp,
};

/// Bytes of questions the kernel may hold for us: what arrives while we are busy with others.
const RECEIVE_BUFFER: usize = 4 << 20;

/// An address could not be listened on.
#[derive(Debug, Error)]
#[error("names cannot be answered on {address} over {transport}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// The same for a person, with what to do about it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let refusal = Refusal::new(Reason::Unavailable, self.to_string(), self.source.to_string());
        let port = self.address.port();
        match self.source.kind() {
            io::ErrorKind::AddrInUse => refusal.hint(format!(
                "another server listens on port {port} of all addresses; `ss -lnup sport = {port}` names it: let it listen on \
                 its own addresses only (dnsmasq: `bind-dynamic`, bind: `listen-on`)"
            )),
            io::ErrorKind::AddrNotAvailable => {
                refusal.hint("the address is not local to this node: the route of the service range is missing")
            }
            io::ErrorKind::PermissionDenied => refusal.hint("ports below 1024 need root, or CAP_NET_BIND_SERVICE"),
            _ => refusal,
        }
    }
}

/// The two sockets of an address.
pub(crate) struct Sockets {
    pub(crate) address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Listens on all addresses, or on none.
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Vec<Sockets>, BindError> {
    addresses.iter().map(|address| bind_one(*address)).collect()
}

fn bind_one(address: SocketAddr) -> Result<Sockets, BindError> {
    let failed = |transport| move |source| BindError { address, transport, source };
    let udp = bind_udp(address).map_err(failed("UDP"))?;
    // A port of 0 was replaced by the kernel, and TCP has to have the same.
    let address = udp.local_addr().map_err(failed("UDP"))?;
    let tcp = bind_tcp(address).map_err(failed("TCP"))?;
    Ok(Sockets { address, udp, tcp })
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    // The kernel gives what it allows; less than asked for only loses questions sooner under a flood.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 1024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Connections inherit it: an answer is not held back until the last one was acknowledged.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Answers on all sockets until the token stops it. Each has a server of its own, so that the end of one is noticed.
pub(crate) fn serve(
    names: &Names,
    sockets: Vec<Sockets>,
    limits: Limits,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    for Sockets { address, udp, tcp } in sockets {
        let mut over_udp = Server::new(Handler(names.clone()));
        over_udp.register_socket(udp);
        tasks.spawn(run(over_udp, address, shutdown.clone()));
        tasks.spawn(tcp::serve(names.clone(), tcp, limits, tasks.clone(), shutdown.clone()));
    }
}

async fn run(mut server: Server<Handler>, address: SocketAddr, shutdown: CancellationToken) {
    match shutdown.run_until_cancelled(server.block_until_done()).await {
        Some(ended) => {
            let error = ended.err().map(tracing::field::display);
            tracing::error!(%address, error, "names are no longer answered over UDP here");
        }
        None => {
            if let Err(error) = server.shutdown_gracefully().await {
                tracing::debug!(%address, %error, "answering names ended with an error");
            }
        }
    }
}

/// What hickory asks for every message it could read.
struct Handler(Names);

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut asker: R) -> ResponseInfo {
        let sent = match message::screen(request.as_slice()) {
            Screen::Silence => return unsent(request.metadata),
            Screen::Error(asked, code) => {
                let builder = MessageResponseBuilder::from_message_request(request);
                asker.send_response(builder.error_msg(&asked, code)).await
            }
            Screen::Question(_) => {
                let response = self.0.respond(request, Transport::Udp).await;
                asker.send_response(response.message()).await
            }
        };
        sent.unwrap_or_else(|error| {
            tracing::debug!(to = %request.src(), %error, "an answer could not be sent");
            unsent(request.metadata)
        })
    }
}

/// hickory wants to be told what was sent: nothing.
fn unsent(metadata: Metadata) -> ResponseInfo {
    Header { metadata, counts: HeaderCounts::default() }.into()
}
