//! Founds a cluster: its id, its authority, its key, its first node, its administrator. What it makes is put into the store by the
//! transaction of [`crate::registration::found`].
//!
//! Invariant: the authority's key leaves this file sealed.

use std::sync::Arc;

use quorate_mesh::{ClusterAuthority, ClusterKey, Identity, IdentityError, UserIdentity};
use quorate_proto::{
    hello::Epoch,
    ids::NodeId,
    world::{Random, Timestamp},
};
use thiserror::Error;

use crate::{
    home::Record,
    secrets::{SecretError, Vault},
    settings::{ClusterSettings, SettingsError},
};

/// The name of the first user.
const ADMINISTRATOR: &str = "admin";

/// A new cluster.
#[derive(Debug)]
pub(crate) struct Founding {
    /// The first node's identity.
    pub identity: Identity,
    /// The cluster key.
    pub key: ClusterKey,
    /// What the first node remembers.
    pub record: Record,
    /// The first user.
    pub administrator: UserIdentity,
}

/// Why no cluster was founded.
#[derive(Debug, Error)]
pub(crate) enum FoundingError {
    /// No cluster can have these settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A certificate could not be made.
    #[error("the cluster's certificates cannot be made")]
    Identity(#[from] IdentityError),
    /// A secret could not be sealed.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Makes a cluster. Nothing is written yet.
///
/// # Errors
/// If the settings are none a cluster can have, or the time is none a certificate can have.
pub(crate) fn make(
    settings: ClusterSettings,
    name: &str,
    random: &Arc<dyn Random>,
    wall: Timestamp,
) -> Result<Founding, FoundingError> {
    settings.check()?;
    let authority = ClusterAuthority::generate(settings.cluster_id, wall, &**random)?;
    let key = ClusterKey::generate(&**random);
    let secrets = Vault::new(key.clone(), Arc::clone(random)).keep_authority(&authority)?;
    let identity = Identity::issue(&authority, NodeId(random.id()), wall, &**random)?;
    let administrator = UserIdentity::issue(&authority, ADMINISTRATOR, wall, &**random)?;
    // The first part of the pod range, as `registration::found` gives it.
    let pod_range = settings.node_ranges().next().unwrap_or(settings.pod_range);
    let record = Record {
        name: name.to_owned(),
        incarnation: 0,
        pod_range,
        cluster: settings,
        peers: Vec::new(),
        founding: Some(secrets),
        has_store: false,
        measured: None,
        pace: None,
        left: false,
        epoch: Epoch::default(),
        recovering: None,
        adoption: None,
    };
    Ok(Founding { identity, key, record, administrator })
}
