//! The way in for the command line: streams to any member of the cluster, as a user.
//!
//! Invariant: only a node of the user's own cluster is spoken to: whoever answers is checked against its authorities.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use quorate_proto::world::Clock;
use rustls::CertificateError;
use thiserror::Error;
use tokio::{net::lookup_host, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    alpn::Alpn,
    certificate::{ANY_NODE, Subject},
    error::{PortError, Tried, because, list},
    identity::{Credentials, Identity, IdentityError, UserIdentity},
    link::Close,
    settings::{self, HANDSHAKE, LinkClass},
    socket,
    stream::Stream,
    tls::{self, Introducer},
};

/// The most addresses one name is dialled at.
const MAX_RESOLVED: usize = 4;

/// Why no member can be spoken to.
#[derive(Debug, Error)]
pub enum ClientError {
    /// None of the endpoints answered.
    #[error("no member of the cluster answered ({})", list(tried))]
    Unreachable {
        /// What was tried.
        tried: Vec<Tried>,
    },
    /// Someone answered, of another cluster.
    #[error("who answers there is of another cluster than this context's ({})", list(tried))]
    OtherCluster {
        /// What was tried.
        tried: Vec<Tried>,
    },
    /// The member did not accept our certificate.
    #[error("the member refused this user's certificate: {because}")]
    Refused {
        /// What it said.
        because: String,
    },
    /// There is nothing to try.
    #[error("no endpoint is configured")]
    NoEndpoint,
    /// The certificate cannot be used.
    #[error("this context's certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// This machine cannot even ask.
    #[error("no UDP socket can be opened")]
    Socket(#[from] PortError),
}

/// A connection to one member, as a user or a node.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    connection: quinn::Connection,
    address: SocketAddr,
}

impl Client {
    /// Connects to the first endpoint (`host:port`) that answers, trying each for 3 s. Needs a tokio runtime.
    ///
    /// # Errors
    /// If nobody answers, who answers is of another cluster, or the certificate cannot be used.
    pub async fn connect(
        endpoints: &[String],
        identity: &UserIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        Self::connect_as(endpoints, &identity.credentials, clock).await
    }

    /// As [`Self::connect`], with a node's identity: for commands given on a node.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_as_node(
        endpoints: &[String],
        identity: &Identity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        Self::connect_as(endpoints, &identity.credentials, clock).await
    }

    async fn connect_as(
        endpoints: &[String],
        credentials: &Credentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        if endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        let (mut tried, mut other) = (Vec::new(), false);
        for host in endpoints {
            let resolved: Vec<SocketAddr> = match lookup_host(host).await {
                Ok(addresses) => addresses.take(MAX_RESOLVED).collect(),
                Err(error) => {
                    tried.push(Tried { address: host.clone(), because: format!("the name is not known ({error})") });
                    continue;
                }
            };
            for address in resolved {
                let introducer = Introducer::authorities(&credentials.authorities).map_err(IdentityError::Untrusted)?;
                let because = match dial(address, credentials, Arc::clone(&introducer), &clock).await {
                    Ok((endpoint, Ok(connection))) => return Ok(Self { endpoint, connection, address }),
                    Ok((_, Err(because))) => because,
                    Err(error) => return Err(error),
                };
                let failure = introducer.failure();
                other |= matches!(failure, Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)));
                let because = failure.map_or(because, |error| error.to_string());
                tried.push(Tried { address: address.to_string(), because });
            }
        }
        Err(if other { ClientError::OtherCluster { tried } } else { ClientError::Unreachable { tried } })
    }

    /// Which member it is connected to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a stream. That the member refuses our certificate shows on the first stream only (TLS 1.3), as an error when it is read;
    /// [`Self::why_closed`] then tells.
    ///
    /// # Errors
    /// If the connection is closed: refused, or lost.
    pub async fn open(&self) -> Result<Stream, ClientError> {
        let streams = self.connection.open_bi().await.map_err(|error| self.closed(&error))?;
        Ok(Stream::new(&self.connection, TaskTracker::new().token(), streams))
    }

    /// Why the connection ended, if it did: what a failed stream means.
    #[must_use]
    pub fn why_closed(&self) -> Option<ClientError> {
        self.connection.close_reason().map(|reason| self.closed(&reason))
    }

    /// Closes the connection, and waits until the member was told, at most a fifth of a second.
    pub async fn close(self) {
        Close::Done.close(&self.connection);
        timeout(Duration::from_millis(200), self.endpoint.wait_idle()).await.unwrap_or_default();
    }

    fn closed(&self, reason: &quinn::ConnectionError) -> ClientError {
        let because = because(reason);
        let refused = matches!(reason, quinn::ConnectionError::ConnectionClosed(_))
            || [Close::Forbidden, Close::NotMember, Close::Expired].iter().any(|close| close.is(reason));
        if refused {
            ClientError::Refused { because }
        } else {
            ClientError::Unreachable { tried: vec![Tried { address: self.address.to_string(), because }] }
        }
    }
}

async fn dial(
    address: SocketAddr,
    credentials: &Credentials,
    introducer: Arc<Introducer>,
    clock: &Arc<dyn Clock>,
) -> Result<(Endpoint, Result<quinn::Connection, String>), ClientError> {
    let any: SocketAddr = if address.is_ipv4() { ([0_u8; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = socket::bind(any)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
        .map_err(|source| PortError::Bind { listen: any, source })?;
    let client = tls::client(Some(credentials), introducer, Alpn::Client, Arc::clone(clock))?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(settings::dialled(Alpn::Client, LinkClass::Wan, true));
    let connecting = match endpoint.connect_with(client, address, ANY_NODE) {
        Ok(connecting) => connecting,
        Err(error) => return Ok((endpoint, Err(error.to_string()))),
    };
    let connection = match timeout(HANDSHAKE, connecting).await {
        Ok(connected) => connected.map_err(|error| because(&error)),
        Err(_) => Err("no answer".to_owned()),
    };
    let connection = connection.and_then(|connection| match tls::presented(&connection) {
        (_, Ok(Some(leaf))) if matches!(leaf.subject, Subject::Node(_)) => Ok(connection),
        _ => {
            Close::Forbidden.close(&connection);
            Err("who answered is not a node".to_owned())
        }
    });
    Ok((endpoint, connection))
}
