//! Questions over TCP: who may connect, how many at once, and for how long.
//!
//! hickory's server accepts without a limit, and cannot be handed a connection that somebody else accepted. So connections are accepted
//! here, and messages are framed as on a QUIC stream, where they are the same (RFC 7766, 8). The questions of a connection are answered one
//! after the other, so that nobody has more of us by asking on one of them without waiting.
//!
//! Invariant: no more connections are open than the limits say, in all and from one address. One beyond them is closed at once; those that
//! are open, and questions over UDP, do not notice.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    names::{Limits, Names, Transport},
    stream::{self, FrameError},
};

/// How long a connection may take for its next question, whole, and to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after that failed: without a free file descriptor it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and answers on them until the token stops it.
pub(crate) async fn serve(
    names: Names,
    listener: TcpListener,
    limits: Limits,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let open = Arc::new(Open::default());
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection with questions was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&open, source.ip(), limits) else {
            tracing::debug!(from = %source, "a connection beyond the limits was closed");
            continue;
        };
        let (names, shutdown) = (names.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _place = place;
            if let Some(Err(error)) = shutdown.run_until_cancelled(connection(&names, stream, source)).await {
                tracing::debug!(from = %source, %error, "a connection with questions broke off");
            }
        });
    }
}

/// Answers question by question, until there is no more or it takes too long.
async fn connection(names: &Names, mut stream: TcpStream, source: SocketAddr) -> Result<(), FrameError> {
    while let Ok(read) = timeout(IDLE, stream::read(&mut stream)).await {
        let Some(question) = read? else { break };
        let Some(answer) = names.answer(&question, Transport::Tcp, source).await else { continue };
        match timeout(IDLE, stream::write(&mut stream, &answer)).await {
            Ok(written) => written.map_err(FrameError::Broken)?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// How many connections are open, by where they come from.
#[derive(Debug, Default)]
struct Open(Mutex<BTreeMap<IpAddr, usize>>);

impl Open {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // No count is left half changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection among those that are counted.
struct Place {
    open: Arc<Open>,
    source: IpAddr,
}

impl Place {
    /// Takes a place, if there is one.
    fn take(open: &Arc<Open>, source: IpAddr, limits: Limits) -> Option<Self> {
        let source = source.to_canonical();
        let mut counts = open.counts();
        let (all, own) = (counts.values().sum::<usize>(), counts.get(&source).copied().unwrap_or_default());
        if all >= limits.connections || own >= limits.connections_each {
            return None;
        }
        counts.insert(source, own + 1);
        drop(counts);
        Some(Self { open: Arc::clone(open), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.counts();
        match counts.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.source),
        }
    }
}

#[cfg(test)]
mod tests;
