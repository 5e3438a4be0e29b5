use std::collections::BTreeSet;

use futures_util::future::join_all;
use quorate_proto::{
    ids::NodeId,
    kinds::{ADDRESSES, CONFIGMAPS, PODS, SERVICES},
    request::{Selection, Shape},
    txn::Txn,
    wire,
};
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    Alone, Counter, Memory, Still, World, caller, config_map, document, pod, reference, service, settings, user,
};

fn api(memory: &Arc<Memory>) -> Api {
    Api::new(
        Arc::clone(memory) as _,
        Arc::new(Alone),
        Arc::new(Alone),
        Arc::new(Still),
        Arc::new(Counter::default()),
        settings(),
    )
}

fn memory() -> Arc<Memory> {
    Memory::new(World::new().snapshot)
}

async fn ask(api: &Api, caller: Caller, request: Request) -> Vec<Answer> {
    api.handle(caller, request).collect().await
}

fn apply(request: u128, object: &Value) -> Request {
    Request::Apply { request: RequestId(request), object: document(object), dry_run: false }
}

fn selection(kind: &str, shape: Shape) -> Selection {
    let (labels, fields) = (String::new(), String::new());
    Selection { kind: kind.to_owned(), namespace: None, labels, fields, shape, read: Read::Linearizable }
}

fn change(answers: &[Answer]) -> (ChangeKind, Object) {
    match answers {
        [Answer::Changed { change, object, .. }] => (*change, Object::from_document(object).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn refusal(answers: &[Answer]) -> &Refusal {
    match answers {
        [.., Answer::Refused(refusal)] => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_applied_can_be_read_at_the_revision_that_was_answered() {
    let memory = memory();
    let api = api(&memory);
    let (kind, object) = change(&ask(&api, user(), apply(1, &config_map("c", &json!({"a": "1"})))).await);
    assert_eq!(kind, ChangeKind::Created);
    let get = Request::Get { object: reference("cm", "c"), read: Read::Linearizable };
    let answers = ask(&api, user(), get).await;
    let [Answer::Objects { revision, objects }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(object.text(&["metadata", "resourceVersion"]), Some(revision.to_string().as_str()));
    assert_eq!(objects, &[object.to_document()]);
}

#[tokio::test]
async fn a_decision_that_came_back_stale_is_made_anew() {
    let memory = memory();
    let api = api(&memory);
    ask(&api, user(), apply(10, &config_map("c", &json!({"mine": "1"})))).await;
    let now = memory.now();
    let stored = now.find(&CONFIGMAPS, None, "c").unwrap();
    let mut theirs = stored.object.clone();
    theirs.set(&["data", "theirs"], "2");
    memory.meanwhile(Txn::new().update(stored.key.clone(), stored.modified, theirs.to_document()));
    let (kind, object) = change(&ask(&api, user(), apply(20, &config_map("c", &json!({"mine": "3"})))).await);
    assert_eq!(kind, ChangeKind::Configured);
    assert_eq!(object.at(&["data"]), Some(&json!({"mine": "3", "theirs": "2"})));
}

#[tokio::test]
async fn a_retry_with_the_same_id_gets_the_answer_of_the_first_try() {
    let memory = memory();
    let api = api(&memory);
    let create = Request::Create { request: RequestId(1 << 64), object: document(&service("web")), dry_run: false };
    let first = change(&ask(&api, user(), create.clone()).await);
    let revision = memory.now().revision();
    assert_eq!(change(&ask(&api, user(), create).await), first);
    assert_eq!(memory.now().revision(), revision);
    let other = Request::Create { request: RequestId(2 << 64), object: document(&service("web")), dry_run: false };
    assert_eq!(refusal(&ask(&api, user(), other).await).reason, Reason::AlreadyExists);
}

#[tokio::test]
async fn a_dry_run_answers_as_the_change_would_and_writes_nothing() {
    let memory = memory();
    let api = api(&memory);
    let before = memory.now().revision();
    let request = Request::Apply { request: RequestId(1), object: document(&service("web")), dry_run: true };
    let (kind, object) = change(&ask(&api, user(), request).await);
    assert_eq!((kind, memory.now().revision()), (ChangeKind::Created, before));
    assert!(object.text(&["spec", "clusterIP"]).is_some());
}

#[tokio::test]
async fn services_made_at_once_never_share_an_address() {
    let memory = memory();
    let api = api(&memory);
    let requests = (0..10_u128).map(|number| {
        // All draw the same address first: ids that differ only in bits that choose nothing.
        ask(&api, user(), apply((number + 1) << 8, &service(&format!("s{number}"))))
    });
    for answers in join_all(requests).await {
        assert_eq!(change(&answers).0, ChangeKind::Created);
    }
    let now = memory.now();
    let addresses: BTreeSet<_> =
        now.list(&SERVICES).filter_map(|stored| stored.object.text(&["spec", "clusterIP"])).collect();
    assert_eq!((addresses.len(), now.list(&ADDRESSES).count()), (10, 10));
}

#[tokio::test]
async fn a_long_list_comes_in_frames_that_fit() {
    let memory = memory();
    let api = api(&memory);
    let large = json!({"a": "x".repeat(400 << 10)});
    for number in 0..5_u128 {
        let object = document(&config_map(&format!("c{number}"), &large));
        let create = Request::Create { request: RequestId((number + 1) << 64), object, dry_run: false };
        change(&ask(&api, user(), create).await);
    }
    let answers = ask(&api, user(), Request::List(selection("cm", Shape::Objects))).await;
    let mut names = Vec::new();
    for answer in &answers {
        wire::frame(answer, wire::cap::API).unwrap();
        if let Answer::Objects { objects, .. } = answer {
            names.extend(objects.iter().map(|object| Object::from_document(object).unwrap().name().to_owned()));
        }
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);
    assert!(answers.len() > 3 && answers.last() == Some(&Answer::End));

    let empty = ask(&api, user(), Request::List(selection("svc", Shape::Table))).await;
    assert!(
        matches!(&empty[..], [Answer::Table(table), Answer::End] if !table.columns.is_empty() && table.rows.is_empty())
    );
}

#[tokio::test]
async fn selectors_that_are_none_are_refused_before_anything_is_read() {
    let api = api(&memory());
    for (labels, fields) in [("a in (", ""), ("", "spec.replicas=1")] {
        let selection = Selection { labels: labels.into(), fields: fields.into(), ..selection("cm", Shape::Objects) };
        for request in [Request::List(selection.clone()), Request::Watch(selection)] {
            let answers = ask(&api, user(), request).await;
            assert_eq!((refusal(&answers).reason, answers.len()), (Reason::BadRequest, 1));
        }
    }
}

#[tokio::test]
async fn logs_come_from_the_pods_node_and_a_user_cannot_keep_them_from_being_passed_on() {
    let memory = memory();
    let api = api(&memory);
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    ask(&api, user(), apply(1, &bound)).await;
    ask(&api, user(), apply(1 << 64, &pod("waiting"))).await;
    let logs = |pod: &str, container: Option<&str>, follow| {
        Request::Logs(Logs {
            namespace: "default".into(),
            pod: pod.into(),
            container: container.map(str::to_owned),
            follow,
            previous: false,
            tail: None,
            since_seconds: None,
            timestamps: false,
            forwarded: true,
        })
    };
    let answers = ask(&api, user(), logs("p", None, false)).await;
    assert_eq!(answers[0], Answer::Data("n1 web false\n".into()));
    assert!(
        matches!(&answers[1..], [Answer::Data(one), Answer::Data(two), Answer::End] if one.len() + two.len() == 100_000)
    );
    let answers = ask(&api, caller(2), logs("p", None, true)).await;
    assert_eq!(answers[0], Answer::Data("n1 web true\n".into()));
    assert_eq!(refusal(&answers).because, "the node went away", "nothing follows a refusal");
    assert_eq!(refusal(&ask(&api, user(), logs("p", Some("db"), false)).await).hint.as_deref(), Some("it has web"));
    assert_eq!(refusal(&ask(&api, user(), logs("waiting", None, false)).await).reason, Reason::Conflict);
    assert_eq!(refusal(&ask(&api, user(), logs("nope", None, false)).await).reason, Reason::NotFound);
}

#[tokio::test]
async fn a_report_gets_through_although_others_write_the_same_pods() {
    let memory = memory();
    let api = api(&memory);
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    let (_, object) = change(&ask(&api, user(), apply(1, &bound)).await);
    let now = memory.now();
    let stored = now.find(&PODS, None, "p").unwrap();
    let mut theirs = stored.object.clone();
    theirs.set(&["metadata", "labels", "theirs"], "1");
    memory.meanwhile(Txn::new().update(stored.key.clone(), stored.modified, theirs.to_document()));
    let status = document(&json!({"phase": "Running"}));
    let fact = Fact::Pod { namespace: "default".into(), name: "p".into(), uid: object.uid().to_owned(), status };
    let report = Request::Report { request: RequestId(5), facts: vec![fact] };
    assert_eq!(ask(&api, caller(1), report.clone()).await, [Answer::Done]);
    let after = memory.now();
    let after = &after.find(&PODS, None, "p").unwrap().object;
    assert_eq!((after.label("theirs"), after.text(&["status", "phase"])), (Some("1"), Some("Running")));
    assert_eq!(refusal(&ask(&api, user(), report).await).reason, Reason::Forbidden);
}

#[tokio::test]
async fn a_node_changes_nothing_by_request_and_may_say_that_it_lives() {
    let memory = memory();
    let api = api(&memory);
    let answers = ask(&api, caller(1), apply(1, &service("web"))).await;
    assert_eq!(refusal(&answers).reason, Reason::Forbidden);
    assert_eq!(ask(&api, caller(1), Request::Heartbeat { incarnation: 1 }).await, [Answer::Done]);
    assert_eq!(refusal(&ask(&api, user(), Request::Heartbeat { incarnation: 1 }).await).reason, Reason::Forbidden);
    let unnamed = Caller::Node { id: NodeId(77), name: None };
    let report = Request::Report { request: RequestId(1), facts: vec![Fact::Node { status: document(&json!({})) }] };
    assert_eq!(
        ask(&api, unnamed, report).await,
        [Answer::Done],
        "a node without an object is heard and changes nothing"
    );
}
