//! Renews this node's certificate long before it ends: the authority is in the store, and every node can open it.
//!
//! Invariant: the key and the node id stay; a new certificate is on disk before it is used.

use std::{sync::Arc, time::Duration};

use quorate_mesh::{Identity, Mesh};
use quorate_proto::{
    refusal::chain,
    world::{Clock, Random, Timestamp},
};
use tokio_util::sync::CancellationToken;

use crate::{home::Home, loops::Snapshots, secrets::Vault};

/// A certificate with less left than this is renewed: half of its thirty days.
const LEFT: Duration = Duration::from_secs(15 * 24 * 3600);
/// How often it is looked at. Wall time may jump, so no longer sleep is trusted.
const LOOK: Duration = Duration::from_secs(3600);

/// What renewing needs.
pub(super) struct Renewal {
    pub(super) identity: Identity,
    pub(super) home: Arc<Home>,
    pub(super) vault: Vault,
    pub(super) snapshots: Snapshots,
    pub(super) mesh: Mesh,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

impl Renewal {
    /// Renews whenever it is time, until the token is cancelled.
    pub(super) async fn keep(mut self, shutdown: CancellationToken) {
        loop {
            let wall = self.clock.wall();
            if is_due(self.identity.credentials.not_after, wall) {
                match self.renew(wall) {
                    Ok(identity) => {
                        tracing::info!(until = %identity.credentials.not_after, "this node's certificate was renewed");
                        self.identity = identity;
                    }
                    Err(error) => {
                        tracing::warn!(error = %chain(&*error), "this node's certificate was not renewed; tried again in an hour");
                    }
                }
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    fn renew(&self, wall: Timestamp) -> Result<Identity, Box<dyn std::error::Error + Send + Sync>> {
        let authority = self.vault.authority(&self.snapshots.borrow())?;
        let old = &self.identity.credentials;
        let leaf = authority.issue_node(&old.key.signing_request()?, self.identity.node, wall, &*self.random)?;
        let identity = Identity::assemble(old.key.clone(), leaf, old.authorities.clone(), wall)?;
        identity.store(self.home.path())?;
        self.mesh.replace_identity(identity.clone())?;
        Ok(identity)
    }
}

fn is_due(not_after: Timestamp, wall: Timestamp) -> bool {
    let left = not_after.as_second().saturating_sub(wall.as_second());
    u64::try_from(left).is_ok_and(|left| left < LEFT.as_secs()) || left < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_the_second_half_of_its_life_and_after_it() {
        let at = |day: i64| Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap();
        let due = |day| is_due(at(30), at(day));
        assert_eq!([0, 14, 16, 29, 31].map(due), [false, false, true, true, true]);
    }
}
