//! Questions over UDP and TCP.
//!
//! A question about the cluster is answered where it is read, without a task of its own; only what others must be asked about gets one.
//!
//! Invariant: each socket has one address, so an answer leaves from the address that was asked; every wait has a deadline, and all of it
//! stops at the token.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quorate_proto::refusal::{Reason, Refusal};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    message::MAX_QUESTION,
    names::{Names, Reply, Transport},
    stream,
};

/// How long a TCP connection may ask nothing, or not take its answer.
const IDLE: Duration = Duration::from_secs(10);
/// How long to leave a socket alone that failed, for instance because there are no file descriptors left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
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
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Answers on all sockets until the token stops it.
pub(crate) fn serve(
    names: &Names,
    sockets: Vec<Sockets>,
    max_connections: usize,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(max_connections));
    for Sockets { udp, tcp, .. } in sockets {
        let udp = serve_udp(names.clone(), Arc::new(udp), tasks.clone(), shutdown.clone());
        let tcp = serve_tcp(names.clone(), tcp, Arc::clone(&connections), tasks.clone(), shutdown.clone());
        let until = shutdown.clone();
        tasks.spawn(async move { until.run_until_cancelled(udp).await });
        let until = shutdown.clone();
        tasks.spawn(async move { until.run_until_cancelled(tcp).await });
    }
}

async fn serve_udp(names: Names, socket: Arc<UdpSocket>, tasks: TaskTracker, shutdown: CancellationToken) {
    let mut buffer = [0; MAX_QUESTION];
    loop {
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "a question could not be received");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        match names.reply(&buffer[..length], Transport::Udp, source) {
            Reply::Silence => {}
            Reply::Now(answer) => send(&socket, &answer, source).await,
            Reply::Later(pending) => {
                let (socket, shutdown) = (Arc::clone(&socket), shutdown.clone());
                tasks.spawn(async move {
                    if let Some(answer) = shutdown.run_until_cancelled(pending.answer()).await {
                        send(&socket, &answer, source).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%to, %error, "an answer could not be sent");
    }
}

async fn serve_tcp(
    names: Names,
    listener: TcpListener,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let (names, shutdown) = (names.clone(), shutdown.clone());
        tasks.spawn(async move {
            if let Some(Err(error)) = shutdown.run_until_cancelled(connection(&names, stream, source)).await {
                tracing::debug!(%source, %error, "a connection was closed");
            }
            drop(permit);
        });
    }
}

async fn connection(names: &Names, mut stream: TcpStream, source: SocketAddr) -> Result<(), stream::FrameError> {
    let broken = stream::FrameError::Broken;
    stream.set_nodelay(true).map_err(broken)?;
    // Who asks nothing, or does not listen, makes room for others.
    while let Ok(Some(question)) = timeout(IDLE, stream::read(&mut stream)).await.unwrap_or(Ok(None)) {
        let Some(answer) = names.answer(&question, Transport::Tcp, source).await else { break };
        match timeout(IDLE, stream::write(&mut stream, &answer)).await {
            Ok(written) => written.map_err(broken)?,
            Err(_) => break,
        }
    }
    Ok(())
}
