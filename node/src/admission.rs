//! Decides whether a machine may join: its proof, its token, its place; then signs its certificate.
//!
//! Any node can: the authority and the verifiers are in the store, sealed with a key that every node holds.
//!
//! Invariant: nothing a joiner says is believed before its proof was checked, and its token is spent before anything is signed.

use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use quorate_api::Desired as _;
use quorate_mesh::join::{self, Admission, JoinAttempt, JoinGrantParts, Peer, ReplaceAttempt, refuse};
use quorate_proto::{
    hello::Epoch,
    ids::NodeId,
    kinds::{JOINTOKENS, NODES},
    refusal::{Reason, Refusal, chain},
    request::Read,
    snapshot::Snapshot,
    txn::Outcome,
    world::{Clock, Random},
};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::sync::SetOnce;

use crate::{
    desired::Agreed,
    registration::{self, Candidate, Moment, NOT_JOINED, Registration},
    replacement::{self, Loser, NOT_REPLACED},
    secrets::Vault,
    settings::ClusterSettings,
};

/// How often a registration is decided anew when others join at the same time.
const TRIES: usize = 8;

/// What a joiner is told of the cluster besides who it is. Sent as JSON: fields may be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    /// The cluster's settings.
    pub cluster: ClusterSettings,
    /// The node's part of the pod range.
    pub pod_range: ipnet::Ipv4Net,
    /// The cluster's epoch.
    #[serde(default)]
    pub epoch: Epoch,
}

/// Admits machines to the cluster.
pub(crate) struct Gate {
    agreed: Agreed,
    vault: Vault,
    epoch: Epoch,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Gate {
    /// At this node, in this epoch of its cluster.
    #[must_use]
    pub(crate) const fn new(
        agreed: Agreed,
        vault: Vault,
        epoch: Epoch,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { agreed, vault, epoch, clock, random }
    }

    fn check(&self, snapshot: &Snapshot, token: &str, attempt: &JoinAttempt) -> Result<(), Refusal> {
        let stored = snapshot.find(&JOINTOKENS, None, token).ok_or_else(refuse::unknown_token)?;
        let kept = stored.object.text(&["spec", "verifier"]).unwrap_or_default();
        let verifier = self.vault.verifier(token, kept)?;
        if join::check_proof(&verifier, attempt) { Ok(()) } else { Err(refuse::unknown_token()) }
    }

    async fn register(
        &self,
        settings: &ClusterSettings,
        candidate: &Candidate<'_>,
    ) -> Result<(Registration, Arc<Snapshot>), Refusal> {
        for _ in 0..TRIES {
            let snapshot = self.agreed.snapshot(Read::Linearizable).await?;
            if let Some(registration) = registration::registered(&snapshot, candidate) {
                return Ok((registration, snapshot));
            }
            let moment = Moment { wall: self.clock.wall(), random: &*self.random };
            let registration = registration::register(&snapshot, settings, candidate, &moment)?;
            match self.agreed.propose(self.random.request_id(), registration.txn.clone()).await? {
                Outcome::Applied(_) => return Ok((registration, snapshot)),
                Outcome::Stale(key) => tracing::debug!(%key, "another machine joined at the same time"),
            }
        }
        let because = format!("other machines joined at the same time, {TRIES} times in a row");
        Err(Refusal::new(Reason::Unavailable, NOT_JOINED, because).hint("try again"))
    }
}

#[async_trait]
impl Admission for Gate {
    async fn admit(&self, attempt: JoinAttempt) -> Result<JoinGrantParts, Refusal> {
        let wish = attempt.wish().map_err(|error| refuse::malformed(chain(&error)))?;
        let token = wish.token.to_string();
        let snapshot = self.agreed.snapshot(Read::Linearizable).await?;
        self.check(&snapshot, &token, &attempt)?;
        let settings = ClusterSettings::read(&snapshot).ok_or_else(|| {
            Refusal::new(Reason::Unavailable, NOT_JOINED, "the cluster is not founded yet").hint("try again")
        })?;
        let request = HEXLOWER.encode(digest(&SHA256, &attempt.request).as_ref());
        let candidate = Candidate {
            node: NodeId(self.random.id()),
            wanted_name: &wish.name,
            token: &token,
            request: &request,
            addresses: &wish.addresses,
        };
        let (registration, snapshot) = self.register(&settings, &candidate).await?;
        tracing::info!(node = registration.name, id = %registration.node, from = %attempt.source, "a machine joined");
        self.grant(registration, &snapshot, settings, &wish.signing_request)
    }

    async fn replace(&self, attempt: ReplaceAttempt) -> Result<JoinGrantParts, Refusal> {
        let new = NodeId(self.random.id());
        let wish = &attempt.wish;
        let loser = Loser { old: attempt.node, new, request: wish.request, addresses: &wish.addresses };
        for _ in 0..TRIES {
            let snapshot = self.agreed.snapshot(Read::Linearizable).await?;
            let settings = ClusterSettings::read(&snapshot).ok_or_else(|| {
                Refusal::new(Reason::Unavailable, NOT_REPLACED, "the cluster is not founded yet").hint("try again")
            })?;
            if let Some(registration) = replacement::replaced(&snapshot, &loser) {
                return self.grant(registration, &snapshot, settings, &wish.signing_request);
            }
            let registration = replacement::replace(&snapshot, settings.cluster_id, &loser)?;
            match self.agreed.propose(self.random.request_id(), registration.txn.clone()).await? {
                Outcome::Applied(_) => {
                    tracing::warn!(
                        node = registration.name, old = %attempt.node, new = %registration.node, from = %attempt.source,
                        "a node lost its data and begins anew"
                    );
                    return self.grant(registration, &snapshot, settings, &wish.signing_request);
                }
                Outcome::Stale(key) => tracing::debug!(%key, "the node changed at the same time"),
            }
        }
        let because = format!("its node object changed at the same time, {TRIES} times in a row");
        Err(Refusal::new(Reason::Unavailable, NOT_REPLACED, because).hint("try again"))
    }
}

impl Gate {
    /// Signs what a registration came to, and adds all that a member needs.
    fn grant(
        &self,
        registration: Registration,
        snapshot: &Snapshot,
        settings: ClusterSettings,
        signing_request: &[u8],
    ) -> Result<JoinGrantParts, Refusal> {
        let internal = |error: &dyn std::error::Error| Refusal::new(Reason::Internal, NOT_JOINED, chain(error));
        let authority = self.vault.authority(snapshot)?;
        let leaf = authority
            .issue_node(signing_request, registration.node, self.clock.wall(), &*self.random)
            .map_err(|error| internal(&error))?;
        let place = Place { cluster: settings, pod_range: registration.pod_range, epoch: self.epoch };
        Ok(JoinGrantParts {
            node: registration.node,
            name: registration.name,
            leaf,
            authorities: vec![authority.certificate().clone()],
            cluster_key: self.vault.key().into(),
            peers: peers(snapshot),
            settings: serde_json::to_vec(&place).map_err(|error| internal(&error))?.into(),
        })
    }
}

/// A gate that opens once the parts behind it are there.
pub(crate) struct LateGate(pub Arc<SetOnce<Gate>>);

#[async_trait]
impl Admission for LateGate {
    async fn admit(&self, attempt: JoinAttempt) -> Result<JoinGrantParts, Refusal> {
        self.0.wait().await.admit(attempt).await
    }

    async fn replace(&self, attempt: ReplaceAttempt) -> Result<JoinGrantParts, Refusal> {
        self.0.wait().await.replace(attempt).await
    }
}

/// Where the members are, as their node objects say.
#[must_use]
pub(crate) fn peers(snapshot: &Snapshot) -> Vec<Peer> {
    let peer = |object| {
        let node = registration::node_id(object)?;
        Some(Peer { node, addresses: registration::addresses(object) })
    };
    snapshot.list(&NODES).filter_map(|stored| peer(&stored.object)).collect()
}
