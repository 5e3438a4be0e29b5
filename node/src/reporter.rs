//! Takes what this node saw to the API: the agent's facts, and the node's own status.
//!
//! Invariant: a report goes through the same pipeline as everybody's requests, as this node and no other.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use quorate_agent::{Agent, ReportError, Reporter};
use quorate_api::{Api, Caller};
use quorate_proto::{
    kinds::NODES,
    refusal::chain,
    request::{Answer, Fact, Request},
    txn::Document,
    world::{Clock, Random},
};
use tokio_util::sync::CancellationToken;

use crate::{
    loops::Snapshots,
    node::Own,
    node_status::{self, OwnState},
};

/// How long until the node's own status is told again if that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Reports as one node.
pub(crate) struct ApiReporter {
    api: Api,
    own: Caller,
    random: Arc<dyn Random>,
}

impl ApiReporter {
    /// As this node, to its own API: whoever leads commits it.
    #[must_use]
    pub(crate) const fn new(api: Api, own: Caller, random: Arc<dyn Random>) -> Self {
        Self { api, own, random }
    }
}

#[async_trait]
impl Reporter for ApiReporter {
    async fn report(&self, facts: Vec<Fact>) -> Result<(), ReportError> {
        let request = Request::Report { request: self.random.request_id(), facts };
        match self.api.handle(self.own.clone(), request).next().await {
            Some(Answer::Refused(refusal)) => Err(ReportError(refusal.into())),
            Some(_) | None => Ok(()),
        }
    }
}

/// Tells how this node is, whenever that differs from what its object says, until the token is cancelled.
pub(crate) async fn keep_own_status(
    own: &Own,
    mut snapshots: Snapshots,
    agent: &Agent,
    reporter: &dyn Reporter,
    clock: &dyn Clock,
    shutdown: &CancellationToken,
) {
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let (mut health, mut info) = (agent.health(), agent.info());
    let mut retry = None;
    snapshots.mark_changed();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = health.changed() => if changed.is_err() { return },
            changed = info.changed() => if changed.is_err() { return },
            () = pause(retry) => {}
        }
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let (trouble, known) = (health.borrow_and_update().clone(), info.borrow_and_update().clone());
        let Some(node) = snapshot.find(&NODES, None, &own.name) else { continue };
        let trouble = trouble.as_deref().or_else(|| known.is_none().then_some("the node is still starting"));
        let state = OwnState { hostname: &hostname, addresses: &own.addresses, info: known.as_ref(), trouble };
        retry = match node_status::patch(&node.object, &state, clock.wall()) {
            None => None,
            Some(status) => {
                let fact = Fact::Node { status: Document(Bytes::from(status.to_string())) };
                match reporter.report(vec![fact]).await {
                    Ok(()) => None,
                    Err(error) => {
                        tracing::debug!(error = %chain(&error), "the node's status was not told");
                        Some(RETRY)
                    }
                }
            }
        };
    }
}

async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
