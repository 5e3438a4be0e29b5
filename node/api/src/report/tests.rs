use quorate_proto::kinds::EVENTS;

use super::*;
use crate::testing::{CLUSTER, Counter, World, caller, document, pod, wall};

fn bound(name: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["namespace"] = json!("default");
    pod["metadata"]["uid"] = json!(format!("uid-{name}"));
    pod["spec"]["nodeName"] = json!("n1");
    pod["status"] = json!({"phase": "Pending"});
    pod
}

fn status(name: &str, status: &Value) -> Fact {
    Fact::Pod { namespace: "default".into(), name: name.into(), uid: format!("uid-{name}"), status: document(status) }
}

fn gone(name: &str) -> Fact {
    Fact::Gone { namespace: "default".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn event(name: &str, reason: &str) -> Fact {
    let involved = json!({"kind": "Pod", "namespace": "default", "name": name, "uid": format!("uid-{name}")});
    let event = json!({"involvedObject": involved, "type": "Normal", "reason": reason, "message": "it was so"});
    Fact::Event { event: document(&event) }
}

/// Takes a report in; the number of transactions it took.
fn take(world: &mut World, facts: &[Fact]) -> usize {
    let (random, caller) = (Counter::default(), caller(1));
    let mut rest = facts;
    let mut txns = 0;
    while !rest.is_empty() {
        let reporter = Reporter { caller: &caller, cluster: CLUSTER, wall: wall(), random: &random };
        let batch = plan(rest, &world.snapshot, reporter).unwrap();
        assert!(batch.taken > 0 && batch.txn.operations() <= quorate_proto::txn::MAX_OPERATIONS);
        assert!(batch.txn.size() <= MAX_TXN);
        if !batch.txn.writes.is_empty() {
            world.snapshot.commit(&batch.txn).unwrap();
            txns += 1;
        }
        rest = &rest[batch.taken..];
    }
    txns
}

#[test]
fn a_phase_moves_forward_and_readiness_both_ways() {
    let mut world = World::new();
    world.put(bound("p"));
    let phase = |world: &World| world.get("pod", "p").unwrap().text(&["status", "phase"]).unwrap().to_owned();
    let ready = |ready: &str| json!([{"type": "Ready", "status": ready}]);
    take(&mut world, &[status("p", &json!({"phase": "Running", "conditions": ready("True")}))]);
    assert_eq!(phase(&world), "Running");
    take(&mut world, &[status("p", &json!({"phase": "Pending", "conditions": ready("False")}))]);
    assert_eq!(phase(&world), "Running");
    assert!(!world.get("pod", "p").unwrap().is_true("Ready"));
    take(
        &mut world,
        &[status("p", &json!({"phase": "Failed"})), status("p", &json!({"phase": "Running", "podIP": "10.0.0.1"}))],
    );
    assert_eq!(phase(&world), "Failed");
    assert_eq!(world.get("pod", "p").unwrap().at(&["status", "podIP"]), None, "told too late");
}

#[test]
fn the_same_report_again_writes_nothing() {
    let mut world = World::new();
    world.put(bound("p"));
    let facts = [status("p", &json!({"phase": "Running"})), Fact::Node { status: document(&json!({"a": 1})) }];
    assert_eq!(take(&mut world, &facts), 1);
    assert_eq!(take(&mut world, &facts), 0);
    assert_eq!(world.get("node", "n1").unwrap().at(&["status", "a"]), Some(&json!(1)));
}

#[test]
fn a_pod_is_gone_only_if_it_was_to_be_deleted_and_is_the_same_one() {
    let mut world = World::new();
    world.put(bound("p"));
    take(&mut world, &[gone("p")]);
    assert!(world.get("pod", "p").is_some(), "nobody asked for its deletion");
    world.delete("pod", "p", None).unwrap();
    let other = Fact::Gone { namespace: "default".into(), name: "p".into(), uid: "other".into() };
    take(&mut world, &[other]);
    assert!(world.get("pod", "p").is_some());
    take(&mut world, &[gone("p"), status("p", &json!({"phase": "Running"}))]);
    assert_eq!(world.get("pod", "p"), None);
}

#[test]
fn a_pod_with_finalizers_goes_when_its_node_and_they_are_done() {
    let mut world = World::new();
    let mut manifest = bound("p");
    manifest["metadata"]["finalizers"] = json!(["example.com/a"]);
    world.put(manifest);
    world.delete("pod", "p", None).unwrap();
    take(&mut world, &[gone("p")]);
    assert!(world.get("pod", "p").is_some());
    world.patch("pod", "p", &json!({"metadata": {"finalizers": null}})).unwrap();
    assert_eq!(world.get("pod", "p"), None);
}

#[test]
fn a_repeated_event_is_counted_and_not_written_again() {
    let mut world = World::new();
    world.put(bound("p"));
    take(&mut world, &[event("p", "BackOff"), event("p", "Started"), event("p", "BackOff")]);
    take(&mut world, &[event("p", "BackOff")]);
    let mut seen: Vec<_> = world
        .snapshot
        .list(&EVENTS)
        .map(|stored| {
            (stored.object.text(&["reason"]).unwrap().to_owned(), stored.object.at(&["count"]).unwrap().clone())
        })
        .collect();
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(seen, [("BackOff".to_owned(), json!(3)), ("Started".to_owned(), json!(1))]);
    let stored = world.snapshot.list(&EVENTS).next().unwrap();
    assert!(stored.object.name().starts_with("p."));
    assert_eq!(stored.object.text(&["lastTimestamp"]), Some("2027-01-15T08:00:00Z"));
}

#[test]
fn many_facts_take_few_transactions_within_the_limits() {
    let mut world = World::new();
    let names: Vec<_> = (0..150).map(|number| format!("p{number}")).collect();
    for name in &names {
        world.put(bound(name));
    }
    let facts: Vec<_> = names.iter().map(|name| status(name, &json!({"phase": "Running"}))).collect();
    assert_eq!(take(&mut world, &facts), 3);

    let large = json!({"phase": "Running", "message": "x".repeat(600 << 10)});
    let facts: Vec<_> = names.iter().take(4).map(|name| status(name, &large)).collect();
    assert_eq!(take(&mut world, &facts), 2);
}

#[test]
fn what_is_no_status_or_event_is_refused() {
    let world = World::new();
    let (random, caller) = (Counter::default(), caller(1));
    let because = |fact: Fact| {
        let reporter = Reporter { caller: &caller, cluster: CLUSTER, wall: wall(), random: &random };
        plan(&[fact], &world.snapshot, reporter).unwrap_err().because
    };
    assert_eq!(because(status("p", &json!([1]))), "a status is a map");
    assert_eq!(
        because(Fact::Event { event: document(&json!({})) }),
        "an event lacks `involvedObject.name` or `reason`"
    );
    assert!(
        because(Fact::Node { status: Document(bytes::Bytes::from_static(b"{")) }).starts_with("a status is not JSON")
    );
    let large = json!({"message": "x".repeat(MAX_TXN)});
    assert_eq!(
        because(Fact::Node { status: document(&large) }),
        "a status has 1572878 bytes, the limit is 1572864 (1.5 MiB)"
    );
}
