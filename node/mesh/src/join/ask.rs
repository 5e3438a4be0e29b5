//! The joiner's side: finds a member, checks that it is of the token's cluster, proves the secret, and checks what it is given.
//!
//! Invariant: nothing of the answer is used before the certificate was checked against the pinned authority.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use quorate_proto::{
    refusal::{Reason, Refusal},
    token::{Token, TokenKind},
    wire::{self, cap},
    world::{Clock, Random},
};
use rustls::CertificateError;
use tokio::{net::lookup_host, time::timeout};
use tokio_util::task::TaskTracker;

use super::{Answer, Ask, JoinGrant, JoinGrantParts, JoinRequest, Verifier, Wish, exporter, refuse};
use crate::{
    alpn::Alpn,
    certificate::{ANY_NODE, pin},
    error::{Tried, because},
    frame,
    identity::{Identity, PrivateKey},
    link::Close,
    settings::{self, HANDSHAKE, LinkClass},
    socket,
    stream::Stream,
    tls::{self, Introducer},
};

/// How long a member may take to answer: a little longer than it gives itself.
const DEADLINE: Duration = Duration::from_secs(12);
/// The most addresses one name is dialled at.
const MAX_RESOLVED: usize = 4;

/// What came of one address.
enum Outcome {
    Granted(JoinGrantParts),
    /// The cluster decided: no other member will say otherwise.
    Refused(Refusal),
    OtherCluster(String),
    NotGoodNow(String),
    Failed(String),
}

/// Joins the cluster of a token as a node, by whichever of the token's addresses answers first. The key is made here and stays here.
///
/// # Errors
/// One clear refusal: what, because, hint. `Reason::Unavailable` and `Timeout` are worth another try with the same token.
pub async fn join(
    token: &Token,
    name: &str,
    addresses: Vec<SocketAddr>,
    build: &str,
    clock: Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<JoinGrant, Refusal> {
    if token.kind != TokenKind::Node {
        return Err(refuse::not_for_nodes());
    }
    if token.addresses.is_empty() {
        return Err(refuse::no_address());
    }
    let key = PrivateKey::generate().map_err(refuse::cannot_ask)?;
    let wish = Wish {
        request: random.request_id(),
        token: token.id,
        signing_request: key.signing_request().map_err(refuse::cannot_ask)?,
        name: name.to_owned(),
        addresses,
        build: build.to_owned(),
    };
    let request = wire::encode(&JoinRequest::V1(wish), cap::CONTROL).map_err(refuse::cannot_ask)?;
    let parts = ask_all(token, &request, &clock).await?;
    let first = parts.authorities.first().ok_or_else(|| refuse::bad_grant("it names no authority"))?;
    if pin(first).map_err(refuse::bad_grant)? != token.pin {
        return Err(refuse::bad_grant("its authority is not the token's"));
    }
    let cluster_key = (&parts.cluster_key).into();
    let identity = Identity::assemble(key, parts.leaf, parts.authorities, clock.wall()).map_err(refuse::bad_grant)?;
    if identity.node != parts.node {
        return Err(refuse::bad_grant("its certificate is another node's"));
    }
    Ok(JoinGrant { identity, name: parts.name, cluster_key, peers: parts.peers, settings: parts.settings })
}

/// Asks one address after the other: the request id makes sure that the token is spent once.
async fn ask_all(token: &Token, request: &Bytes, clock: &Arc<dyn Clock>) -> Result<JoinGrantParts, Refusal> {
    let (mut tried, mut other, mut untimely, mut undecided) = (Vec::new(), false, false, None);
    for host in &token.addresses {
        let resolved: Vec<SocketAddr> = match lookup_host(host).await {
            Ok(addresses) => addresses.take(MAX_RESOLVED).collect(),
            Err(error) => {
                tried.push(Tried { address: host.clone(), because: format!("the name is not known ({error})") });
                continue;
            }
        };
        for address in resolved {
            let because = match ask(token, request, address, clock).await {
                Outcome::Granted(parts) => return Ok(parts),
                Outcome::Refused(refusal) if matches!(refusal.reason, Reason::Unavailable | Reason::Timeout) => {
                    undecided.insert(refusal).because.clone()
                }
                Outcome::Refused(refusal) => return Err(refusal),
                Outcome::OtherCluster(because) => {
                    other = true;
                    because
                }
                Outcome::NotGoodNow(because) => {
                    untimely = true;
                    because
                }
                Outcome::Failed(because) => because,
            };
            tried.push(Tried { address: address.to_string(), because });
        }
    }
    Err(match undecided {
        Some(refusal) => refusal,
        None if untimely => refuse::not_good_now(&tried),
        None if other => refuse::other_cluster(&tried),
        None => refuse::unreachable(&tried),
    })
}

async fn ask(token: &Token, request: &Bytes, address: SocketAddr, clock: &Arc<dyn Clock>) -> Outcome {
    let introducer = Introducer::pinned(token.pin);
    let endpoint = match endpoint(address, Arc::clone(&introducer), clock) {
        Ok(endpoint) => endpoint,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    let outcome = match connect(&endpoint, address).await {
        Ok(connection) => {
            let outcome = match timeout(DEADLINE, exchange(token, request, &connection)).await {
                Ok(Ok(Answer::Granted(parts))) => Outcome::Granted(parts),
                Ok(Ok(Answer::Refused(refusal))) => Outcome::Refused(refusal),
                Ok(Err(because)) => Outcome::Failed(because),
                Err(_) => Outcome::Failed("it answered, but gave no decision in time".to_owned()),
            };
            Close::Done.close(&connection);
            outcome
        }
        Err(because) => match introducer.failure() {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                Outcome::OtherCluster("another cluster answered".to_owned())
            }
            Some(error) => Outcome::NotGoodNow(error.to_string()),
            None => Outcome::Failed(because),
        },
    };
    // So that the other side hears of the end; it notices by itself otherwise.
    timeout(Duration::from_millis(200), endpoint.wait_idle()).await.unwrap_or_default();
    outcome
}

fn endpoint(address: SocketAddr, introducer: Arc<Introducer>, clock: &Arc<dyn Clock>) -> Result<Endpoint, Refusal> {
    let any: SocketAddr = if address.is_ipv4() { ([0_u8; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = socket::bind(any).map_err(refuse::cannot_ask)?;
    let mut endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map_err(refuse::cannot_ask)?;
    let client = tls::client(None, introducer, Alpn::Join, Arc::clone(clock)).map_err(refuse::cannot_ask)?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(settings::dialled(Alpn::Join, LinkClass::Wan, true));
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

async fn connect(endpoint: &Endpoint, address: SocketAddr) -> Result<quinn::Connection, String> {
    let connecting = endpoint.connect(address, ANY_NODE).map_err(|error| error.to_string())?;
    match timeout(HANDSHAKE, connecting).await {
        Ok(connected) => connected.map_err(|error| because(&error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn exchange(token: &Token, request: &Bytes, connection: &quinn::Connection) -> Result<Answer, String> {
    let exporter = exporter(connection).ok_or("no keying material")?;
    let proof = Verifier::of(&token.secret).proof(&exporter, request);
    let streams = connection.open_bi().await.map_err(|error| because(&error))?;
    let mut stream = Stream::new(connection, TaskTracker::new().token(), streams);
    let asking = async {
        stream.write_frame(&Ask::V1 { request: request.clone(), proof }, cap::CONTROL).await?;
        stream.finish()?;
        frame::expect(&mut stream.receive, cap::CONTROL).await
    };
    let answered: Result<Answer, frame::FrameError> = asking.await;
    answered.map_err(|error| match connection.close_reason() {
        Some(closed) => because(&closed),
        None => error.to_string(),
    })
}
