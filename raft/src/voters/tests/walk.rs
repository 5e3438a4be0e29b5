//! Walks: nodes fail, return, join, leave and are deleted while the planner takes its steps; then the trouble ends, and it comes to rest.

use super::*;

/// What happens to a model of a cluster.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The leader plans and takes the step.
    Plan,
    Fail(usize),
    Heal(usize),
    Join(u8),
    /// A user has a node leave; whether it lives does not matter.
    Leave(usize),
    /// A user deletes a node that does not live.
    Delete(usize),
    Label(usize, bool),
    /// So many seconds pass.
    Pass(u16),
}

/// A cluster, as far as the planner knows clusters.
#[derive(Debug)]
struct Model {
    now: u64,
    leader: Option<NodeId>,
    /// When the leader began.
    since: u64,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    registered: BTreeMap<NodeId, Registered>,
    leaving: BTreeSet<NodeId>,
    /// Since when each node lives, or does not.
    alive: BTreeMap<NodeId, (bool, u64)>,
}

impl Model {
    fn new() -> Self {
        let first = NodeId(1);
        let mut model = Self {
            now: 0,
            leader: Some(first),
            since: 0,
            voters: [first].into(),
            learners: BTreeSet::new(),
            registered: BTreeMap::new(),
            leaving: BTreeSet::new(),
            alive: BTreeMap::new(),
        };
        model.join(0);
        model
    }

    fn join(&mut self, zone: u8) {
        let node = NodeId(self.alive.len() as u128 + 1);
        self.registered.insert(node, Registered { may_vote: true, zone: format!("z{zone}") });
        self.alive.insert(node, (true, self.now));
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.alive[&node].0
    }

    fn has_majority(&self, set: &BTreeSet<NodeId>) -> bool {
        set.iter().filter(|node| self.is_alive(**node)).count() * 2 > set.len()
    }

    fn view(&self, leader: NodeId) -> View {
        let health = |node: &NodeId| {
            let (alive, since) = self.alive[node];
            let time = Duration::from_secs(self.now - since.max(self.since));
            let health = match alive {
                true => Health { healthy_for: Some(time), ..STABLE },
                false => Health { silent_for: time, ..DEAD },
            };
            (*node, health)
        };
        let members = self.voters.iter().chain(&self.learners).filter(|node| **node != leader);
        View {
            leader,
            voters: vec![self.voters.clone()],
            learners: self.learners.clone(),
            health: members.map(health).collect(),
            delay: None,
            registered: self.registered.clone(),
            policy: Policy::default(),
        }
    }

    /// The voters elect, if they can and nobody leads.
    fn elect(&mut self) {
        let leads = |leader: &NodeId| self.is_alive(*leader) && self.voters.contains(leader);
        if !self.has_majority(&self.voters) {
            self.leader = None;
        } else if !self.leader.as_ref().is_some_and(leads) {
            self.leader = self.voters.iter().copied().find(|node| self.is_alive(*node));
            self.since = self.now;
        }
    }

    /// Takes the leader's next step; whether there was one.
    fn plan(&mut self) -> Result<bool, TestCaseError> {
        self.elect();
        let Some(leader) = self.leader else { return Ok(false) };
        let taken = step(&self.view(leader));
        match &taken {
            None => {}
            Some(Step::Finish) => prop_assert!(false, "nothing was begun"),
            Some(Step::AddLearner(node)) => prop_assert!(self.learners.insert(*node)),
            Some(Step::SetVoters(next)) => {
                prop_assert!(next.len() % 2 == 1, "{next:?}");
                prop_assert!(self.has_majority(&self.voters) && self.has_majority(next), "{self:?}");
                let members: BTreeSet<_> = self.voters.union(&self.learners).copied().collect();
                prop_assert!(next.is_subset(&members));
                self.learners = members.difference(next).copied().collect();
                self.voters.clone_from(next);
            }
            Some(Step::Remove(nodes)) => {
                prop_assert!(
                    nodes.is_subset(&self.learners) && !nodes.iter().any(|node| self.registered.contains_key(node))
                );
                self.learners.retain(|node| !nodes.contains(node));
            }
            Some(Step::Transfer(to)) => {
                prop_assert!(self.voters.contains(to) && self.is_alive(*to) && *to != leader);
                (self.leader, self.since) = (Some(*to), self.now);
            }
        }
        // Who has left the voters is gone from the cluster.
        let gone: Vec<_> = self.leaving.iter().copied().filter(|node| !self.voters.contains(node)).collect();
        for node in &gone {
            self.leaving.remove(node);
            self.registered.remove(node);
        }
        Ok(taken.is_some() || !gone.is_empty())
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        let nodes: Vec<NodeId> = self.registered.keys().copied().collect();
        let pick = |index: usize| nodes.get(index % nodes.len().max(1)).copied();
        match event {
            Event::Plan => drop(self.plan()?),
            Event::Pass(seconds) => self.now += u64::from(seconds),
            Event::Join(zone) if self.alive.len() < 12 => self.join(zone),
            Event::Join(_) => {}
            Event::Fail(index) | Event::Heal(index) => {
                let alive = matches!(event, Event::Heal(_));
                if let Some(node) = pick(index).filter(|node| self.is_alive(*node) != alive) {
                    self.alive.insert(node, (alive, self.now));
                }
            }
            // One node stays: a cluster without nodes is none.
            Event::Leave(index) => {
                if let Some(node) =
                    pick(index).filter(|node| nodes.len() - self.leaving.len() > 1 || self.leaving.contains(node))
                {
                    self.leaving.insert(node);
                    self.registered.get_mut(&node).unwrap().may_vote = false;
                }
            }
            Event::Delete(index) => {
                if let Some(node) = pick(index).filter(|node| !self.is_alive(*node)) {
                    self.registered.remove(&node);
                    self.leaving.remove(&node);
                }
            }
            Event::Label(index, may_vote) => {
                if let Some(node) = pick(index).filter(|node| !self.leaving.contains(node)) {
                    self.registered.get_mut(&node).unwrap().may_vote = may_vote;
                }
            }
        }
        self.elect();
        Ok(())
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Plan),
        3 => (1..400_u16).prop_map(Event::Pass),
        3 => (0..3_u8).prop_map(Event::Join),
        2 => any::<usize>().prop_map(Event::Fail),
        3 => any::<usize>().prop_map(Event::Heal),
        1 => any::<usize>().prop_map(Event::Leave),
        1 => any::<usize>().prop_map(Event::Delete),
        1 => any::<(usize, bool)>().prop_map(|(index, may_vote)| Event::Label(index, may_vote)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_voters_stay_odd_and_a_cluster_that_is_well_again_comes_to_rest(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut model = Model::new();
        for event in events {
            model.happen(event)?;
        }
        // Those that were deleted are gone for good, all others return.
        let registered: Vec<NodeId> = model.registered.keys().copied().collect();
        for node in &registered {
            if !model.is_alive(*node) {
                model.alive.insert(*node, (true, model.now));
            }
        }
        model.elect();
        if model.leader.is_none() {
            // Most voters were deleted while they were dead: only a person can help.
            return Ok(());
        }
        let mut steps = 0;
        loop {
            model.now += 400;
            if !model.plan()? {
                break;
            }
            steps += 1;
            prop_assert!(steps < 60, "it does not come to rest: {model:?}");
        }
        let eligible: BTreeSet<_> = model.registered.iter().filter(|(_, node)| node.may_vote).map(|(node, _)| *node).collect();
        prop_assert_eq!(&model.learners | &model.voters, &model.registered.keys().copied().collect() | &model.voters);
        if eligible.is_empty() {
            prop_assert_eq!(model.voters.len(), 1);
        } else {
            let size = eligible.len().min(5);
            prop_assert_eq!(model.voters.len(), size - usize::from(size % 2 == 0), "{:?}", &model);
            prop_assert!(model.voters.is_subset(&eligible), "{:?}", &model);
        }
    }
}
