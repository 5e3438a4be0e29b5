//! The cluster's secrets as the store keeps them: sealed with the cluster key, in the spec of the `Cluster` object and of join tokens.
//!
//! Invariant: nothing in the store, the log or a snapshot is of use without the cluster key, which is in neither.

use std::sync::Arc;

use data_encoding::BASE64;
use quorate_mesh::{ClusterAuthority, ClusterKey, PrivateKey, join::Verifier};
use quorate_proto::{
    kinds::CLUSTERS,
    refusal::{Reason, Refusal, chain},
    snapshot::Snapshot,
    world::Random,
};
use serde_json::{Value, json};
use thiserror::Error;

use crate::settings::CLUSTER;

/// What the authority's key is sealed for.
const AUTHORITY: &str = "authority-key";

/// Why a secret is not to be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The object does not hold it.
    #[error("the cluster's object does not hold `{0}`")]
    Missing(&'static str),
    /// It does not open with this node's cluster key.
    #[error("`{name}` cannot be opened")]
    Sealed {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: quorate_mesh::SealError,
    },
    /// It opened, and is not what it should be.
    #[error("the certificate authority in the store cannot be used")]
    Authority(#[source] quorate_mesh::IdentityError),
}

/// Seals and opens what the store keeps.
#[derive(Clone)]
pub struct Vault {
    key: ClusterKey,
    random: Arc<dyn Random>,
}

impl Vault {
    /// With the cluster key.
    #[must_use]
    pub fn new(key: ClusterKey, random: Arc<dyn Random>) -> Self {
        Self { key, random }
    }

    /// The cluster key itself: for the answer to a join.
    #[must_use]
    pub const fn key(&self) -> &ClusterKey {
        &self.key
    }

    /// What the `Cluster` object's spec keeps of the authority.
    ///
    /// # Errors
    /// Never, for an authority that was made or read.
    pub fn keep_authority(&self, authority: &ClusterAuthority) -> Result<Value, SecretError> {
        let sealed = self.seal("authority.sealedKey", AUTHORITY, authority.key().der())?;
        Ok(json!({"authority": {"certificate": BASE64.encode(authority.certificate()), "sealedKey": sealed}}))
    }

    /// The authority, with its key, from the `Cluster` object.
    ///
    /// # Errors
    /// If the object does not hold it, or it does not open.
    pub fn authority(&self, snapshot: &Snapshot) -> Result<ClusterAuthority, SecretError> {
        let cluster = snapshot.find(&CLUSTERS, None, CLUSTER).ok_or(SecretError::Missing("spec"))?;
        let text = |field: &'static str| {
            let text = cluster.object.text(&["spec", "authority", field]).ok_or(SecretError::Missing(field))?;
            BASE64.decode(text.as_bytes()).map_err(|_| SecretError::Missing(field))
        };
        let source = |source| SecretError::Sealed { name: "authority.sealedKey", source };
        let key = self.key.open(AUTHORITY, &text("sealedKey")?).map_err(source)?;
        ClusterAuthority::from_parts(text("certificate")?.into(), PrivateKey::new(key.to_vec()))
            .map_err(SecretError::Authority)
    }

    /// Seals a join token's verifier, for its object.
    ///
    /// # Errors
    /// Never, for a verifier.
    pub fn keep_verifier(&self, token: &str, verifier: &Verifier) -> Result<String, SecretError> {
        self.seal("verifier", &verifier_context(token), verifier.as_bytes())
    }

    /// Opens a join token's verifier.
    ///
    /// # Errors
    /// If it does not open.
    pub fn verifier(&self, token: &str, kept: &str) -> Result<Verifier, SecretError> {
        let sealed = BASE64.decode(kept.as_bytes()).map_err(|_| SecretError::Missing("verifier"))?;
        let opened = self.key.open(&verifier_context(token), &sealed);
        let opened = opened.map_err(|source| SecretError::Sealed { name: "verifier", source })?;
        let bytes = opened.as_slice().try_into().map_err(|_| SecretError::Missing("verifier"))?;
        Ok(Verifier::from_bytes(bytes))
    }

    fn seal(&self, name: &'static str, context: &str, secret: &[u8]) -> Result<String, SecretError> {
        let sealed = self.key.seal(context, secret, &*self.random);
        Ok(BASE64.encode(&sealed.map_err(|source| SecretError::Sealed { name, source })?))
    }
}

fn verifier_context(token: &str) -> String {
    format!("join-token/{token}")
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        Self::new(Reason::Internal, "the cluster's secrets cannot be used on this node", chain(&error))
            .hint("ask another node; if none can, the store is damaged")
    }
}
