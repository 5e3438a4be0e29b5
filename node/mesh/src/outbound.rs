//! A single connection from outside the mesh: a joiner's or a client's, who know addresses but no node ids.
//!
//! Invariant: each connection has a socket of its own, of the address' family, so that one that cannot be used does not spoil the next.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use quorate_proto::world::Clock;
use rustls::CertificateError;
use tokio::{net::lookup_host, time::timeout};

use crate::{
    alpn::Alpn,
    certificate::{ANY_NODE, Subject},
    error::{Tried, because},
    identity::Credentials,
    link::Close,
    settings::{self, HANDSHAKE, LinkClass},
    socket,
    tls::{self, Introducer},
};

/// The most addresses one name is dialled at.
const MAX_RESOLVED: usize = 4;
/// How long the other side may take to hear that we are done; it notices by itself otherwise.
const GOODBYE: Duration = Duration::from_millis(200);

/// A connection and what it lives on.
#[derive(Debug)]
pub(crate) struct Outbound {
    endpoint: Endpoint,
    pub(crate) connection: quinn::Connection,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Someone answered whom our authorities did not name.
    OtherCluster(String),
    /// A member answered whose certificate is not good now.
    Untimely(String),
    /// Nobody answered, or refused.
    Other(String),
}

impl Failure {
    pub(crate) fn because(&self) -> &str {
        match self {
            Self::OtherCluster(because) | Self::Untimely(because) | Self::Other(because) => because,
        }
    }
}

/// The addresses behind `host:port`.
pub(crate) async fn resolve(host: &str) -> Result<Vec<SocketAddr>, Tried> {
    match lookup_host(host).await {
        Ok(addresses) => Ok(addresses.take(MAX_RESOLVED).collect()),
        Err(error) => {
            Err(Tried { address: host.to_owned(), because: format!("the name cannot be resolved ({error})") })
        }
    }
}

impl Outbound {
    /// Dials one address and checks that a node of the introducer's cluster answers. Needs a tokio runtime.
    pub(crate) async fn dial(
        address: SocketAddr,
        alpn: Alpn,
        credentials: Option<&Credentials>,
        introducer: &Arc<Introducer>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
        let any: SocketAddr = if address.is_ipv4() { ([0_u8; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = socket::bind(any).map_err(|error| other(&error))?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(|error| other(&error))?;
        let verifier = Arc::<Introducer>::clone(introducer);
        let client = tls::client(credentials, verifier, alpn, Arc::clone(clock)).map_err(|error| other(&error))?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(settings::dialled(alpn, LinkClass::Wan, true));
        let connecting = endpoint.connect_with(client, address, ANY_NODE).map_err(|error| other(&error))?;
        let connection = match timeout(HANDSHAKE, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(match introducer.failure() {
                    Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                        Failure::OtherCluster("another cluster answered".to_owned())
                    }
                    Some(error) => Failure::Untimely(error.to_string()),
                    None => Failure::Other(because(&error)),
                });
            }
            Err(_) => return Err(Failure::Other("no answer".to_owned())),
        };
        match tls::presented(&connection) {
            (_, Ok(Some(leaf))) if matches!(leaf.subject, Subject::Node(_)) => Ok(Self { endpoint, connection }),
            _ => {
                Close::Forbidden.close(&connection);
                Err(Failure::OtherCluster("who answered is not a node".to_owned()))
            }
        }
    }

    /// Closes the connection, and waits a moment until the other side heard of it.
    pub(crate) async fn close(self) {
        Close::Done.close(&self.connection);
        timeout(GOODBYE, self.endpoint.wait_idle()).await.unwrap_or_default();
    }
}
