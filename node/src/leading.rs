//! What the leader does while it leads: decides what should be next and proposes it; keeps the voters in order.
//!
//! Losing the lead ends both. What was decided under an older lead is refused by its compares.
//!
//! Invariant: nothing is decided before the store is known to be led by this node and this node's snapshot has caught up with that.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use quorate_api::Desired as _;
use quorate_control::{Decision, Moment, Settings};
use quorate_proto::{
    refusal::{Refusal, chain},
    request::Read,
    snapshot::Snapshot,
    txn::{Outcome, Txn},
    world::{Clock, Instant, Random},
};
use quorate_raft::{Status, Store};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{desired::Agreed, heard::Heard, loops, loops::Nudge, loops::Snapshots, voters::Planner};

/// How long until a decision that could not be proposed is made anew.
const RETRY: Duration = Duration::from_millis(500);

/// How many proposals are under way at once. They share fsyncs.
const IN_FLIGHT: usize = 64;

/// What leading needs.
#[derive(Clone)]
pub(crate) struct Leading {
    /// The agreed state.
    pub store: Store,
    /// This node's view of it.
    pub agreed: Agreed,
    /// The newest of it.
    pub snapshots: Snapshots,
    /// Who lives.
    pub heard: Arc<Heard>,
    /// Is nudged when a node is heard again.
    pub returned: Nudge,
    /// Plans who votes.
    pub planner: Planner,
    /// The bounds of decisions.
    pub settings: Settings,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Names and uids.
    pub random: Arc<dyn Random>,
}

impl Leading {
    /// Leads whenever the store says that this node does, until the token is cancelled.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let mut status = self.store.status();
        loop {
            if !becomes(&mut status, true, &shutdown).await {
                return;
            }
            let end = shutdown.child_token();
            let terms = TaskTracker::new();
            terms.spawn(self.clone().decide(end.clone()));
            terms.spawn(self.planner.clone().keep(end.clone()));
            terms.close();
            let lost = becomes(&mut status, false, &shutdown).await;
            end.cancel();
            terms.wait().await;
            if !lost {
                return;
            }
            tracing::info!("this node no longer leads");
        }
    }

    async fn decide(self, end: CancellationToken) {
        let since = self.clock.now();
        if let Err(refusal) = self.caught_up(&end).await {
            tracing::warn!(
                because = refusal.because,
                "leading could not begin; it is tried again when the lead is confirmed"
            );
            return;
        }
        tracing::info!("this node leads");
        let (snapshots, returned, clock) = (self.snapshots.clone(), self.returned.listen(), Arc::clone(&self.clock));
        let leading = Arc::new(self);
        let pass = move |snapshot: Arc<Snapshot>| {
            let leading = Arc::clone(&leading);
            async move { leading.pass(&snapshot, since).await }
        };
        loops::run(snapshots, returned, clock, end, pass).await;
    }

    /// Waits until this node's snapshot holds everything that was agreed before it began to lead.
    async fn caught_up(&self, end: &CancellationToken) -> Result<(), Refusal> {
        loop {
            match self.agreed.snapshot(Read::Linearizable).await {
                Ok(_) => return Ok(()),
                Err(refusal) if end.is_cancelled() => return Err(refusal),
                Err(refusal) => tracing::debug!(because = refusal.because, "the lead is not confirmed yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn pass(&self, snapshot: &Snapshot, since: Instant) -> Option<Instant> {
        let Decision { operations, wake_at, reasons } = {
            let heard = self.heard.last();
            let known = quorate_control::Snapshot {
                objects: snapshot,
                heard: &heard,
                leading_since: since,
                settings: &self.settings,
            };
            let moment = Moment { now: self.clock.now(), wall: self.clock.wall(), random: &*self.random };
            quorate_control::decide(&known, &moment)
        };
        for (key, reason) in &reasons {
            tracing::debug!(%key, reason, "waits");
        }
        if operations.is_empty() {
            return wake_at;
        }
        let all_proposed = stream::iter(operations)
            .map(|txn| self.propose(txn))
            .buffer_unordered(IN_FLIGHT)
            .fold(true, async |all, proposed| all && proposed)
            .await;
        if all_proposed { wake_at } else { Some(self.clock.now() + RETRY) }
    }

    /// Proposes one operation; a stale one is no failure: what made it so is a change, and wakes the loop.
    async fn propose(&self, txn: Txn) -> bool {
        match self.store.propose(self.random.request_id(), txn).await {
            Ok(Outcome::Applied(revision)) => tracing::debug!(%revision, "decided"),
            Ok(Outcome::Stale(key)) => tracing::debug!(%key, "a decision was stale"),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "a decision could not be proposed");
                return false;
            }
        }
        true
    }
}

/// Waits until this node leads, or no longer does; `false` if it stops before.
async fn becomes(status: &mut watch::Receiver<Status>, leading: bool, shutdown: &CancellationToken) -> bool {
    let change = status.wait_for(|status| status.leading == leading);
    matches!(shutdown.run_until_cancelled(change).await, Some(Ok(_)))
}
