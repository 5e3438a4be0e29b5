//! UDP through a service: a session per client, to the same pod while it lasts.
//!
//! A session ends when nothing was carried for a while, when its pod is no longer behind the service, or when the pod does not listen: the
//! client's next datagram then begins another.
//!
//! Invariant: datagrams may be lost, as UDP's may, but are never cut or joined; what waits for a slow pod is bounded.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    sync::mpsc,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    carrier::{Receiver, Sender},
    carry::until_idle,
    dial::{Dialler, Far},
    table::Listen,
};

/// Bytes of the longest datagram.
const MAX_DATAGRAM: usize = u16::MAX as usize;
/// Datagrams that wait for a session's pod to be connected, or to take them.
const QUEUE: usize = 64;
/// How long to leave a socket alone that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Where datagrams come from.
pub(crate) enum Source {
    /// A client, through the socket it shares with others.
    Queue(mpsc::Receiver<Bytes>),
    /// A pod.
    Socket(Arc<UdpSocket>),
    /// Another node.
    Stream(Receiver),
}

/// Where datagrams go.
pub(crate) enum Sink {
    /// To a client, from the service's address.
    Client(Arc<UdpSocket>, SocketAddr),
    /// To a pod.
    Socket(Arc<UdpSocket>),
    /// To another node.
    Stream(Sender),
}

impl Source {
    /// The next datagram; `None` if there will be no more.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Queue(queue) => Ok(queue.recv().await),
            Self::Socket(socket) => receive(socket, UdpSocket::try_recv).await.map(Some),
            Self::Stream(stream) => {
                let mut length = [0; 2];
                if stream.read(&mut length[..1]).await? == 0 {
                    return Ok(None);
                }
                stream.read_exact(&mut length[1..]).await?;
                let mut datagram = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut datagram).await?;
                Ok(Some(datagram.into()))
            }
        }
    }
}

impl Sink {
    async fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Client(socket, client) => socket.send_to(datagram, *client).await.map(drop),
            Self::Socket(socket) => socket.send(datagram).await.map(drop),
            Self::Stream(stream) => {
                let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
                let mut framed = Vec::with_capacity(2 + datagram.len());
                framed.extend(length.to_be_bytes());
                framed.extend(datagram);
                stream.write_all(&framed).await?;
                stream.flush().await
            }
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Client(..) | Self::Socket(_) => Ok(()),
            Self::Stream(stream) => stream.shutdown().await,
        }
    }
}

/// Receives into a buffer that is not part of the task: most sessions wait most of the time, and are many.
async fn receive<T>(socket: &UdpSocket, take: impl Fn(&UdpSocket, &mut [u8]) -> io::Result<T>) -> io::Result<T::Whole>
where
    T: Received,
{
    loop {
        socket.readable().await?;
        let mut buffer = [0; MAX_DATAGRAM];
        match take(socket, &mut buffer) {
            Ok(received) => return Ok(received.whole(&buffer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a socket says of a datagram, with and without who sent it.
trait Received {
    type Whole;
    fn whole(self, buffer: &[u8]) -> Self::Whole;
}

impl Received for usize {
    type Whole = Bytes;
    fn whole(self, buffer: &[u8]) -> Bytes {
        Bytes::copy_from_slice(&buffer[..self])
    }
}

impl Received for (usize, SocketAddr) {
    type Whole = (Bytes, SocketAddr);
    fn whole(self, buffer: &[u8]) -> Self::Whole {
        (self.0.whole(buffer), self.1)
    }
}

/// Carries datagrams both ways until one side has no more, or breaks, or nothing comes.
pub(crate) async fn relay(near: (Source, Sink), far: (Source, Sink), idle: Duration) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    let ((near_source, near_sink), (far_source, far_sink)) = (near, far);
    tokio::select! {
        ended = one_way(near_source, far_sink, &moved) => ended,
        ended = one_way(far_source, near_sink, &moved) => ended,
        () = until_idle(&moved, idle) => Ok(()),
    }
}

async fn one_way(mut from: Source, mut to: Sink, moved: &AtomicU64) -> io::Result<()> {
    while let Some(datagram) = from.next().await? {
        to.send(&datagram).await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
    to.finish().await
}

/// Takes datagrams for a service port until the token stops it, and its sessions.
pub(crate) async fn serve(
    dialler: Arc<Dialler>,
    listen: Listen,
    socket: UdpSocket,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let most = dialler.config.limits.sessions_per_service;
    let mut sessions: BTreeMap<SocketAddr, mpsc::Sender<Bytes>> = BTreeMap::new();
    while let Some(received) = stop.run_until_cancelled(receive(&socket, UdpSocket::try_recv_from)).await {
        let (datagram, client) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%listen, %error, "a datagram could not be received");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let datagram = match sessions.get(&client).map(|session| session.try_send(datagram.clone())) {
            // What a full session cannot take is lost, as on any full link.
            Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => continue,
            Some(Err(mpsc::error::TrySendError::Closed(datagram))) => datagram,
            None => datagram,
        };
        sessions.retain(|_, session| !session.is_closed());
        if sessions.len() >= most {
            tracing::warn!(%listen, %client, limit = most, "a datagram was dropped: beyond the limit of UDP sessions per service");
            continue;
        }
        let (queue, queued) = mpsc::channel(QUEUE);
        if queue.try_send(datagram).is_ok() {
            sessions.insert(client, queue);
        }
        let session = session(Arc::clone(&dialler), listen, Arc::clone(&socket), client, queued);
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(session).await });
    }
}

async fn session(
    dialler: Arc<Dialler>,
    listen: Listen,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    queued: mpsc::Receiver<Bytes>,
) {
    let connected = match dialler.connect(listen, client).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(%listen, %client, error = &error as &dyn std::error::Error, "no session");
            return;
        }
    };
    let near = (Source::Queue(queued), Sink::Client(socket, client));
    let far = match connected.far {
        Far::Udp(pod) => {
            let pod = Arc::new(pod);
            (Source::Socket(Arc::clone(&pod)), Sink::Socket(pod))
        }
        Far::Stream(send, receive) => (Source::Stream(receive), Sink::Stream(send)),
        Far::Tcp(_) => return,
    };
    let mut table = dialler.table.clone();
    let ended = tokio::select! {
        ended = relay(near, far, dialler.config.limits.session_idle) => ended,
        _ = table.wait_for(|table| !table.has(&listen, connected.endpoint)) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%listen, %client, endpoint = %connected.endpoint, %error, "a session broke");
    }
}
