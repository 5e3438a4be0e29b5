//! The far end of a carried connection: dials the pod of this node that another node asks for.
//!
//! Invariant: another node reaches pods of this node that are behind a service, and nothing else here.

use std::{error::Error, io, net::SocketAddrV4, sync::Arc, time::Duration};

use quorate_proto::endpoints::Protocol;
use thiserror::Error;
use tokio::{io::AsyncWriteExt as _, sync::watch, time::timeout};

use crate::{
    carrier::{Receiver, Sender},
    carry::carry,
    config::Limits,
    datagrams::{Sink, Source, relay},
    dial::{Far, dial_pod},
    header::{self, Flow, Header, HeaderError, Status},
    loads::Loads,
    table::Table,
};

/// How much later than its caller this node may learn that one of its pods is ready.
const LAG: Duration = Duration::from_millis(250);

/// Why a stream of another node was not carried to its end.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// What it begins with is no header.
    #[error("a stream of node {caller} begins with no header")]
    Header {
        /// The node that opened the stream.
        caller: String,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// It did not begin in time.
    #[error("a stream of node {0} did not begin within the dial limit")]
    Deadline(String),
    /// It was told no.
    #[error("node {caller} was not connected to {endpoint}: {status}")]
    Refused {
        /// The node that opened the stream.
        caller: String,
        /// The pod it asked for.
        endpoint: SocketAddrV4,
        /// What it was told.
        status: Status,
        /// Why the pod could not be dialled, if that was it.
        #[source]
        source: Option<io::Error>,
    },
    /// It broke.
    #[error("a connection of node {caller} to {endpoint} broke")]
    Broken {
        /// The node that opened the stream.
        caller: String,
        /// The pod.
        endpoint: SocketAddrV4,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Carries a stream that a node opened. The caller's name is the authenticated one, not one the stream claims.
pub(crate) async fn deliver(
    limits: &Limits,
    tables: &watch::Sender<Arc<Table>>,
    streams: &Loads<String>,
    caller: &str,
    mut send: Sender,
    mut receive: Receiver,
) -> Result<(), DeliverError> {
    let caller = || caller.to_owned();
    let header =
        timeout(limits.dial, header::read(&mut receive)).await.map_err(|_| DeliverError::Deadline(caller()))?;
    let header = header.map_err(|source| DeliverError::Header { caller: caller(), source })?;
    let (protocol, flow) = match header {
        Header::Connection(flow) => (Protocol::Tcp, flow),
        Header::Session(flow) => (Protocol::Udp, flow),
    };
    let Flow { id, source, namespace, service, endpoint, .. } = flow;
    let broken = |source: Box<dyn Error + Send + Sync>| DeliverError::Broken { caller: caller(), endpoint, source };
    let load = streams.add(caller(), limits.streams_per_peer);
    let dialled = if load.is_none() {
        Err((Status::TooMany, None))
    } else if !is_ours(tables, protocol, endpoint).await {
        Err((Status::NotHere, None))
    } else {
        match timeout(limits.dial, dial_pod(protocol, endpoint)).await {
            Ok(Ok(far)) => Ok(far),
            Ok(Err(error)) => Err((Status::Refused, Some(error))),
            Err(_) => Err((Status::Refused, Some(io::ErrorKind::TimedOut.into()))),
        }
    };
    let status = dialled.as_ref().map_or_else(|(status, _)| *status, |_| Status::Connected);
    let answered = async {
        send.write_u8(status.byte()).await?;
        send.flush().await
    };
    answered.await.map_err(|error| broken(error.into()))?;
    tracing::trace!(flow = id, %source, %namespace, %service, %endpoint, %status, "a stream was answered");
    match dialled {
        Ok(Far::Tcp(mut pod)) => {
            carry(&mut pod, (receive, send), limits.idle).await.map_err(|error| broken(error.into()))
        }
        Ok(Far::Udp(pod)) => {
            let pod = Arc::new(pod);
            let near = (Source::Socket(Arc::clone(&pod)), Sink::Socket(pod));
            let far = (Source::Stream(receive), Sink::Stream(send));
            relay(near, far, limits.session_idle).await.map_err(|error| broken(error.into()))
        }
        Ok(Far::Stream(..)) => Ok(()),
        Err((status, source)) => {
            // Ended and not dropped, or the status could be lost with the reset.
            send.shutdown().await.map_err(|error| broken(error.into()))?;
            Err(DeliverError::Refused { caller: caller(), endpoint, status, source })
        }
    }
}

/// Whether a pod of this node listens there, or will as soon as this node hears what its caller has heard.
async fn is_ours(tables: &watch::Sender<Arc<Table>>, protocol: Protocol, endpoint: SocketAddrV4) -> bool {
    let mut tables = tables.subscribe();
    timeout(LAG, tables.wait_for(|table| table.is_ours(protocol, endpoint))).await.is_ok_and(|heard| heard.is_ok())
}
