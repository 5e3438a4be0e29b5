use quorate_proto::{ids::ClusterId, kinds::Kind, world::Random};

use super::*;
use crate::registration::register;

struct Counting(std::sync::atomic::AtomicU8);

impl Random for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

fn settings(cluster: u64) -> ClusterSettings {
    ClusterSettings {
        cluster_id: ClusterId::from(cluster),
        service_range: "10.213.0.0/16".parse().unwrap(),
        pod_range: "10.214.0.0/16".parse().unwrap(),
        zone: "cluster.local".to_owned(),
    }
}

fn at(second: i64) -> quorate_proto::world::Timestamp {
    quorate_proto::world::Timestamp::from_second(second).unwrap()
}

fn put(snapshot: &mut Snapshot, kind: &Kind, value: Value) {
    let object = Object::from_value(value).unwrap();
    let key = kind.key(object.namespace(), object.name()).unwrap();
    snapshot.commit(&Txn::new().put(key, object.to_document())).unwrap();
}

fn pod(name: &str, node: Option<&str>, owned: bool) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}")},
        "spec": {"containers": [{"name": "app", "image": "app"}]}, "status": {"phase": "Running", "podIP": "10.214.2.2"}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    if owned {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true});
        pod["metadata"]["ownerReferences"] = json!([owner]);
    }
    pod
}

/// Three members, pods on each and on none, two tokens, one of them used up.
fn lived() -> Snapshot {
    let random = Counting(0.into());
    let moment = Moment { wall: at(0), random: &random };
    let mut snapshot = Snapshot::default();
    let secrets = json!({"authority": {"certificate": "old", "sealedKey": "old"}});
    let founded = registration::found(&settings(7), &secrets, NodeId(1), "n1", &moment).unwrap();
    snapshot.commit(&founded.txn).unwrap();
    put(
        &mut snapshot,
        &JOINTOKENS,
        json!({"apiVersion": "quorate.dev/v1", "kind": "JoinToken", "metadata": {"name": "tok"},
        "spec": {"usesLeft": 9, "expires": "1970-01-01T01:00:00Z"}}),
    );
    for (id, name) in [(2, "n2"), (3, "n3")] {
        let candidate = Candidate { node: NodeId(id), wanted_name: name, token: "tok", request: name, addresses: &[] };
        snapshot.commit(&register(&snapshot, &settings(7), &candidate, &moment).unwrap().txn).unwrap();
    }
    put(&mut snapshot, &PODS, pod("web-1", Some("n1"), true));
    put(&mut snapshot, &PODS, pod("web-2", Some("n2"), true));
    put(&mut snapshot, &PODS, pod("bare-1", Some("n1"), false));
    put(&mut snapshot, &PODS, pod("bare-3", Some("n3"), false));
    put(&mut snapshot, &PODS, pod("waiting", None, true));
    snapshot
}

/// Does all there is to do; how many transactions that took.
fn adopt(snapshot: &mut Snapshot, heir: &Heir<'_>) -> usize {
    let random = Counting(100.into());
    let mut steps = 0;
    while let Some(txn) = next(snapshot, heir, &Moment { wall: at(60), random: &random }).unwrap() {
        assert!(txn.operations() <= MAX_OPERATIONS && txn.size() <= MAX_TXN);
        snapshot.commit(&txn).unwrap();
        steps += 1;
        assert!(steps < 100, "it goes on for ever");
    }
    steps
}

fn names(snapshot: &Snapshot, kind: &Kind) -> Vec<String> {
    snapshot.list(kind).map(|stored| stored.object.name().to_owned()).collect()
}

fn restored() -> Adoption {
    Adoption::Restored { secrets: json!({"authority": {"certificate": "new", "sealedKey": "new"}}) }
}

#[test]
fn a_restored_state_keeps_what_users_made_and_nothing_that_was_its_old_members() {
    let mut snapshot = lived();
    let (settings, adoption) = (settings(8), restored());
    let heir = Heir { settings: &settings, node: NodeId(9), name: "n2", adoption: &adoption };
    assert_eq!(left(&snapshot, &heir), Left { nodes: 3, pods: 2, unbound: 2, tokens: 1 });
    adopt(&mut snapshot, &heir);

    assert_eq!(names(&snapshot, &NODES), ["n2"]);
    assert_eq!(registration::name_of(&snapshot, NodeId(9)).as_deref(), Some("n2"));
    assert_eq!(names(&snapshot, &ADDRESSES), ["10.214.1.0-24"], "the range of the only node, and no other's");
    assert!(names(&snapshot, &JOINTOKENS).is_empty());
    assert_eq!(names(&snapshot, &PODS), ["bare-1", "bare-3", "waiting"]);
    for name in ["bare-1", "bare-3"] {
        let pod = &snapshot.find(&PODS, Some("default"), name).unwrap().object;
        assert_eq!((pod.text(&["spec", "nodeName"]), pod.at(&["status", "podIP"])), (None, None));
        assert_ne!(pod.uid(), format!("uid-of-{name}"), "it is another pod");
    }
    assert_eq!(ClusterSettings::read(&snapshot), Some(settings.clone()));
    let cluster = &snapshot.find(&CLUSTERS, None, CLUSTER).unwrap().object;
    assert_eq!(cluster.text(&["spec", "authority", "certificate"]), Some("new"));
    assert_eq!(left(&snapshot, &heir), Left::default());
}

#[test]
fn a_survivor_keeps_its_own_pods_its_tokens_and_its_authority() {
    let mut snapshot = lived();
    let settings = settings(7);
    let heir = Heir { settings: &settings, node: NodeId(1), name: "n1", adoption: &Adoption::Recovered };
    adopt(&mut snapshot, &heir);
    assert_eq!(names(&snapshot, &NODES), ["n1"]);
    assert_eq!(names(&snapshot, &PODS), ["bare-1", "bare-3", "waiting", "web-1"]);
    assert_eq!(names(&snapshot, &JOINTOKENS), ["tok"]);
    assert_eq!(names(&snapshot, &ADDRESSES), ["10.214.1.0-24"]);
    let node = |name| snapshot.find(&PODS, Some("default"), name).unwrap().object.text(&["spec", "nodeName"]);
    assert_eq!([node("bare-1"), node("bare-3"), node("web-1")], [Some("n1"), None, Some("n1")]);
    let cluster = &snapshot.find(&CLUSTERS, None, CLUSTER).unwrap().object;
    assert_eq!(cluster.text(&["spec", "authority", "certificate"]), Some("old"));
}

#[test]
fn an_adoption_that_was_interrupted_after_any_step_goes_on_where_it_stopped() {
    let (settings, adoption) = (settings(8), restored());
    let heir = Heir { settings: &settings, node: NodeId(9), name: "n1", adoption: &adoption };
    let mut whole = lived();
    let steps = adopt(&mut whole, &heir);
    for stop in 0..steps {
        let mut snapshot = lived();
        let random = Counting(50.into());
        for _ in 0..stop {
            let txn = next(&snapshot, &heir, &Moment { wall: at(60), random: &random }).unwrap().unwrap();
            snapshot.commit(&txn).unwrap();
        }
        assert_eq!(adopt(&mut snapshot, &heir), steps - stop);
        for kind in [&NODES, &PODS, &ADDRESSES, &JOINTOKENS] {
            assert_eq!(names(&snapshot, kind), names(&whole, kind), "after {stop} steps");
        }
    }
}

#[test]
fn many_pods_take_several_transactions_each_within_the_limits() {
    let mut snapshot = lived();
    for number in 0..200 {
        put(&mut snapshot, &PODS, pod(&format!("web-{number}"), Some("n3"), true));
    }
    let settings = settings(7);
    let heir = Heir { settings: &settings, node: NodeId(1), name: "n1", adoption: &Adoption::Recovered };
    assert!(adopt(&mut snapshot, &heir) > 3);
    assert!(stranded(&snapshot, &heir).next().is_none());
}
