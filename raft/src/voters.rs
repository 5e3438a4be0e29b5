//! Plans who votes (D4): 1, 3, 5 or 7 of the nodes, never 2.
//!
//! The leader asks again and again, and takes one step at a time. Each step carries what it was decided on, so that two leaders who plan
//! at once do no harm. Who votes changes only by an order (a node was deleted, leaves, or is labelled so) or for the better (another can
//! take the place of one that is silent, or of one in a crowded zone); a cordon is no such order, since whoever is cordoned comes back.
//!
//! Invariant: no step leaves an even number of voters, and none is taken unless a majority of the voters before and of those after is
//! healthy now. Voters are never taken away because they are silent: they are replaced, or they stay.

mod choose;
mod reason;
mod tolerance;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_proto::ids::NodeId;

pub use self::{reason::Reason, tolerance::Tolerance};

/// How the leader judges a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The most voters: 1, 3, 5 or 7. Even numbers count as the next smaller odd one.
    pub max_voters: usize,
    /// A node must have been healthy for so long before it becomes a voter.
    pub stable: Duration,
    /// A voter that was not heard for so long is replaced.
    pub silent: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_voters: 5, stable: Duration::from_secs(30), silent: Duration::from_secs(300) }
    }
}

impl Policy {
    /// How many voters there will be when all of so many nodes may vote and are healthy.
    #[must_use]
    pub fn voters(&self, nodes: usize) -> usize {
        odd(self.max_voters.min(nodes).max(1))
    }
}

/// What the leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Since when it is healthy: heard lately, and its log not far behind. `None`: it is not.
    pub healthy_for: Option<Duration>,
    /// For how long it was not heard.
    pub silent_for: Duration,
    /// By how many entries its log is behind the leader's.
    pub lag: u64,
    /// How long it takes, of late, until it has entries on its disk and says so; `None`: not measured.
    pub delay: Option<Duration>,
}

/// A node that belongs to the cluster, by its node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Whether it may vote: not while it leaves, or is labelled otherwise.
    pub may_vote: bool,
    /// Its zone: voters are spread over them. Empty if it has none.
    pub zone: String,
}

/// What a plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The leader, who plans.
    pub leader: NodeId,
    /// The voters: one set, or two while they change.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Members that do not vote.
    pub learners: BTreeSet<NodeId>,
    /// What is known of the other members.
    pub health: BTreeMap<NodeId, Health>,
    /// How long the leader itself takes, of late, until entries are on its disk; `None`: not measured.
    pub delay: Option<Duration>,
    /// All nodes of the cluster.
    pub registered: BTreeMap<NodeId, Registered>,
    /// How to judge them.
    pub policy: Policy,
}

/// One change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ends a change that was begun.
    Finish,
    /// A node receives the log, without a vote.
    AddLearner(NodeId),
    /// These vote from now on; who no longer does becomes a learner.
    SetVoters(BTreeSet<NodeId>),
    /// Learners leave the cluster.
    Remove(BTreeSet<NodeId>),
    /// Another voter is to lead.
    Transfer(NodeId),
}

/// What is to be done, and why what is not done waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The next step, and the reasons for it.
    pub step: Option<(Step, Vec<Reason>)>,
    /// What waits, and for what.
    pub waits: Vec<Reason>,
}

impl Plan {
    fn step(step: Step, reason: Reason) -> Self {
        Self { step: Some((step, vec![reason])), waits: Vec::new() }
    }
}

/// The next step, if there is one to take.
#[must_use]
pub fn plan(view: &View) -> Plan {
    let [voters] = view.voters.as_slice() else { return Plan::step(Step::Finish, Reason::Unfinished) };
    let member = |node: &NodeId| voters.contains(node) || view.learners.contains(node);
    if let Some(node) = view.registered.keys().find(|node| !member(node)) {
        return Plan::step(Step::AddLearner(*node), Reason::Joined(*node));
    }
    let plan = relieve(view).unwrap_or_else(|| choose::choose(view, voters));
    let gone: BTreeSet<NodeId> =
        view.learners.iter().filter(|node| !view.registered.contains_key(node)).copied().collect();
    if plan.step.is_some() || gone.is_empty() {
        return plan;
    }
    let reasons = gone.iter().copied().map(Reason::Deleted).collect();
    Plan { step: Some((Step::Remove(gone), reasons)), waits: plan.waits }
}

/// A leader's disk is slow if entries take so long, and several times as long as with the voter that could lead instead.
const SLOW: Duration = Duration::from_millis(100);
const TIMES_SLOWER: u32 = 8;

/// Hands leadership over if the leader's own disk is the slow one. The two bounds lie so far apart that it does not come back by itself.
fn relieve(view: &View) -> Option<Plan> {
    let own = view.delay.filter(|delay| *delay >= SLOW)?;
    let heir = heir(view)?;
    let its = view.health(heir).delay?;
    let reason = || Reason::SlowDisk { node: view.leader, own, heir, its };
    (view.may_vote(heir) && own >= its * TIMES_SLOWER).then(|| Plan::step(Step::Transfer(heir), reason()))
}

/// The voter that is to lead instead of the leader: the one whose log is the least behind, the quickest of those. `None`: nobody can.
#[must_use]
pub fn heir(view: &View) -> Option<NodeId> {
    let mut sets = view.voters.iter();
    let everywhere = sets.next()?.iter().copied().filter(|node| view.voters.iter().all(|set| set.contains(node)));
    heir_among(view, everywhere)
}

fn heir_among(view: &View, nodes: impl Iterator<Item = NodeId>) -> Option<NodeId> {
    let able = nodes.filter(|node| *node != view.leader && view.is_healthy(*node));
    // Lengths of logs that differ by less change while one looks.
    let rank = |node: &NodeId| (view.health(*node).lag / 32, slowness(view.health(*node)), *node);
    able.min_by_key(rank)
}

/// For an order by speed: who was not measured comes last. Delays that differ by a few milliseconds are the same.
fn slowness(health: Health) -> u128 {
    health.delay.map_or(u128::MAX, |delay| delay.as_millis() / 8)
}

impl View {
    fn health(&self, node: NodeId) -> Health {
        self.health.get(&node).copied().unwrap_or_default()
    }

    fn may_vote(&self, node: NodeId) -> bool {
        self.registered.get(&node).is_some_and(|registered| registered.may_vote)
    }

    fn is_healthy(&self, node: NodeId) -> bool {
        node == self.leader || self.health(node).healthy_for.is_some()
    }

    /// How many of a set are healthy.
    fn healthy(&self, set: &BTreeSet<NodeId>) -> usize {
        set.iter().filter(|node| self.is_healthy(**node)).count()
    }

    fn has_majority(&self, set: &BTreeSet<NodeId>) -> bool {
        self.healthy(set) * 2 > set.len()
    }

    fn zone(&self, node: NodeId) -> &str {
        self.registered.get(&node).map_or("", |registered| registered.zone.as_str())
    }
}

/// The largest odd number that is not larger; at least 1.
const fn odd(number: usize) -> usize {
    if number.is_multiple_of(2) { number.saturating_sub(1) } else { number }
}

#[cfg(test)]
mod tests;
