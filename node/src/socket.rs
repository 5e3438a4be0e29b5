//! The local socket: requests of root on this machine, without a certificate.
//!
//! One connection carries one request, framed as on a stream of the port.
//!
//! A client that closes its end whole has gone, and its request ends; one that only says that it will ask nothing more waits on.
//!
//! Invariant: only root can connect: the socket is 0600, and the kernel tells who is at the other end.

use std::{
    fs::Permissions,
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::Path,
};

use quorate_api::Caller;
use quorate_proto::{
    refusal::{Refusal, chain},
    request::{Answer, Request},
    wire::cap,
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    links::{self, LinkError},
    serve::{Services, while_wanted},
};

/// How long whoever is refused may take to ask, and to take the answer.
const ASK: std::time::Duration = std::time::Duration::from_secs(1);

/// As whom root asks.
const ROOT: &str = "root";

/// Opens the socket. One that a daemon left behind is replaced; the data directory's lock has shown that it is gone.
///
/// # Errors
/// If it cannot be made there.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers every request with a refusal, until it is dropped. A connection that cannot be accepted is tried again.
pub(crate) async fn refuse(listener: UnixListener, refusal: Refusal) -> Refusal {
    loop {
        let answer = async {
            let (mut stream, _) = listener.accept().await?;
            let ask = links::receive::<Request>(&mut stream, cap::API);
            if tokio::time::timeout(ASK, ask).await.is_ok_and(|asked| asked.is_ok()) {
                let refused = Answer::Refused(refusal.clone());
                tokio::time::timeout(ASK, links::send(&mut stream, &refused, cap::API)).await.map(drop)?;
            }
            Ok::<_, io::Error>(())
        };
        if let Err(error) = answer.await {
            tracing::debug!(%error, "a local request was not answered");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

/// Serves connections until the token is cancelled.
pub(crate) async fn serve(listener: UnixListener, services: Services, tasks: TaskTracker, shutdown: CancellationToken) {
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a local connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let own = nix::unistd::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own) {
            tracing::warn!("a local connection of somebody else than root was refused");
            continue;
        }
        let (services, shutdown) = (services.clone(), shutdown.clone());
        tasks.spawn(async move {
            if let Some(Err(error)) = shutdown.run_until_cancelled(connection(stream, services)).await {
                tracing::debug!(error = %chain(&error), "a local request broke off");
            }
        });
    }
}

async fn connection(stream: UnixStream, services: Services) -> Result<(), LinkError> {
    let twin = twin(&stream).map_err(LinkError::Broken)?;
    let (reader, writer) = stream.into_split();
    let served = services.request(Caller::User(ROOT.to_owned()), Box::new(writer), Box::new(reader));
    while_wanted(served, hung_up(&twin)).await
}

/// The same connection once more: what is found out on it is not taken from who reads and writes.
fn twin(stream: &UnixStream) -> io::Result<UnixStream> {
    UnixStream::from_std(stream.as_fd().try_clone_to_owned()?.into())
}

/// Waits until the other end is closed both ways. That there is room to write is no news; that nobody reads is.
async fn hung_up(twin: &UnixStream) {
    while let Ok(ready) = twin.ready(Interest::WRITABLE).await {
        if ready.is_write_closed() {
            return;
        }
        // To say that there was no room is how to wait for the next change.
        let no_room = twin.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        debug_assert!(no_room.is_err());
    }
}

#[cfg(test)]
mod tests;
