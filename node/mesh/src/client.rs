//! The way in for the command line: streams to any member of the cluster, as a user.
//!
//! Invariant: only a node of the user's own cluster is spoken to: whoever answers is checked against its authorities.

use std::{net::SocketAddr, sync::Arc};

use quorate_proto::{
    refusal::{Reason, Refusal},
    world::Clock,
};
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::{
    alpn::Alpn,
    error::{Tried, because, list},
    identity::{Credentials, Identity, IdentityError, UserIdentity},
    link::Close,
    outbound::{Failure, Outbound, resolve},
    stream::Stream,
    tls::Introducer,
};

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
}

impl ClientError {
    /// For the user: `what` was not done because of this, and what to do next.
    #[must_use]
    pub fn refusal(&self, what: &str) -> Refusal {
        let (reason, hint) = match self {
            Self::Unreachable { .. } => (
                Reason::Unavailable,
                "check that a member runs there and that UDP reaches it, or name another endpoint",
            ),
            Self::OtherCluster { .. } => {
                (Reason::Unauthorized, "check the endpoints of this context, or use the context of that cluster")
            }
            Self::Refused { .. } => (Reason::Unauthorized, "log in again with a token from an administrator"),
            Self::NoEndpoint => (Reason::BadRequest, "name one with `--endpoint HOST:PORT`"),
            Self::Identity(_) => (Reason::Unauthorized, "log in again with a token from an administrator"),
        };
        let because = match self {
            Self::Identity(error) => format!("{self}: {error}"),
            _ => self.to_string(),
        };
        Refusal::new(reason, what, because).hint(hint)
    }
}

/// A connection to one member, as a user or a node.
#[derive(Debug)]
pub struct Client {
    outbound: Outbound,
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
            let resolved = match resolve(host).await {
                Ok(addresses) => addresses,
                Err(unknown) => {
                    tried.push(unknown);
                    continue;
                }
            };
            for address in resolved {
                let introducer = Introducer::authorities(&credentials.authorities).map_err(IdentityError::Untrusted)?;
                match Outbound::dial(address, Alpn::Client, Some(credentials), &introducer, &clock).await {
                    Ok(outbound) => return Ok(Self { outbound, address }),
                    Err(failure) => {
                        other |= matches!(failure, Failure::OtherCluster(_));
                        let because = failure.because().to_owned();
                        tried.push(Tried { address: address.to_string(), because });
                    }
                }
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
        let streams = self.outbound.connection.open_bi().await.map_err(|error| self.closed(&error))?;
        Ok(Stream::new(&self.outbound.connection, TaskTracker::new().token(), streams))
    }

    /// Why the connection ended, if it did: what a failed stream means.
    #[must_use]
    pub fn why_closed(&self) -> Option<ClientError> {
        self.outbound.connection.close_reason().map(|reason| self.closed(&reason))
    }

    /// Closes the connection, and waits until the member was told, at most a fifth of a second.
    pub async fn close(self) {
        self.outbound.close().await;
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

#[cfg(test)]
mod tests;
