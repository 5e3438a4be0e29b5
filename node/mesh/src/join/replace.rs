//! How a member whose data is lost begins anew: its certificate, which TLS has checked, stands in for a token.
//!
//! It gets a new id, so that nothing it promised under the old one is ever expected of it again, and keeps its name. The old id is no
//! member any more from the moment the new one is.
//!
//! Invariant: nothing of the answer is used before the new certificate was checked against the authorities of the old one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_proto::{
    ids::{NodeId, RequestId},
    refusal::{Reason, Refusal},
    wire::cap,
    world::Clock,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Answer, Ask, JoinGrant, JoinGrantParts, refuse};
use crate::{
    alpn::Alpn,
    error::{Tried, because},
    frame,
    identity::{Identity, PrivateKey},
    outbound::{Failure, Outbound},
    stream::Stream,
    tls::Introducer,
};

/// How long a member may take to answer: a little longer than it gives itself.
const DEADLINE: Duration = Duration::from_secs(12);

/// What a member that begins anew asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceWish {
    /// A retry carries the same, and gets the same id.
    pub request: RequestId,
    /// A signing request (PKCS #10, DER); only its public key counts.
    pub signing_request: Bytes,
    /// Where it will be.
    pub addresses: Vec<SocketAddr>,
    /// The version of its binary.
    pub build: String,
}

/// One attempt to begin anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaceAttempt {
    /// Whom the caller's certificate names: the id that is given up.
    pub node: NodeId,
    /// What it asks for.
    pub wish: ReplaceWish,
    /// Where it came from.
    pub source: SocketAddr,
}

/// Asks the members at these addresses, one after the other, for a new identity in place of `old`. The new key is made here and stays here.
///
/// # Errors
/// One clear refusal. `Reason::Unavailable` and `Timeout` are worth another try with the same request id.
pub async fn replace(
    old: &Identity,
    request: RequestId,
    members: &[SocketAddr],
    addresses: Vec<SocketAddr>,
    build: &str,
    clock: Arc<dyn Clock>,
) -> Result<JoinGrant, Refusal> {
    let key = PrivateKey::generate().map_err(refuse::cannot_ask)?;
    let signing_request = key.signing_request().map_err(refuse::cannot_ask)?;
    let wish = ReplaceWish { request, signing_request, addresses, build: build.to_owned() };
    let parts = ask_all(old, &wish, members, &clock).await?;
    let first = parts.authorities.first().ok_or_else(|| refuse::bad_grant("it names no authority"))?;
    if !old.credentials.authorities.contains(first) {
        return Err(refuse::bad_grant("its authority is not this cluster's"));
    }
    let cluster_key = (&parts.cluster_key).into();
    let identity = Identity::assemble(key, parts.leaf, parts.authorities, clock.wall()).map_err(refuse::bad_grant)?;
    if identity.node != parts.node || identity.node == old.node {
        return Err(refuse::bad_grant("its certificate is another node's"));
    }
    Ok(JoinGrant { identity, name: parts.name, cluster_key, peers: parts.peers, settings: parts.settings })
}

async fn ask_all(
    old: &Identity,
    wish: &ReplaceWish,
    members: &[SocketAddr],
    clock: &Arc<dyn Clock>,
) -> Result<JoinGrantParts, Refusal> {
    let (mut tried, mut undecided) = (Vec::new(), None);
    for address in members {
        let because = match ask(old, wish, *address, clock).await {
            Ok(Answer::Granted(parts)) => return Ok(parts),
            Ok(Answer::Refused(refusal)) if matches!(refusal.reason, Reason::Unavailable | Reason::Timeout) => {
                undecided.insert(refusal).because.clone()
            }
            // The cluster decided: no other member will say otherwise.
            Ok(Answer::Refused(refusal)) => return Err(refusal),
            Err(failure) => failure.because().to_owned(),
        };
        tried.push(Tried { address: address.to_string(), because });
    }
    Err(undecided.unwrap_or_else(|| refuse::unreachable(&tried)))
}

async fn ask(
    old: &Identity,
    wish: &ReplaceWish,
    address: SocketAddr,
    clock: &Arc<dyn Clock>,
) -> Result<Answer, Failure> {
    let introducer = Introducer::authorities(&old.credentials.authorities);
    let introducer = introducer.map_err(|error| Failure::Other(error.to_string()))?;
    let outbound = Outbound::dial(address, Alpn::Join, Some(&old.credentials), &introducer, clock).await?;
    let answer = match timeout(DEADLINE, exchange(wish, &outbound.connection)).await {
        Ok(answer) => answer.map_err(Failure::Other),
        Err(_) => Err(Failure::Other("it answered, but gave no decision in time".to_owned())),
    };
    outbound.close().await;
    answer
}

async fn exchange(wish: &ReplaceWish, connection: &quinn::Connection) -> Result<Answer, String> {
    let streams = connection.open_bi().await.map_err(|error| because(&error))?;
    let mut stream = Stream::new(connection, TaskTracker::new().token(), streams);
    let asking = async {
        stream.write_frame(&Ask::Replace(wish.clone()), cap::CONTROL).await?;
        stream.finish()?;
        frame::expect(&mut stream.receive, cap::CONTROL).await
    };
    let answered: Result<Answer, frame::FrameError> = asking.await;
    answered.map_err(|error| match connection.close_reason() {
        Some(closed) => because(&closed),
        None => error.to_string(),
    })
}
