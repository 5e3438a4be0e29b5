//! Tells the leader once a second that this node lives. Never stored, never logged.
//!
//! Invariant: a heartbeat is sent to whoever leads now; none is queued for a leader that cannot be reached.

use std::{sync::Arc, time::Duration};

use quorate_proto::{
    ids::NodeId,
    request::{Answer, Request},
    wire::cap,
};
use quorate_raft::Store;
use tokio_util::sync::CancellationToken;

use crate::links::{self, LinkError, Links, Opening};

/// How often.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Sends heartbeats until the token is cancelled.
pub(crate) async fn keep(
    store: Store,
    links: Arc<dyn Links>,
    own: NodeId,
    incarnation: u64,
    hear: impl Fn(),
    shutdown: CancellationToken,
) {
    let status = store.status();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let leader = status.borrow().leader;
        match leader {
            None => {}
            Some(leader) if leader == own => hear(),
            Some(leader) => {
                let beat = tokio::time::timeout(EVERY, send(&*links, leader, incarnation));
                if let Some(Ok(Err(error))) = shutdown.run_until_cancelled(beat).await {
                    tracing::debug!(%error, %leader, "a heartbeat was not heard");
                }
            }
        }
    }
}

async fn send(links: &dyn Links, leader: NodeId, incarnation: u64) -> Result<(), LinkError> {
    let beat = Request::Heartbeat { incarnation };
    match links::ask(links, leader, Opening::Ask, &beat, cap::API).await? {
        Answer::Refused(refusal) => tracing::debug!(because = refusal.because, "a heartbeat was refused"),
        answer => tracing::trace!(?answer, "a heartbeat was heard"),
    }
    Ok(())
}
