//! TCP through a service: accepts, picks, carries.
//!
//! Invariant: a client that cannot be served is told at once, by a reset, and never left waiting on an open connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    carry::{carry, carry_to_pod, prepare, reset_when_dropped},
    dial::{Dialler, Far},
    table::Listen,
};

/// How long to leave a listener alone that failed, for instance because there are no file descriptors left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`. Those that were accepted go on until `shutdown`: a service that goes takes no new connections, and
/// closes none.
pub(crate) async fn serve(
    dialler: Arc<Dialler>,
    listen: Listen,
    listener: TcpListener,
    tasks: TaskTracker,
    stop: CancellationToken,
    shutdown: CancellationToken,
) {
    let most = dialler.config.limits.connections_per_service;
    let room = Arc::new(Semaphore::new(most));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%listen, %error, "a connection could not be accepted");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%listen, %client, limit = most, "a connection was reset: beyond the limit of connections per service");
            // A client that is already gone needs not be told.
            drop(reset_when_dropped(&stream));
            continue;
        };
        let (dialler, shutdown) = (Arc::clone(&dialler), shutdown.clone());
        tasks.spawn(async move {
            connection(&dialler, listen, stream, client, &shutdown).await;
            drop(permit);
        });
    }
}

async fn connection(
    dialler: &Dialler,
    listen: Listen,
    mut near: TcpStream,
    client: SocketAddr,
    shutdown: &CancellationToken,
) {
    let idle = dialler.config.limits.idle;
    let carried = async {
        prepare(&near)?;
        let connected = dialler.connect(listen, client).await?;
        match connected.far {
            Far::Tcp(mut pod) => carry_to_pod(&mut near, &mut pod, idle).await?,
            Far::Stream(send, receive) => carry(&mut near, (receive, send), idle).await?,
            Far::Udp(_) => {}
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    if let Some(Err(error)) = shutdown.run_until_cancelled(carried).await {
        tracing::debug!(%listen, %client, %error, "a connection was reset");
    }
}
