//! Copies a connection's bytes both ways until both sides are done, or one of them breaks.
//!
//! A side that has said all it has to say is shut down for writing and may still listen; a side that breaks breaks the other.
//!
//! Invariant: an end is only passed on when it was read as an end. A TCP socket that is dropped before is reset, whatever the reason, and
//! a stream that is dropped before is unfinished.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

/// What a buffer begins with, and what it grows to while it comes back full: an idle connection costs little, a busy one few calls.
const BUFFER: std::ops::RangeInclusive<usize> = 4 << 10..=64 << 10;
/// How long a TCP side may be silent before the kernel asks whether it still is.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Why a connection ended before both sides were done.
#[derive(Debug, Error)]
pub(crate) enum Broken {
    /// A side broke.
    #[error("a side broke")]
    Side(#[source] io::Error),
    /// Nothing was carried for too long.
    #[error("nothing was carried for {} seconds", .0.as_secs())]
    Idle(Duration),
}

/// Prepares a TCP side: what is small leaves at once, a peer that vanished is noticed, and one that is dropped is told so.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    reset_when_dropped(stream)?;
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Has the peer told that the connection broke, as soon as the socket is dropped.
pub(crate) fn reset_when_dropped(stream: &TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}

/// Copies both ways between a prepared TCP connection and a prepared pod of this node.
pub(crate) async fn carry_to_pod(near: &mut TcpStream, pod: &mut TcpStream, idle: Duration) -> Result<(), Broken> {
    carry(near, pod.split(), idle).await?;
    finished(pod)
}

/// Copies both ways between a prepared TCP connection and the far side.
pub(crate) async fn carry(
    near: &mut TcpStream,
    (mut far_read, mut far_write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    idle: Duration,
) -> Result<(), Broken> {
    let moved = AtomicU64::new(0);
    let (mut near_read, mut near_write) = near.split();
    let there = one_way(&mut near_read, &mut far_write, &moved);
    let back = one_way(&mut far_read, &mut near_write, &moved);
    tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(drop).map_err(Broken::Side),
        () = until_idle(&moved, idle) => Err(Broken::Idle(idle)),
    }?;
    finished(near)
}

/// Both sides are done: what is still on its way arrives after the socket is dropped.
fn finished(stream: &TcpStream) -> Result<(), Broken> {
    SockRef::from(stream).set_linger(None).map_err(Broken::Side)
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; *BUFFER.start()];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.fetch_add(1, Ordering::Relaxed);
        if read == buffer.len() && read < *BUFFER.end() {
            buffer.resize(2 * read, 0);
        }
    }
}

/// Looks once per `idle` whether anything was carried: a timer per read would cost more than the read.
pub(crate) async fn until_idle(moved: &AtomicU64, idle: Duration) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}
