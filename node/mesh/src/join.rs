//! How a machine becomes a member: it proves that it knows a token's secret, and gets a certificate for a key that never left it.
//!
//! The joiner trusts only the authority whose public key the token pins. Its proof is an HMAC over this very TLS session (exported
//! keying material, RFC 8446 §7.5) and this very request, so it is worth nothing to who replays or relays it.
//!
//! Invariant: the secret never travels, and no token, proof or verifier is ever logged.

use std::{fmt, net::SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use quorate_proto::{
    ids::{NodeId, RequestId},
    refusal::Refusal,
    token::{Secret, TokenId},
    wire::{self, WireError, cap},
};
use ring::{
    digest::{SHA256, digest},
    hmac::{self, HMAC_SHA256},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{identity::Identity, seal::ClusterKey};

pub(crate) mod accept;
mod ask;
pub mod refuse;
mod replace;

pub use ask::join;
pub use replace::{ReplaceAttempt, ReplaceWish, replace};

/// The label of the keying material a proof is bound to.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-quorate-join/1";
const VERIFIER_SALT: &[u8] = b"quorate join v1";
const VERIFIER_INFO: &[u8] = b"verifier";

/// Checks proofs of one token's secret; derived from it, and stored sealed in its place: it is itself enough to join.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier([u8; 32]);

impl Verifier {
    /// The verifier of a secret: HKDF (RFC 5869) with SHA-256, whose output of one block is one HMAC after another.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let extracted = hmac::sign(&hmac::Key::new(HMAC_SHA256, VERIFIER_SALT), &secret.0);
        let expanding = hmac::Key::new(HMAC_SHA256, extracted.as_ref());
        let mut key = [0; 32];
        key.copy_from_slice(hmac::sign(&expanding, &[VERIFIER_INFO, &[1]].concat()).as_ref());
        Self(key)
    }

    /// A verifier that was stored.
    #[must_use]
    pub const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Its bytes: to be sealed before they are stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn proof(&self, exporter: &[u8; 32], request: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(HMAC_SHA256, &self.0);
        let mut proof = [0; 32];
        proof.copy_from_slice(hmac::sign(&key, &transcript(exporter, request)).as_ref());
        proof
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// Whether an attempt proves that the joiner knows the secret behind `verifier`. Takes the same time for every wrong proof.
#[must_use]
pub fn check_proof(verifier: &Verifier, attempt: &JoinAttempt) -> bool {
    let key = hmac::Key::new(HMAC_SHA256, &verifier.0);
    hmac::verify(&key, &transcript(&attempt.exporter, &attempt.request), &attempt.proof).is_ok()
}

/// What a proof is bound to: this very TLS session, and this very request.
fn transcript(exporter: &[u8; 32], request: &[u8]) -> Vec<u8> {
    [exporter.as_slice(), digest(&SHA256, request).as_ref()].concat()
}

fn exporter(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]).ok()?;
    Some(exporter)
}

/// What a joiner asks for. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRequest {
    /// Since 0.1.
    V1(Wish),
}

/// What a joiner wishes to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// A retry carries the same, and spends nothing.
    pub request: RequestId,
    /// Which token it holds.
    pub token: TokenId,
    /// A signing request (PKCS #10, DER); only its public key counts.
    pub signing_request: Bytes,
    /// The node name it would like.
    pub name: String,
    /// Where it will be.
    pub addresses: Vec<SocketAddr>,
    /// The version of its binary.
    pub build: String,
}

/// One attempt to join, as the node that received it passes it on to the leader.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAttempt {
    /// The request's bytes as they came: what the proof covers.
    pub request: Bytes,
    /// Keying material of the TLS session it came by.
    pub exporter: [u8; 32],
    /// The proof.
    pub proof: [u8; 32],
    /// Where it came from.
    pub source: SocketAddr,
}

impl JoinAttempt {
    /// What is asked for. Nothing of it is to be believed before [`check_proof`].
    ///
    /// # Errors
    /// If the bytes are no request.
    pub fn wish(&self) -> Result<Wish, WireError> {
        let JoinRequest::V1(wish) = wire::decode(&self.request, cap::CONTROL)?;
        Ok(wish)
    }
}

impl fmt::Debug for JoinAttempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinAttempt").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A member and where it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<SocketAddr>,
}

/// What a joiner is granted, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGrantParts {
    /// Who it is from now on.
    pub node: NodeId,
    /// The node name it got.
    pub name: String,
    /// Its certificate, in DER.
    pub leaf: Bytes,
    /// The cluster's authorities, in DER; the first one signed the certificate.
    pub authorities: Vec<Bytes>,
    /// The cluster key: the connection is encrypted, and the joiner is a member now.
    pub cluster_key: SentKey,
    /// Where the others are.
    pub peers: Vec<Peer>,
    /// The cluster's settings, as the daemon writes them.
    pub settings: Bytes,
}

/// A cluster key on its way. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentKey([u8; 32]);

impl From<&ClusterKey> for SentKey {
    fn from(key: &ClusterKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<&SentKey> for ClusterKey {
    fn from(key: &SentKey) -> Self {
        Self::from_bytes(key.0)
    }
}

impl Drop for SentKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// What a joiner has in hand after it joined.
#[derive(Debug)]
pub struct JoinGrant {
    /// Who it is: checked against the pinned authority, not stored yet.
    pub identity: Identity,
    /// Its node name.
    pub name: String,
    /// The cluster key.
    pub cluster_key: ClusterKey,
    /// Where the others are.
    pub peers: Vec<Peer>,
    /// The cluster's settings, as the daemon writes them.
    pub settings: Bytes,
}

/// Decides on joins: looks the token up, checks the proof, spends the token in one transaction, and signs.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Decides on one attempt. A retry with the same request id and key gets the same answer and spends nothing. Dropped after 10 s.
    async fn admit(&self, attempt: JoinAttempt) -> Result<JoinGrantParts, Refusal>;

    /// Decides on a member that lost its data and asks for a new id in place of its own. A retry with the same request id gets the same
    /// id. Dropped after 10 s.
    async fn replace(&self, attempt: ReplaceAttempt) -> Result<JoinGrantParts, Refusal>;
}

/// The first and only frame of a joiner.
#[derive(Serialize, Deserialize)]
enum Ask {
    V1 { request: Bytes, proof: [u8; 32] },
    Replace(ReplaceWish),
}

/// The answer to it.
#[derive(Serialize, Deserialize)]
enum Answer {
    Granted(JoinGrantParts),
    Refused(Refusal),
}

#[cfg(test)]
mod tests;
