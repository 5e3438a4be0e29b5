//! Plans who votes (D4): 1, 3, 5 or 7 of the nodes, never 2.
//!
//! The leader asks again and again, and takes one step at a time. Each step carries what it was decided on, so that two leaders who plan
//! at once do no harm.
//!
//! Invariant: no step leaves an even number of voters, and none is taken unless a majority of the voters before and of those after is
//! healthy now. Voters are never taken away because they are silent: they are replaced, or they stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_proto::ids::NodeId;

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
}

/// A node that belongs to the cluster, by its node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Whether it may vote: not while it is drained, or labelled otherwise.
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

/// The next step, if there is one to take.
#[must_use]
pub fn plan(view: &View) -> Option<Step> {
    let [voters] = view.voters.as_slice() else { return Some(Step::Finish) };
    let member = |node: &NodeId| voters.contains(node) || view.learners.contains(node);
    if let Some(node) = view.registered.keys().find(|node| !member(node)) {
        return Some(Step::AddLearner(*node));
    }
    if let Some(step) = choose(view, voters) {
        return Some(step);
    }
    let gone: BTreeSet<NodeId> =
        view.learners.iter().filter(|node| !view.registered.contains_key(node)).copied().collect();
    if gone.is_empty() { None } else { Some(Step::Remove(gone)) }
}

fn choose(view: &View, voters: &BTreeSet<NodeId>) -> Option<Step> {
    let may_vote = |node: &NodeId| view.registered.get(node).is_some_and(|registered| registered.may_vote);
    let healthy = |node: &NodeId| *node == view.leader || view.health(*node).healthy_for.is_some();
    let dead = |node: &NodeId| *node != view.leader && view.health(*node).silent_for >= view.policy.silent;
    let majority = |set: &BTreeSet<NodeId>| set.iter().filter(|node| healthy(node)).count() * 2 > set.len();
    if !majority(voters) {
        return None;
    }

    let mut next: BTreeSet<NodeId> = voters.iter().filter(|node| may_vote(node)).copied().collect();
    if !next.contains(&view.leader) {
        // Never the leader in the same step: it hands over first. A cluster whose every voter leaves keeps the one it has.
        let heir = next.iter().find(|node| healthy(node)).copied();
        match heir {
            Some(heir) => return Some(Step::Transfer(heir)),
            None => next.insert(view.leader),
        };
    }
    let mut candidates: Vec<NodeId> = view
        .learners
        .iter()
        .filter(|node| may_vote(node))
        .filter(|node| view.health(**node).healthy_for.is_some_and(|time| time >= view.policy.stable))
        .copied()
        .collect();

    for silent in voters.iter().filter(|node| dead(node)) {
        if next.contains(silent)
            && let Some(best) = take_best(view, &next, &mut candidates)
        {
            next.remove(silent);
            next.insert(best);
        }
    }
    let room = odd(view.policy.max_voters.max(1)).saturating_sub(next.len()).min(candidates.len());
    let added = if (next.len() + room).is_multiple_of(2) { room.saturating_sub(1) } else { room };
    for _ in 0..added {
        next.extend(take_best(view, &next, &mut candidates));
    }
    if next.len().is_multiple_of(2) {
        // Someone leaves and nobody can take the place: whoever is not healthy goes too, then whoever was added last; the leader never.
        let rank = |node: &&NodeId| (healthy(node), voters.contains(node));
        let out = *next.iter().filter(|node| **node != view.leader).min_by_key(rank)?;
        next.remove(&out);
    }
    if next == *voters || !majority(&next) { None } else { Some(Step::SetVoters(next)) }
}

/// The candidate whose zone has the fewest voters, the longest healthy of those.
fn take_best(view: &View, voters: &BTreeSet<NodeId>, candidates: &mut Vec<NodeId>) -> Option<NodeId> {
    let zone = |node: &NodeId| view.registered.get(node).map_or("", |registered| registered.zone.as_str());
    let crowd = |node: &NodeId| voters.iter().filter(|voter| zone(voter) == zone(node)).count();
    let best = candidates
        .iter()
        .copied()
        .min_by_key(|node| (crowd(node), std::cmp::Reverse(view.health(*node).healthy_for), *node))?;
    candidates.retain(|node| *node != best);
    Some(best)
}

impl View {
    fn health(&self, node: NodeId) -> Health {
        self.health.get(&node).copied().unwrap_or_default()
    }
}

/// The largest odd number that is not larger; at least 1.
const fn odd(number: usize) -> usize {
    if number.is_multiple_of(2) { number.saturating_sub(1) } else { number }
}

#[cfg(test)]
mod tests;
