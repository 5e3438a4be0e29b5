//! What the planner does, and what it never does.

use proptest::prelude::*;

use super::*;

const STABLE: Health = Health { healthy_for: Some(Duration::from_secs(60)), silent_for: Duration::ZERO };
const FRESH: Health = Health { healthy_for: Some(Duration::from_secs(1)), silent_for: Duration::ZERO };
const QUIET: Health = Health { healthy_for: None, silent_for: Duration::from_secs(10) };
const DEAD: Health = Health { healthy_for: None, silent_for: Duration::from_secs(600) };

fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId::from).collect()
}

/// Node 1 leads; all are registered, in one zone.
fn view(voters: &[u64], others: &[(u64, Health)]) -> View {
    let learners = others.iter().map(|(node, _)| *node).filter(|node| !voters.contains(node)).collect::<Vec<_>>();
    let all = voters.iter().chain(&learners).copied().collect::<Vec<_>>();
    let registered = Registered { may_vote: true, zone: String::new() };
    View {
        leader: NodeId(1),
        voters: vec![ids(voters)],
        learners: ids(&learners),
        health: others.iter().map(|(node, health)| (NodeId::from(*node), *health)).collect(),
        registered: ids(&all).into_iter().map(|node| (node, registered.clone())).collect(),
        policy: Policy::default(),
    }
}

#[test]
fn one_node_grows_to_three_at_once_and_never_to_two() {
    assert_eq!(plan(&view(&[1], &[(2, STABLE)])), None);
    assert_eq!(plan(&view(&[1], &[(2, STABLE), (3, FRESH)])), None);
    assert_eq!(plan(&view(&[1], &[(2, STABLE), (3, STABLE)])), Some(Step::SetVoters(ids(&[1, 2, 3]))));
    let five = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE), (4, STABLE), (5, STABLE)]);
    assert_eq!(plan(&five), Some(Step::SetVoters(ids(&[1, 2, 3, 4, 5]))));
}

#[test]
fn a_change_that_was_begun_is_ended_first() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE)]);
    view.voters.push(ids(&[1]));
    assert_eq!(plan(&view), Some(Step::Finish));
}

#[test]
fn a_new_node_becomes_a_learner_and_one_that_left_is_removed() {
    let mut view = view(&[1], &[(2, FRESH)]);
    let registered = view.registered[&NodeId(1)].clone();
    view.registered.insert(NodeId(9), registered);
    assert_eq!(plan(&view), Some(Step::AddLearner(NodeId(9))));
    view.registered.retain(|node, _| *node == NodeId(1));
    assert_eq!(plan(&view), Some(Step::Remove(ids(&[2]))));
}

#[test]
fn a_voter_that_is_silent_stays_until_it_can_be_replaced() {
    assert_eq!(plan(&view(&[1, 2, 3], &[(2, STABLE), (3, DEAD)])), None);
    assert_eq!(plan(&view(&[1, 2, 3], &[(2, STABLE), (3, QUIET), (4, STABLE)])), None);
    let replaced = view(&[1, 2, 3], &[(2, STABLE), (3, DEAD), (4, STABLE)]);
    assert_eq!(plan(&replaced), Some(Step::SetVoters(ids(&[1, 2, 4]))));
}

#[test]
fn nothing_is_changed_while_a_majority_is_not_healthy() {
    assert_eq!(plan(&view(&[1, 2, 3], &[(2, DEAD), (3, DEAD), (4, STABLE), (5, STABLE)])), None);
}

#[test]
fn a_leader_that_is_to_leave_hands_over_first() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE)]);
    view.registered.insert(NodeId(1), Registered { may_vote: false, zone: String::new() });
    assert_eq!(plan(&view), Some(Step::Transfer(NodeId(2))));
}

#[test]
fn voters_are_spread_over_zones() {
    let mut view = view(&[1], &[(2, STABLE), (3, STABLE), (4, STABLE)]);
    view.policy.max_voters = 3;
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        view.registered.insert(NodeId(node), Registered { may_vote: true, zone: zone.to_owned() });
    }
    assert_eq!(plan(&view), Some(Step::SetVoters(ids(&[1, 3, 4]))));
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![Just(STABLE), Just(FRESH), Just(QUIET), Just(DEAD)]
}

proptest! {
    #[test]
    fn no_step_makes_voters_even_or_loses_a_majority(
        voters in prop_oneof![Just(1_u64), Just(3), Just(5), Just(7)],
        healths in prop::collection::vec(health(), 9),
        may in prop::collection::vec(any::<bool>(), 10),
        zones in prop::collection::vec(0..3_u8, 10),
        max_voters in 1..9_usize,
    ) {
        let others: Vec<_> = (2..).zip(healths).collect();
        let mut view = view(&(1..=voters).collect::<Vec<_>>(), &others);
        view.policy.max_voters = max_voters;
        for ((registered, may_vote), zone) in view.registered.values_mut().zip(may).zip(zones) {
            *registered = Registered { may_vote, zone: zone.to_string() };
        }
        let healthy = |node: &NodeId| *node == view.leader || view.health[node].healthy_for.is_some();
        let majority = |set: &BTreeSet<NodeId>| set.iter().filter(|node| healthy(node)).count() * 2 > set.len();
        match plan(&view) {
            Some(Step::SetVoters(next)) => {
                prop_assert!(next.len() % 2 == 1);
                prop_assert!(next.contains(&view.leader));
                prop_assert!(next != view.voters[0]);
                prop_assert!(majority(&next) && majority(&view.voters[0]));
                // What was done is not done again, nor undone.
                let mut after = view.clone();
                let everyone: BTreeSet<NodeId> = view.voters[0].union(&view.learners).copied().collect();
                after.learners = everyone.difference(&next).copied().collect();
                after.voters = vec![next];
                let leader_leaves = !view.registered[&view.leader].may_vote;
                let then = plan(&after);
                prop_assert!(then.is_none() || leader_leaves && matches!(then, Some(Step::Transfer(_))), "{then:?}");
            }
            Some(Step::Transfer(to)) => prop_assert!(view.voters[0].contains(&to) && to != view.leader && healthy(&to)),
            Some(other) => prop_assert!(false, "{:?}", other),
            None => {}
        }
    }
}
