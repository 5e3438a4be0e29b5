//! What a node does whose store is damaged: it takes no part, keeps its containers, and asks its peers for a new id until it has one.
//!
//! The fence is written down before anything else, so that the damaged store is never opened again. Then the cluster gives the node a new
//! id in place of the old one, the store is set aside, and the node begins as an empty member that its peers fill. Each step can be
//! taken again: a daemon that is killed in between goes on where it was.
//!
//! Invariant: nothing is set aside before the new identity is on disk, and no store is made under the old one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quorate_mesh::{Identity, join};
use quorate_proto::{
    refusal::{Reason, Refusal},
    world::rfc3339,
};
use tokio_util::sync::CancellationToken;

use super::{Daemon, NOT_STARTED, not_started};
use crate::home::{Fenced, HomeError, Record};

/// How long until the peers are asked again.
const AGAIN: Duration = Duration::from_secs(5);

impl Daemon {
    /// Writes down that this node's store is damaged, if that was not done yet, and tells it.
    pub(super) fn fence(&self, identity: &Identity, because: &str) -> Result<Fenced, Refusal> {
        if let Some(fenced) = self.fenced()? {
            return Ok(fenced);
        }
        let fenced = Fenced {
            because: because.to_owned(),
            node: identity.node,
            request: self.random.request_id(),
            since: rfc3339(self.clock.wall()),
        };
        self.home.fence(&fenced).map_err(|error| error.refusal(NOT_STARTED))?;
        Ok(fenced)
    }

    /// What was written down by [`Self::fence`], and did not come to its end yet.
    pub(super) fn fenced(&self) -> Result<Option<Fenced>, Refusal> {
        self.home.fenced().map_err(|error| error.refusal(NOT_STARTED))
    }

    /// Gets this node a new id from its peers, however long that takes; what it remembers then, or `None` if it is to stop before.
    pub(super) async fn take_new_id(
        &self,
        fenced: &Fenced,
        record: &Record,
        shutdown: &CancellationToken,
    ) -> Result<Option<Record>, Refusal> {
        let mut record = Record { has_store: false, ..record.clone() };
        let identity = Identity::load(self.home.path()).map_err(|error| not_started(&error))?;
        // With another id than the damaged store's, the cluster has answered already.
        if identity.node == fenced.node {
            tracing::error!(
                because = fenced.because,
                since = fenced.since,
                "this node is fenced: it neither votes nor answers, and its containers go on"
            );
            let members = others(fenced, &record);
            let granted = async {
                match members.is_empty() {
                    true => alone(fenced).await,
                    false => self.ask_until_granted(&identity, fenced, &members).await,
                }
            };
            let Some(grant) = shutdown.run_until_cancelled(granted).await else { return Ok(None) };
            record.peers = grant.peers;
            self.home.keep_cluster_key(&grant.cluster_key).map_err(|error| error.refusal(NOT_STARTED))?;
            grant.identity.store(self.home.path()).map_err(|error| not_started(&error))?;
            tracing::warn!(old = %fenced.node, new = %grant.identity.node, "the cluster gave this node a new id");
        }
        Ok(Some(record))
    }

    /// Sets the damaged store aside, which nobody may have open any more, so that a new one can be made.
    pub(super) fn begin_anew(&self, fenced: &Fenced, record: &Record) -> Result<(), Refusal> {
        let set_aside = || {
            let aside = self.home.set_aside(fenced)?;
            self.home.remember(record)?;
            self.home.unfence()?;
            Ok::<_, HomeError>(aside)
        };
        if let Some(aside) = set_aside().map_err(|error| error.refusal(NOT_STARTED))? {
            tracing::warn!(path = %aside.display(), "the damaged store was set aside; its peers fill this node anew");
        }
        Ok(())
    }

    async fn ask_until_granted(&self, identity: &Identity, fenced: &Fenced, members: &[SocketAddr]) -> join::JoinGrant {
        tracing::info!("this node asks its peers for a new id");
        let build = env!("CARGO_PKG_VERSION");
        let mut told = None;
        loop {
            let clock = Arc::clone(&self.clock);
            let asked = join::replace(identity, fenced.request, members, self.addresses.clone(), build, clock);
            match asked.await {
                Ok(grant) => return grant,
                Err(refusal) => {
                    if told.as_ref() != Some(&refusal) {
                        tracing::error!(
                            because = refusal.because,
                            hint = refusal.hint,
                            "this node stays fenced, and asks again every {} s",
                            AGAIN.as_secs()
                        );
                        told = Some(refusal);
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Where the other members may be; nowhere, if there are none.
pub(super) fn others(fenced: &Fenced, record: &Record) -> Vec<SocketAddr> {
    let others = record.peers.iter().filter(|peer| peer.node != fenced.node);
    others.flat_map(|peer| peer.addresses.clone()).collect()
}

/// What becomes of the only node of a cluster: nobody else has its data.
const ALONE: &str = "no other node has its data: restore a backup, see docs/operating/backup.md";

/// Waits for ever: there is nobody to ask.
async fn alone(fenced: &Fenced) -> join::JoinGrant {
    tracing::error!(
        because = fenced.because,
        hint = ALONE,
        "this node stays fenced: it is the only one of its cluster"
    );
    std::future::pending().await
}

/// What a fenced node answers to whoever asks it for anything. `alone`: there are no others to fill it anew.
pub(super) fn refusal(fenced: &Fenced, alone: bool) -> Refusal {
    let because = format!("this node is fenced since {}: {}", fenced.since, fenced.because);
    let hint = match alone {
        true => format!("its containers go on; {ALONE}"),
        false => {
            "its containers go on; it comes back by itself as soon as a majority of the other nodes can be reached: \
                  see `quorate status` there"
                .to_owned()
        }
    };
    Refusal::new(Reason::Unavailable, "the request was not done", because).hint(hint)
}

/// What a store that was there and is gone is taken for.
pub(super) fn lost(daemon: &Daemon, record: &Record) -> Option<String> {
    let store = daemon.home.store();
    (record.has_store && !quorate_raft::is_store(&store)).then(|| format!("{} is missing", store.display()))
}

#[cfg(test)]
mod tests {
    use quorate_proto::ids::{NodeId, RequestId};

    use super::*;

    #[test]
    fn a_fenced_node_says_what_is_damaged_and_what_happens_next() {
        let fenced = Fenced {
            because: "db/000012.log is damaged".to_owned(),
            node: NodeId(1),
            request: RequestId(2),
            since: "2027-01-15T08:00:00Z".to_owned(),
        };
        let said = refusal(&fenced, false).to_string();
        assert!(said.contains("fenced since 2027-01-15T08:00:00Z: db/000012.log is damaged"), "{said}");
        assert!(said.contains("comes back by itself"), "{said}");
        let said = refusal(&fenced, true).to_string();
        assert!(said.contains("restore a backup") && !said.contains("comes back"), "{said}");
    }
}
