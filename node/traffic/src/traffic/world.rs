//! Nodes in one process, joined in memory, with real sockets on loopback addresses as pods and clients.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use quorate_proto::endpoints::{Endpoint, PodPort, PortEndpoints, Protocol, ServiceAddress};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::{CarryError, Limits};

/// Longer than anything here takes; reaching it is a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it never came to pass")
}

/// Numbers that are all different.
struct Counted(AtomicU64);

impl Random for Counted {
    fn fill(&self, buffer: &mut [u8]) {
        let number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (number ^ (number >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
        buffer.iter_mut().zip(mixed.iter().cycle()).for_each(|(byte, mixed)| *byte = *mixed);
    }
}

/// The nodes, and the wires between them. All stop when it is dropped.
pub(super) struct World {
    nodes: Arc<Mutex<BTreeMap<String, Traffic>>>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    limits: Limits,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self { nodes: Arc::default(), tasks: TaskTracker::new(), shutdown: CancellationToken::new(), limits }
    }

    /// A node that listens on service addresses (127.213.0.0/16).
    pub(super) fn node(&self, name: &str) -> Traffic {
        self.start(name, [127, 213, 0, 0])
    }

    /// A node that does not: here all nodes share one loopback, so only one of them can have the service's address.
    pub(super) fn far_node(&self, name: &str) -> Traffic {
        self.start(name, [127, 255, 0, 0])
    }

    fn start(&self, name: &str, services: [u8; 4]) -> Traffic {
        let config = Config {
            node: name.to_owned(),
            service_range: Ipv4Net::new_assert(services.into(), 16),
            reserved: vec!["127.213.0.10:53".parse().unwrap()],
            limits: self.limits,
        };
        let wire = Wire { from: name.to_owned(), nodes: Arc::clone(&self.nodes), tasks: self.tasks.clone() };
        let random = Arc::new(Counted(AtomicU64::new(1)));
        let traffic = Traffic::start(config, Arc::new(wire), random, &self.tasks, &self.shutdown);
        self.nodes.lock().unwrap().insert(name.to_owned(), traffic.clone());
        traffic
    }

    pub(super) fn publish(&self, services: &[ServiceEndpoints]) {
        for (_, node) in self.nodes.lock().unwrap().iter() {
            node.publish(services.to_vec().into());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

struct Wire {
    from: String,
    nodes: Arc<Mutex<BTreeMap<String, Traffic>>>,
    tasks: TaskTracker,
}

#[async_trait]
impl Carrier for Wire {
    async fn open(&self, node: &str) -> Result<(Sender, Receiver), CarryError> {
        let unknown = || CarryError { node: node.to_owned(), source: "there is no such node".into() };
        let to = self.nodes.lock().unwrap().get(node).cloned().ok_or_else(unknown)?;
        let ((near_send, far_receive), (far_send, near_receive)) = (pipe(), pipe());
        let from = self.from.clone();
        // How it ended is told to the near side by the stream itself.
        self.tasks.spawn(async move { to.accept(&from, far_send, far_receive).await.ok() });
        Ok((near_send, near_receive))
    }
}

/// One direction of a stream, which can be reset as a QUIC stream can.
pub(super) fn pipe() -> (Sender, Receiver) {
    let (write, read) = duplex(16 << 10);
    let reset = Arc::new(AtomicBool::new(false));
    (
        Box::new(Writing { inner: write, reset: Arc::clone(&reset), ended: false }),
        Box::new(Reading { inner: read, reset }),
    )
}

struct Writing {
    inner: DuplexStream,
    reset: Arc<AtomicBool>,
    ended: bool,
}

struct Reading {
    inner: DuplexStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.reset.store(!self.ended, Ordering::SeqCst);
    }
}

impl AsyncWrite for Writing {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl AsyncRead for Reading {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, into);
        match read {
            Poll::Ready(Ok(())) if into.filled().len() == before && self.reset.load(Ordering::SeqCst) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            other => other,
        }
    }
}

/// A pod as endpoints have it.
pub(super) fn endpoint(node: &str, address: SocketAddrV4, ready: bool) -> PodPort {
    let (pod, node, hostname) = (address.to_string(), node.to_owned(), None);
    PodPort { endpoint: Endpoint { pod, address: *address.ip(), node, ready, hostname }, port: address.port() }
}

/// A service with one port, at `127.213.<test>.1:8080`, and on nodes at port 30080.
pub(super) fn service(test: u8, protocol: Protocol, endpoints: &[PodPort]) -> ServiceEndpoints {
    ServiceEndpoints {
        namespace: "shop".into(),
        name: "web".into(),
        address: ServiceAddress::Cluster([127, 213, test, 1].into()),
        ports: vec![PortEndpoints {
            name: None,
            protocol,
            port: 8080,
            node_port: Some(30080),
            endpoints: endpoints.to_vec(),
        }],
        pods: endpoints.iter().map(|end| end.endpoint.clone()).collect(),
        publish_not_ready: false,
    }
}

pub(super) fn address(test: u8) -> SocketAddrV4 {
    SocketAddrV4::new([127, 213, test, 1].into(), 8080)
}

/// Waits until as many listeners are open.
pub(super) async fn listening(traffic: &Traffic, count: usize) {
    soon(traffic.health().wait_for(|health| health.listening == count)).await.unwrap();
}

/// A pod that says its address to whoever connects, listens until the client has said all, and says it back.
pub(super) async fn echo() -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(at) = listener.local_addr().unwrap() else { panic!() };
    spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawn(async move {
                stream.write_all(format!("{at}\n").as_bytes()).await?;
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await?;
                stream.write_all(&said).await?;
                stream.shutdown().await
            });
        }
        Ok(())
    });
    at
}

/// A pod whose connections are handed out.
pub(super) async fn pod() -> (SocketAddrV4, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(at) = listener.local_addr().unwrap() else { panic!() };
    let (accepted, connections) = mpsc::unbounded_channel();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if accepted.send(stream).is_err() {
                break;
            }
        }
        Ok(())
    });
    (at, connections)
}

/// A pod that answers each datagram with its own address and what was in it.
pub(super) async fn udp_echo() -> SocketAddrV4 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(at) = socket.local_addr().unwrap() else { panic!() };
    spawn(async move {
        let mut buffer = vec![0; 65536];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            let answer = [format!("{at} ").as_bytes(), &buffer[..length]].concat();
            socket.send_to(&answer, from).await?;
        }
    });
    at
}

/// An address nobody listens on.
pub(super) async fn nobody() -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(at) = listener.local_addr().unwrap() else { panic!() };
    at
}

/// A task of a pod: it ends with the test's runtime.
fn spawn(task: impl Future<Output = io::Result<()>> + Send + 'static) {
    TaskTracker::new().spawn(task);
}

/// Connects and reads the pod's greeting: its address.
pub(super) async fn greeted(to: SocketAddrV4) -> io::Result<(TcpStream, SocketAddrV4)> {
    let mut stream = TcpStream::connect(to).await?;
    let mut line = Vec::new();
    loop {
        match soon(stream.read_u8()).await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Ok((stream, String::from_utf8(line).unwrap().parse().unwrap()))
}

/// Says something, ends, and returns what came back until the other side ended.
pub(super) async fn say(stream: &mut TcpStream, what: &[u8]) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    let (mut read, mut write) = stream.split();
    let saying = async {
        write.write_all(what).await?;
        write.shutdown().await
    };
    soon(async { tokio::try_join!(saying, read.read_to_end(&mut heard)) }).await?;
    Ok(heard)
}
