//! Chooses the set of voters that is wanted now, and the step towards it.
//!
//! Invariant: a set that was chosen is chosen again, as long as nothing else changes: the planner comes to rest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use quorate_proto::ids::NodeId;

use super::{Plan, Reason, Step, View, heir_among, odd, slowness};

/// The set of voters as it is being changed, why, and what waits.
struct Choice<'v> {
    view: &'v View,
    /// Who votes now.
    voters: &'v BTreeSet<NodeId>,
    /// Who is to vote.
    next: BTreeSet<NodeId>,
    /// Learners that may become voters now.
    candidates: BTreeSet<NodeId>,
    reasons: Vec<Reason>,
    waits: Vec<Reason>,
}

/// The step that is due among the voters.
pub(super) fn choose(view: &View, voters: &BTreeSet<NodeId>) -> Plan {
    let needed = voters.len() / 2 + 1;
    if !view.has_majority(voters) {
        let wait = Reason::NoMajority { healthy: view.healthy(voters), needed };
        return Plan { step: None, waits: vec![wait] };
    }
    let mut choice = Choice::new(view, voters);
    if let Some(step) = choice.succeed() {
        return Plan { step: Some((step, choice.reasons)), waits: choice.waits };
    }
    choice.replace_silent();
    choice.grow();
    choice.spread();
    let whole = choice.make_odd();
    let Choice { next, mut reasons, mut waits, .. } = choice;
    if next == *voters || !whole {
        waits.extend(reasons.into_iter().filter(|reason| !matches!(reason, Reason::Surplus(_))));
        return Plan { step: None, waits };
    }
    if !view.has_majority(&next) {
        waits.push(Reason::NoMajority { healthy: view.healthy(&next), needed: next.len() / 2 + 1 });
        waits.extend(reasons);
        return Plan { step: None, waits };
    }
    reasons.extend(next.difference(voters).copied().filter(|_| voters.len() < next.len()).map(Reason::Grows));
    Plan { step: Some((Step::SetVoters(next), reasons)), waits }
}

impl<'v> Choice<'v> {
    fn new(view: &'v View, voters: &'v BTreeSet<NodeId>) -> Self {
        let (next, leaving): (BTreeSet<_>, BTreeSet<_>) = voters.iter().partition(|node| view.may_vote(**node));
        let reason = |node: NodeId| match view.registered.contains_key(&node) {
            true => Reason::Excused(node),
            false => Reason::Deleted(node),
        };
        let learners = view.learners.iter().copied().filter(|node| view.may_vote(*node));
        let stable = |node: &NodeId| view.health(*node).healthy_for.is_some_and(|time| time >= view.policy.stable);
        Self {
            view,
            voters,
            next,
            candidates: learners.filter(stable).collect(),
            reasons: leaving.into_iter().map(reason).collect(),
            waits: Vec::new(),
        }
    }

    /// Hands leadership over if the leader is to vote no longer; a leader is never taken away while another could lead first.
    fn succeed(&mut self) -> Option<Step> {
        if self.next.contains(&self.view.leader) {
            return None;
        }
        let heir = heir_among(self.view, self.next.iter().copied());
        if let Some(heir) = heir {
            return Some(Step::Transfer(heir));
        }
        if self.candidates.is_empty() {
            // A cluster whose every voter leaves keeps the one it has.
            self.next.insert(self.view.leader);
            self.waits.push(Reason::NoSuccessor(self.view.leader));
            self.waits.append(&mut self.reasons);
        }
        None
    }

    /// Gives the places of voters that were silent for too long to others.
    fn replace_silent(&mut self) {
        let silent: Vec<_> = self.next.iter().copied().filter(|node| *node != self.view.leader).collect();
        for node in silent {
            let quiet = self.view.health(node);
            if quiet.healthy_for.is_some() {
                continue;
            }
            if quiet.silent_for < self.view.policy.silent {
                self.waits
                    .push(Reason::Silent { node, left: self.view.policy.silent.saturating_sub(quiet.silent_for) });
            } else if let Some(by) = self.take_best() {
                self.next.remove(&node);
                self.next.insert(by);
                self.reasons.push(Reason::Replaced { node, by });
            } else {
                self.waits.push(Reason::NoReplacement(node));
            }
        }
    }

    /// Lets more vote, as many as may and are stable; an odd number in all.
    fn grow(&mut self) {
        let most = odd(self.view.policy.max_voters.max(1));
        let room = most.saturating_sub(self.next.len()).min(self.candidates.len());
        let added = if (self.next.len() + room).is_multiple_of(2) { room.saturating_sub(1) } else { room };
        for _ in 0..added {
            let best = self.take_best();
            self.next.extend(best);
        }
        if self.next.len() < most {
            self.waits.extend(self.emerging());
            let spare = self.candidates.iter().copied().map(Reason::Spare);
            self.waits.extend(spare.filter(|_| !self.next.len().is_multiple_of(2)));
        }
    }

    /// Moves one vote from a zone that has at least two more of them than another in which somebody could vote.
    fn spread(&mut self) {
        if self.next != *self.voters {
            return;
        }
        let crowd = self.crowds();
        let crowded = |node: &NodeId| crowd.get(self.view.zone(*node)).copied().unwrap_or_default();
        let Some(by) =
            self.candidates.iter().copied().filter(|node| !self.view.zone(*node).is_empty()).min_by_key(crowded)
        else {
            return;
        };
        let movable =
            self.next.iter().copied().filter(|node| *node != self.view.leader && !self.view.zone(*node).is_empty());
        let Some(node) = movable.max_by_key(|node| (crowded(node), Reverse(self.view.is_healthy(*node)), *node)) else {
            return;
        };
        if crowded(&node) >= crowded(&by) + 2 {
            self.next.remove(&node);
            self.next.insert(by);
            self.reasons.push(Reason::Spread { node, by, zone: self.view.zone(by).to_owned() });
        }
    }

    /// Sees to it that the number of voters is odd; `false` if it is better to wait for somebody who can vote soon.
    ///
    /// Who is not healthy goes first, then who would be new, then who is in the most crowded zone, then the slowest; never the leader.
    fn make_odd(&mut self) -> bool {
        if !self.next.len().is_multiple_of(2) {
            return true;
        }
        if self.emerging().next().is_some() {
            return false;
        }
        let crowd = self.crowds();
        let rank = |node: &NodeId| {
            let crowded = crowd.get(self.view.zone(*node)).copied().unwrap_or_default();
            let slowness = slowness(self.view.health(*node));
            (self.view.is_healthy(*node), self.voters.contains(node), Reverse((crowded, slowness)), Reverse(*node))
        };
        let out = self.next.iter().copied().filter(|node| *node != self.view.leader).min_by_key(rank);
        let Some(out) = out else { return false };
        self.next.remove(&out);
        if self.voters.contains(&out) {
            self.reasons.push(Reason::Surplus(out));
        }
        true
    }

    /// Learners that will be stable soon, and when.
    fn emerging(&self) -> impl Iterator<Item = Reason> + use<'v> {
        let (view, next) = (self.view, self.next.clone());
        let learners = view.learners.iter().copied().filter(move |node| view.may_vote(*node) && !next.contains(node));
        learners.filter_map(|node| {
            let left = view.policy.stable.checked_sub(view.health(node).healthy_for?)?;
            (!left.is_zero()).then_some(Reason::Unstable { node, left })
        })
    }

    /// How many are to vote in each zone.
    fn crowds(&self) -> BTreeMap<&'v str, usize> {
        let mut crowds = BTreeMap::new();
        for node in &self.next {
            *crowds.entry(self.view.zone(*node)).or_default() += 1;
        }
        crowds
    }

    /// The candidate whose zone has the fewest voters, the quickest and then the longest healthy of those.
    fn take_best(&mut self) -> Option<NodeId> {
        let crowd = self.crowds();
        let rank = |node: &NodeId| {
            let health = self.view.health(*node);
            let crowded = crowd.get(self.view.zone(*node)).copied().unwrap_or_default();
            (crowded, slowness(health), Reverse(health.healthy_for), *node)
        };
        let best = self.candidates.iter().copied().min_by_key(rank)?;
        self.candidates.remove(&best);
        Some(best)
    }
}
