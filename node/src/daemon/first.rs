//! What a store is told before anybody else may use it: a new cluster's first objects, or that it goes on without its former members.
//!
//! Invariant: each is done once, whatever interrupts it: the record says that it is still to be done until it was.

use std::time::Duration;

use quorate_proto::{ids::NodeId, refusal::Refusal, request::Read, txn::Outcome};
use quorate_raft::Store;

use super::{Daemon, NOT_STARTED, gave_up, not_started};
use crate::{
    adoption::{self, Heir},
    home::Record,
    registration::{self, Moment},
    replica,
};

/// How long a store that goes on alone may take to lead: many times what an election takes.
const ALONE: Duration = Duration::from_secs(60);

/// Puts a new cluster's first objects into the store, if that was not done yet.
pub(super) async fn found(daemon: &Daemon, record: &mut Record, node: NodeId, store: &Store) -> Result<(), Refusal> {
    let Some(secrets) = &record.founding else { return Ok(()) };
    store.initialize().await.map_err(|error| not_started(&error))?;
    let moment = Moment { wall: daemon.clock.wall(), random: &*daemon.random };
    let first = registration::found(&record.cluster, secrets, node, &record.name, &moment)?;
    match store.propose(daemon.random.request_id(), first.txn).await {
        Ok(Outcome::Applied(_)) => tracing::info!(cluster = %record.cluster.cluster_id, "a cluster was founded"),
        Ok(Outcome::Stale(_)) => tracing::info!("the cluster was founded before"),
        Err(error) => return Err(not_started(&error)),
    }
    record.founding = None;
    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))
}

/// Tells a store that goes on without its former members what that means for its objects, if that was not done yet.
pub(super) async fn adopt(daemon: &Daemon, record: &mut Record, node: NodeId, store: &Store) -> Result<(), Refusal> {
    let Some(adoption) = &record.adoption else { return Ok(()) };
    let mut status = store.status();
    let leads = status.wait_for(|status| status.leading);
    if tokio::time::timeout(ALONE, leads).await.is_err() {
        return Err(gave_up("its store goes on alone, and did not come to lead"));
    }
    let heir = Heir { settings: &record.cluster, node, name: &record.name, adoption };
    loop {
        store.read(Read::Linearizable).await.map_err(|error| not_started(&error))?;
        let snapshot = replica::load(store).map_err(|error| not_started(&error))?;
        let moment = Moment { wall: daemon.clock.wall(), random: &*daemon.random };
        let Some(txn) = adoption::next(&snapshot, &heir, &moment)? else { break };
        // A stale one was decided on what has changed since: it is decided anew.
        store.propose(daemon.random.request_id(), txn).await.map_err(|error| not_started(&error))?;
    }
    tracing::info!(epoch = %record.epoch, "the store goes on without its former members");
    record.adoption = None;
    daemon.home.remember(record).map_err(|error| error.refusal(NOT_STARTED))
}
