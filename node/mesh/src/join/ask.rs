//! The joiner's side: finds a member, checks that it is of the token's cluster, proves the secret, and checks what it is given.
//!
//! Invariant: nothing of the answer is used before the certificate was checked against the pinned authority.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_proto::{
    refusal::{Reason, Refusal},
    token::{Token, TokenKind},
    wire::{self, cap},
    world::{Clock, Random},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Answer, Ask, JoinGrant, JoinGrantParts, JoinRequest, Verifier, Wish, exporter, refuse};
use crate::{
    alpn::Alpn,
    certificate::pin,
    error::{Tried, because},
    frame,
    identity::{Identity, PrivateKey},
    outbound::{Failure, Outbound, resolve},
    stream::Stream,
    tls::Introducer,
};

/// How long a member may take to answer: a little longer than it gives itself.
const DEADLINE: Duration = Duration::from_secs(12);
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
        let resolved = match resolve(host).await {
            Ok(addresses) => addresses,
            Err(unknown) => {
                tried.push(unknown);
                continue;
            }
        };
        for address in resolved {
            let failure = match ask(token, request, address, clock).await {
                Ok(Answer::Granted(parts)) => return Ok(parts),
                Ok(Answer::Refused(refusal)) if matches!(refusal.reason, Reason::Unavailable | Reason::Timeout) => {
                    Failure::Other(undecided.insert(refusal).because.clone())
                }
                // The cluster decided: no other member will say otherwise.
                Ok(Answer::Refused(refusal)) => return Err(refusal),
                Err(failure) => failure,
            };
            other |= matches!(failure, Failure::OtherCluster(_));
            untimely |= matches!(failure, Failure::Untimely(_));
            tried.push(Tried { address: address.to_string(), because: failure.because().to_owned() });
        }
    }
    Err(match undecided {
        Some(refusal) => refusal,
        None if untimely => refuse::not_good_now(&tried),
        None if other => refuse::other_cluster(&tried),
        None => refuse::unreachable(&tried),
    })
}

async fn ask(token: &Token, request: &Bytes, address: SocketAddr, clock: &Arc<dyn Clock>) -> Result<Answer, Failure> {
    let introducer = Introducer::pinned(token.pin);
    let outbound = Outbound::dial(address, Alpn::Join, None, &introducer, clock).await?;
    let answer = match timeout(DEADLINE, exchange(token, request, &outbound.connection)).await {
        Ok(answer) => answer.map_err(Failure::Other),
        Err(_) => Err(Failure::Other("it answered, but gave no decision in time".to_owned())),
    };
    outbound.close().await;
    answer
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
