use bytes::Bytes;
use quorate_proto::{
    branch::{Branch, Operation},
    ids::{NodeId, RequestId},
    key::Key,
    lease::LeaseId,
    query::Query,
    range::KeyRange,
    request::{Logs, Read, Reference, Selection, Shape},
    store::{MAX_LEASE, StoreRequest},
    txn::{Command, Document, Revision, Txn},
    watch::{WatchFrom, WatchSpec},
};
use serde_json::json;

use super::*;
use crate::testing::{CLUSTER, World, caller, document, node, pod, user};

/// One of every request. A new variant does not compile here before it has a place in the table below.
fn requests() -> Vec<Request> {
    let named = |request: &Request| match request {
        Request::Get { .. }
        | Request::List(_)
        | Request::Watch(_)
        | Request::WatchFrom { .. }
        | Request::Endpoints
        | Request::Apply { .. }
        | Request::Create { .. }
        | Request::Replace { .. }
        | Request::Patch { .. }
        | Request::Delete { .. }
        | Request::Scale { .. }
        | Request::Logs(_)
        | Request::Status
        | Request::CreateToken { .. }
        | Request::ListTokens
        | Request::RevokeToken { .. }
        | Request::Heartbeat { .. }
        | Request::Report { .. }
        | Request::Overview { .. }
        | Request::Leave { .. }
        | Request::Backup { .. }
        | Request::Store(_) => (),
    };
    let request = RequestId(1);
    let reference = Reference { kind: "pods".into(), namespace: None, name: "p".into() };
    let text = Document(Bytes::from_static(b"{}"));
    let selection = Selection {
        kind: "pods".into(),
        namespace: None,
        labels: String::new(),
        fields: String::new(),
        shape: Shape::Table,
        read: Read::Stale,
    };
    let logs = Logs {
        namespace: "default".into(),
        pod: "p".into(),
        container: None,
        follow: false,
        previous: false,
        tail: None,
        since_seconds: None,
        timestamps: false,
        forwarded: false,
    };
    let all = vec![
        Request::Get { object: reference.clone(), read: Read::Stale },
        Request::List(selection.clone()),
        Request::Watch(selection.clone()),
        Request::WatchFrom { selection, after: None },
        Request::Endpoints,
        Request::Apply { request, object: text.clone(), dry_run: false },
        Request::Create { request, object: text.clone(), dry_run: false },
        Request::Replace { request, object: text.clone(), dry_run: false },
        Request::Patch { request, object: reference.clone(), patch: text, dry_run: false },
        Request::Delete { request, object: reference.clone(), grace_seconds: None },
        Request::Scale { request, object: reference, replicas: 1 },
        Request::Logs(logs),
        Request::Status,
        Request::CreateToken { request, lifetime_seconds: 60, uses: 1 },
        Request::ListTokens,
        Request::RevokeToken { request, id: "t".into() },
        Request::Heartbeat { incarnation: 1 },
        Request::Report { request, facts: Vec::new() },
        Request::Overview { forwarded: false },
        Request::Leave { request, node: "n1".into() },
        Request::Backup { read: Read::Linearizable },
        Request::Store(StoreRequest::Watch(WatchSpec::new(users_keys(), WatchFrom::Now))),
    ];
    all.iter().for_each(named);
    all
}

fn name(request: &Request) -> String {
    let text = format!("{request:?}");
    text.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[test]
fn every_request_is_decided_for_users_and_for_nodes() {
    let world = World::new();
    let allowed = |caller: &Caller| {
        let requests = requests();
        let allowed = requests.iter().filter(|request| check(caller, request, &world.snapshot, CLUSTER).is_ok());
        allowed.map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        allowed(&user()),
        "Get List Watch WatchFrom Endpoints Apply Create Replace Patch Delete Scale Logs Status CreateToken ListTokens RevokeToken Overview Leave Backup Store"
    );
    assert_eq!(allowed(&caller(1)), "Get List Watch WatchFrom Endpoints Logs Status Heartbeat Report Overview");
}

#[test]
fn every_kind_is_decided_for_every_verb() {
    let verbs =
        [Verb::Read, Verb::Apply, Verb::Create, Verb::Replace, Verb::Patch, Verb::Delete, Verb::Scale, Verb::Leave];
    for kind in quorate_proto::kinds::KINDS {
        let subject = Subject::new(Verb::Read, kind, "x");
        let allowed: Vec<_> = verbs.into_iter().filter(|verb| kind_allows(*verb, kind, &subject).is_ok()).collect();
        let expected = match kind.access {
            Access::Full => verbs.to_vec(),
            Access::Adopted => vec![Verb::Read, Verb::Replace, Verb::Patch, Verb::Delete, Verb::Scale, Verb::Leave],
            Access::Observed | Access::Internal => vec![Verb::Read],
        };
        assert_eq!(allowed, expected, "{}", kind.plural);
    }
}

fn users_keys() -> KeyRange {
    KeyRange::prefix("/kv/bench/_/").unwrap()
}

/// One of each verb of the store and of each command, about a key, a range and a lease.
fn store_requests(key: &Key, range: &KeyRange, lease: LeaseId) -> Vec<(&'static str, StoreRequest)> {
    let request = RequestId(1);
    let document = || Document(Bytes::from_static(b"v"));
    let branch = |operation| {
        let branch = Branch::new().then(Operation::Branch(Branch::new().otherwise(operation)));
        StoreRequest::Execute(Command::Branch { request, branch })
    };
    let txn = Txn::new().create(key.clone(), document());
    let put = Operation::Put { key: key.clone(), document: document(), lease: Some(lease), previous: true };
    vec![
        ("query", StoreRequest::Query { read: Read::Stale, query: Query::new(range.clone()) }),
        ("watch", StoreRequest::Watch(WatchSpec::new(range.clone(), WatchFrom::After(Revision(1))))),
        ("apply", StoreRequest::Execute(Command::Apply { request, txn })),
        ("branch, put", branch(put)),
        ("branch, delete", branch(Operation::delete(range.clone()))),
        ("branch, query", branch(Operation::Query(Query::new(range.clone())))),
        ("grant", StoreRequest::Execute(Command::Grant { request, lease, ttl_seconds: 9 })),
        ("revoke", StoreRequest::Execute(Command::Revoke { request, lease, granted: None })),
        ("keep alive", StoreRequest::KeepAlive(lease)),
        ("time to live", StoreRequest::TimeToLive(lease)),
        ("compact", StoreRequest::Execute(Command::Compact { request, revision: Revision(1) })),
    ]
}

#[test]
fn the_stores_verbs_reach_what_users_keep_and_nothing_of_the_clusters() {
    let world = World::new();
    let allowed = |caller: &Caller, key: &Key, range: &KeyRange, lease: u64| {
        let requests = store_requests(key, range, LeaseId::new(lease).unwrap());
        let allowed = requests
            .into_iter()
            .filter(|(_, request)| check(caller, &Request::Store(request.clone()), &world.snapshot, CLUSTER).is_ok());
        allowed.map(|(name, _)| name).collect::<Vec<_>>().join("; ")
    };
    let (own, others) = (Key::parse("/kv/bench/_/a").unwrap(), Key::parse("/core/pods/default/p").unwrap());
    let all = "query; watch; apply; branch, put; branch, delete; branch, query; grant; revoke; keep alive; time to live; compact";
    assert_eq!(allowed(&user(), &own, &users_keys(), MAX_LEASE), all);
    assert_eq!(allowed(&user(), &others, &KeyRange::all(), MAX_LEASE + 1), "compact");
    assert_eq!(
        allowed(&user(), &own, &KeyRange::key(&others), MAX_LEASE),
        "apply; branch, put; grant; revoke; keep alive; time to live; compact"
    );
    assert_eq!(allowed(&caller(1), &own, &users_keys(), MAX_LEASE), "", "nodes have no keys of their own");
    let put = StoreRequest::Execute(Command::Apply { request: RequestId(1), txn: Txn::new().delete(others) });
    let refusal = check(&user(), &Request::Store(put), &world.snapshot, CLUSTER).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "error: the request of user `anna` was not done\n  because: the key `/core/pods/default/p` is not one of \
         `/kv/<bucket>/<namespace or _>/<name>`\n  hint: objects of the cluster are read and changed by kind and name"
    );
}

fn report(fact: Fact) -> Request {
    Request::Report { request: RequestId(1), facts: vec![fact] }
}

#[test]
fn a_node_speaks_for_the_pods_bound_to_it_and_for_no_others() {
    let mut world = World::new();
    world.put(node("n2", NodeId(2), "True"));
    let mut bound = pod("p");
    bound["metadata"]["namespace"] = json!("default");
    bound["metadata"]["uid"] = json!("u");
    bound["spec"]["nodeName"] = json!("n1");
    world.put(bound.clone());
    let may = |id: u128, fact: Fact| check(&caller(id), &report(fact), &world.snapshot, CLUSTER).is_ok();
    let gone = |uid: &str| Fact::Gone { namespace: "default".into(), name: "p".into(), uid: uid.into() };
    let status =
        Fact::Pod { namespace: "default".into(), name: "p".into(), uid: "u".into(), status: document(&json!({})) };
    assert!(may(1, gone("u")) && may(1, status.clone()));
    assert!(!may(2, gone("u")) && !may(2, status.clone()), "it is bound to n1");
    assert!(!may(3, gone("u")), "this node has no object");
    assert!(may(2, gone("other")), "that pod is gone: nobody's, and skipped");

    let event = |kind: &str, name: &str| Fact::Event {
        event: document(&json!({"involvedObject": {"kind": kind, "namespace": "default", "name": name, "uid": "u"}})),
    };
    assert!(may(1, event("Pod", "p")) && !may(2, event("Pod", "p")));
    assert!(may(1, event("Node", "n1")) && !may(2, event("Node", "n1")));
    assert!(!may(1, event("Deployment", "web")));
    let refusal = check(&caller(2), &report(status), &world.snapshot, CLUSTER).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "error: the request of node `n2` was not done\n  because: pod default/p is not bound to it"
    );
}

#[test]
fn a_node_is_known_by_its_id_in_this_cluster_and_not_by_its_name() {
    let mut world = World::new();
    assert_eq!(own_node(&caller(1), &world.snapshot, CLUSTER).map(Object::name), Some("n1"));
    assert_eq!(own_node(&caller(1), &world.snapshot, ClusterId(8)).map(Object::name), None);
    world.put(node("n1", NodeId(9), "True"));
    assert_eq!(own_node(&caller(1), &world.snapshot, CLUSTER).map(Object::name), None);
    assert_eq!(own_node(&user(), &world.snapshot, CLUSTER).map(Object::name), None);
}
