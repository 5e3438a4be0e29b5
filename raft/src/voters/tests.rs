//! What the planner does, and what it never does.

mod walk;

use proptest::prelude::*;

use super::*;

const STABLE: Health = healthy(60);
const FRESH: Health = healthy(1);
const QUIET: Health = silent(10);
const DEAD: Health = silent(600);

const fn healthy(seconds: u64) -> Health {
    Health { healthy_for: Some(Duration::from_secs(seconds)), silent_for: Duration::ZERO, lag: 0, delay: None }
}

const fn silent(seconds: u64) -> Health {
    Health { healthy_for: None, silent_for: Duration::from_secs(seconds), lag: 0, delay: None }
}

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
        delay: None,
        registered: ids(&all).into_iter().map(|node| (node, registered.clone())).collect(),
        policy: Policy::default(),
    }
}

/// The next step without its reasons.
fn step(view: &View) -> Option<Step> {
    plan(view).step.map(|(step, _)| step)
}

/// Why what waits does, as sentences.
fn waits(view: &View) -> Vec<String> {
    plan(view).waits.iter().map(|reason| reason.tell(name)).collect()
}

fn name(node: NodeId) -> String {
    format!("n{}", node.0)
}

#[test]
fn one_node_grows_to_three_at_once_and_never_to_two() {
    assert_eq!(step(&view(&[1], &[(2, STABLE)])), None);
    assert_eq!(step(&view(&[1], &[(2, STABLE), (3, FRESH)])), None);
    assert_eq!(step(&view(&[1], &[(2, STABLE), (3, STABLE)])), Some(Step::SetVoters(ids(&[1, 2, 3]))));
    let five = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE), (4, STABLE), (5, STABLE)]);
    assert_eq!(step(&five), Some(Step::SetVoters(ids(&[1, 2, 3, 4, 5]))));
}

#[test]
fn a_change_that_was_begun_is_ended_first() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE)]);
    view.voters.push(ids(&[1]));
    assert_eq!(step(&view), Some(Step::Finish));
}

#[test]
fn a_new_node_becomes_a_learner_and_one_that_left_is_removed() {
    let mut view = view(&[1], &[(2, FRESH)]);
    let registered = view.registered[&NodeId(1)].clone();
    view.registered.insert(NodeId(9), registered);
    assert_eq!(step(&view), Some(Step::AddLearner(NodeId(9))));
    view.registered.retain(|node, _| *node == NodeId(1));
    assert_eq!(step(&view), Some(Step::Remove(ids(&[2]))));
}

#[test]
fn a_voter_that_is_silent_stays_until_it_can_be_replaced() {
    assert_eq!(step(&view(&[1, 2, 3], &[(2, STABLE), (3, DEAD)])), None);
    assert_eq!(step(&view(&[1, 2, 3], &[(2, STABLE), (3, QUIET), (4, STABLE)])), None);
    let replaced = view(&[1, 2, 3], &[(2, STABLE), (3, DEAD), (4, STABLE)]);
    assert_eq!(step(&replaced), Some(Step::SetVoters(ids(&[1, 2, 4]))));
}

#[test]
fn nothing_is_changed_while_a_majority_is_not_healthy() {
    assert_eq!(step(&view(&[1, 2, 3], &[(2, DEAD), (3, DEAD), (4, STABLE), (5, STABLE)])), None);
}

#[test]
fn a_leader_that_is_to_leave_hands_over_first() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE)]);
    view.registered.insert(NodeId(1), Registered { may_vote: false, zone: String::new() });
    assert_eq!(step(&view), Some(Step::Transfer(NodeId(2))));
}

#[test]
fn voters_are_spread_over_zones() {
    let mut view = view(&[1], &[(2, STABLE), (3, STABLE), (4, STABLE)]);
    view.policy.max_voters = 3;
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        view.registered.insert(NodeId(node), Registered { may_vote: true, zone: zone.to_owned() });
    }
    assert_eq!(step(&view), Some(Step::SetVoters(ids(&[1, 3, 4]))));
}

#[test]
fn a_voter_that_is_deleted_leaves_and_no_second_voter_stays_alone_with_the_first() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, DEAD)]);
    view.registered.remove(&NodeId(3));
    assert_eq!(step(&view), Some(Step::SetVoters(ids(&[1]))));
    let told: Vec<_> = plan(&view).step.unwrap().1.iter().map(|reason| reason.tell(name)).collect();
    assert_eq!(told, ["n3 was deleted", "with n2 the number of voters would be even"]);
    view.voters = vec![ids(&[1])];
    view.learners = ids(&[2, 3]);
    assert_eq!(step(&view), Some(Step::Remove(ids(&[3]))));
}

#[test]
fn a_voter_that_is_deleted_makes_room_for_a_node_that_can_vote_soon() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, DEAD), (4, healthy(6))]);
    view.registered.remove(&NodeId(3));
    assert_eq!(step(&view), None, "three voters of which two live are better than one");
    assert_eq!(waits(&view), ["n4 may vote when it has been healthy for 24 s more", "n3 was deleted"]);
    view.health.insert(NodeId(4), STABLE);
    assert_eq!(step(&view), Some(Step::SetVoters(ids(&[1, 2, 4]))));
}

#[test]
fn of_five_voters_of_which_one_leaves_the_one_that_is_not_healthy_goes_too() {
    let mut view = view(&[1, 2, 3, 4, 5], &[(2, STABLE), (3, QUIET), (4, STABLE), (5, STABLE)]);
    view.registered.insert(NodeId(5), Registered { may_vote: false, zone: String::new() });
    assert_eq!(step(&view), Some(Step::SetVoters(ids(&[1, 2, 4]))));
}

#[test]
fn a_leader_that_leaves_hands_over_to_the_voter_that_is_least_behind_and_quickest() {
    let mut view = view(&[1, 2, 3, 4, 5], &[(2, QUIET), (3, STABLE), (4, STABLE), (5, STABLE)]);
    view.registered.insert(NodeId(1), Registered { may_vote: false, zone: String::new() });
    let health = |lag, millis| Health { lag, delay: Some(Duration::from_millis(millis)), ..STABLE };
    view.health.extend([(NodeId(3), health(4000, 1)), (NodeId(4), health(3, 90)), (NodeId(5), health(9, 5))]);
    assert_eq!(step(&view), Some(Step::Transfer(NodeId(5))));
    assert_eq!(heir(&view), Some(NodeId(5)));
}

#[test]
fn a_lone_voter_that_leaves_is_replaced_by_the_other_node_once_that_can_vote() {
    let mut view = view(&[1], &[(2, FRESH)]);
    view.registered.insert(NodeId(1), Registered { may_vote: false, zone: String::new() });
    assert_eq!(step(&view), None);
    assert_eq!(waits(&view)[0], "n1 is not to vote any more, but no other node has been healthy for long enough");
    view.health.insert(NodeId(2), STABLE);
    assert_eq!(step(&view), Some(Step::SetVoters(ids(&[2]))));
}

#[test]
fn quick_disks_vote_rather_than_slow_ones() {
    let health = |millis| Health { delay: Some(Duration::from_millis(millis)), ..STABLE };
    let view = view(&[1], &[(2, health(400)), (3, health(3)), (4, health(5))]);
    assert_eq!(
        step(&View { policy: Policy { max_voters: 3, ..view.policy }, ..view }),
        Some(Step::SetVoters(ids(&[1, 3, 4])))
    );
}

#[test]
fn a_leader_whose_own_disk_is_the_slow_one_hands_over_and_does_not_get_it_back() {
    let millis = |millis| Some(Duration::from_millis(millis));
    let health = |delay| Health { delay: millis(delay), ..STABLE };
    let slow = View { delay: millis(2000), ..view(&[1, 2, 3], &[(2, health(30)), (3, health(4))]) };
    assert_eq!(step(&slow), Some(Step::Transfer(NodeId(3))));
    let told: Vec<_> = plan(&slow).step.unwrap().1.iter().map(|reason| reason.tell(name)).collect();
    assert_eq!(told, ["entries take 2000 ms until they are on the disk of n1, and 4 ms with n3"]);
    // The others' disks are as slow, or this one is not slow enough to matter.
    assert_eq!(
        step(&View { health: [(NodeId(2), health(400)), (NodeId(3), health(300))].into(), ..slow.clone() }),
        None
    );
    assert_eq!(step(&View { delay: millis(90), ..slow.clone() }), None);
    let behind = Health { lag: 9000, healthy_for: None, ..health(4) };
    assert_eq!(step(&View { health: [(NodeId(2), behind), (NodeId(3), behind)].into(), ..slow }), None);
}

#[test]
fn a_vote_moves_to_a_zone_that_has_none_from_one_that_has_two() {
    let mut view = view(&[1, 2, 3], &[(2, STABLE), (3, STABLE), (4, STABLE)]);
    view.policy.max_voters = 3;
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        view.registered.insert(NodeId(node), Registered { may_vote: true, zone: zone.to_owned() });
    }
    assert_eq!(step(&view), Some(Step::SetVoters(ids(&[1, 3, 4]))));
    view.health.insert(NodeId(4), FRESH);
    assert_eq!(step(&view), None);
}

#[test]
fn whatever_waits_says_why() {
    let told = |view: View| waits(&view).join("; ");
    assert_eq!(told(view(&[1], &[(2, STABLE)])), "n2 could vote, but the number of voters stays odd: add a node");
    assert_eq!(
        told(view(&[1, 2, 3], &[(2, STABLE), (3, silent(290))])),
        "n3 is not healthy; its vote goes to another if that lasts 10 s more"
    );
    assert_eq!(
        told(view(&[1, 2, 3], &[(2, STABLE), (3, DEAD)])),
        "n3 was silent for too long, but no other node can vote in its place: delete it, or add a node"
    );
    assert_eq!(
        told(view(&[1, 2, 3], &[(2, DEAD), (3, DEAD)])),
        "only 1 of the 2 voters that are needed for a majority are healthy"
    );
}

#[test]
fn what_may_be_lost_is_said_in_a_sentence() {
    let told = |view: View| Tolerance::of(&view).tell(name);
    assert_eq!(told(view(&[1], &[])), "no loss of n1, the only voter: writes would stand still until it is back");
    assert_eq!(
        told(view(&[1], &[(2, STABLE)])),
        "no loss of n1, the only voter: writes would stand still until it is back; nodes that do not vote may be lost"
    );
    assert_eq!(told(view(&[1, 2, 3], &[(2, STABLE), (3, STABLE)])), "the loss of any one of the 3 voters");
    assert_eq!(
        told(view(&[1, 2, 3], &[(2, STABLE), (3, DEAD)])),
        "no loss of a voter: 2 of the 3 must be healthy, and no more are (n3 is not healthy)"
    );
    assert_eq!(
        told(view(&[1, 2, 3, 4, 5], &[(2, STABLE), (3, DEAD), (4, STABLE), (5, STABLE)])),
        "the loss of any other one of the 5 voters (n3 is not healthy)"
    );
    assert_eq!(
        told(view(&[1, 2, 3], &[(2, DEAD), (3, DEAD)])),
        "writes stand still: 2 of the 3 voters must be healthy (n2, n3 are not healthy)"
    );
    let mut changing = view(&[1, 2, 3], &[(2, STABLE), (3, DEAD)]);
    changing.voters.push(ids(&[1]));
    assert_eq!(Tolerance::of(&changing).voters, Some(0), "the set that can lose the fewest counts");
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![Just(STABLE), Just(FRESH), Just(QUIET), Just(DEAD)]
}

proptest! {
    #[test]
    fn leadership_that_was_handed_over_for_a_slow_disk_does_not_come_back(delays in prop::collection::vec(1..5000_u64, 3)) {
        let delay = |node: u64| Some(Duration::from_millis(delays[node as usize - 1]));
        let led_by = |leader: u64| {
            let others = (1..=3).filter(|node| *node != leader);
            let others: Vec<_> = others.map(|node| (node, Health { delay: delay(node), ..STABLE })).collect();
            View { leader: NodeId::from(leader), delay: delay(leader), ..view(&[1, 2, 3], &others) }
        };
        if let Some(Step::Transfer(to)) = step(&led_by(1)) {
            prop_assert_eq!(step(&led_by(u64::try_from(to.0).unwrap())), None);
        }
    }

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
        match step(&view) {
            Some(Step::SetVoters(next)) => {
                prop_assert!(next.len() % 2 == 1);
                prop_assert!(next != view.voters[0]);
                prop_assert!(majority(&next) && majority(&view.voters[0]));
                prop_assert!(next.iter().all(|node| view.registered[node].may_vote || *node == view.leader), "{next:?}");
            }
            Some(Step::Transfer(to)) => prop_assert!(view.voters[0].contains(&to) && to != view.leader && healthy(&to)),
            Some(other) => prop_assert!(false, "{:?}", other),
            None => {}
        }
    }
}
