//! Membership: what a plan is made from, and the taking of its steps.
//!
//! Invariant: a step is taken on the membership and by the leader it was planned with, or refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use openraft::{ChangeMembers, EmptyNode, Precondition, async_runtime::watch::WatchReceiver, errors::RaftError};
use quorate_proto::ids::NodeId;
use thiserror::Error;
use tokio::time::timeout;

use super::Store;
use crate::voters::{Policy, Registered, Step, View};

/// Why a membership step was not taken.
#[derive(Debug, Error)]
pub enum StepError {
    /// This node does not lead, or something else changed meanwhile: plan anew.
    #[error("the step is refused: {0}")]
    Refused(String),
    /// The store was shut down, or has failed.
    #[error("the store has stopped")]
    Stopped,
}

impl Store {
    /// What [`plan`](crate::voters::plan) decides on; `None` on a node that does not lead.
    #[must_use]
    pub fn view(&self, registered: BTreeMap<NodeId, Registered>, policy: Policy) -> Option<View> {
        if !self.inner.status.borrow().leading {
            return None;
        }
        let membership = Arc::clone(&self.inner.metrics.borrow_watched().membership_config);
        Some(View {
            leader: self.inner.node,
            voters: membership.get_joint_config().clone(),
            learners: membership.membership().learner_ids().collect(),
            health: self.inner.health.lock().unwrap_or_else(PoisonError::into_inner).report(&self.inner.delays),
            delay: self.inner.own_delay.now(),
            registered,
            policy,
        })
    }

    /// Takes one step that was planned on `view`. A step that was planned on something older is refused.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn step(&self, view: &View, step: Step) -> Result<(), StepError> {
        let (vote, membership) = {
            let metrics = self.inner.metrics.borrow_watched();
            (metrics.vote, Arc::clone(&metrics.membership_config))
        };
        if *membership.get_joint_config() != view.voters {
            return Err(StepError::Refused("the voters have changed since".to_owned()));
        }
        if !vote.committed || vote.leader_id.node_id != self.inner.node {
            return Err(StepError::Refused("this node does not lead".to_owned()));
        }
        let change = match step {
            Step::Transfer(to) => return self.transfer(to).await,
            Step::Finish => ChangeMembers::AddVoterIds(BTreeSet::new()),
            Step::AddLearner(node) => ChangeMembers::AddNodes(BTreeMap::from([(node, EmptyNode {})])),
            Step::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            Step::Remove(nodes) => ChangeMembers::RemoveNodes(nodes),
        };
        let preconditions = [
            Precondition::CommittedLeaderId { committed_leader_id: vote.leader_id },
            Precondition::LastMembershipLogId { last_membership_log_id: *membership.log_id() },
        ];
        match self.inner.raft.change_membership_if(change, true, preconditions).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(StepError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(StepError::Stopped),
        }
    }

    /// Hands leadership to another voter, and waits until someone else leads.
    ///
    /// # Errors
    /// If it is no voter, or the voters are just being changed; and if nobody took over within an election.
    pub async fn transfer(&self, to: NodeId) -> Result<(), StepError> {
        // A leader that hands over sends no heartbeats any more. If it turns out to be the only voter, nobody else ever will.
        let voters = Arc::clone(&self.inner.metrics.borrow_watched().membership_config);
        if voters.membership().get_joint_config().len() > 1 || !voters.voter_ids().any(|voter| voter == to) {
            return Err(StepError::Refused(format!("{to} is no voter, or may soon be none")));
        }
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|_| StepError::Stopped)?;
        let mut status = self.inner.status.clone();
        let (node, patience) = (self.inner.node, self.inner.timing.patience());
        let taken =
            timeout(patience, status.wait_for(|status| status.leader.is_some_and(|leader| leader != node))).await;
        match taken {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StepError::Stopped),
            Err(_) => Err(StepError::Refused("nobody took over".to_owned())),
        }
    }
}
