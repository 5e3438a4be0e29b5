//! What the verbs that change or follow something print: every message, with its exit code.

use std::sync::Arc;

use clap::{CommandFactory as _, Parser as _};
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{Answer, ChangeKind, EventKind, Request, TokenInfo},
};
use serde_json::{Value, json};

use super::{apply, cordon, delete, describe, events, get, leave, logs, scale, status, token};
use crate::{
    args::{Arguments, Cluster, Verb},
    client::tests::Recorded,
    session::tests::{document, not_found, objects, run as run_in, table},
};

pub(super) type Answers = Vec<Result<Vec<Answer>, Refusal>>;

/// What a command line prints, given what it reads from standard input and what the cluster answers.
pub(super) async fn typed(line: &str, stdin: &str, answers: Answers) -> String {
    asked(&Recorded::new(answers), line, stdin).await
}

/// The same, of a cluster that was made before.
async fn asked(recorded: &Arc<Recorded>, line: &str, stdin: &str) -> String {
    let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
    let printed = run_in(recorded, async |session| {
        session.named_namespace = arguments.global.namespace;
        match arguments.verb {
            Verb::Apply(arguments) => apply::run(session, arguments, &mut stdin.as_bytes()).await,
            Verb::Delete(arguments) => delete::run(session, arguments, &mut stdin.as_bytes()).await,
            Verb::Scale(arguments) => scale::run(session, arguments).await,
            Verb::Logs(arguments) => logs::run(session, arguments).await,
            Verb::Events(arguments) => events::run(session, arguments).await,
            Verb::Get(arguments) => get::run(session, arguments).await,
            Verb::Describe(arguments) => describe::run(session, arguments).await,
            Verb::Cordon(nodes) => cordon::cordon(session, nodes).await,
            Verb::Uncordon(nodes) => cordon::uncordon(session, nodes).await,
            Verb::Status { output } | Verb::Cluster(Cluster::Status { output }) => status::run(session, output).await,
            Verb::Leave(arguments) => leave::run(session, arguments).await,
            Verb::Token(arguments) => token::run(session, arguments).await,
            _ => panic!("another verb"),
        }
    })
    .await;
    format!("$ {line}\n{printed}")
}

fn web() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}}})
}

fn changed(change: ChangeKind, object: &Value) -> Result<Vec<Answer>, Refusal> {
    Ok(vec![Answer::Changed { change, object: document(object), warnings: Vec::new() }])
}

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: shop\ndata:\n  greeting: hello\n";

#[tokio::test(start_paused = true)]
async fn apply_says_what_became_of_every_object() {
    let shop = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop", "namespace": "default"}});
    let invalid = Refusal::new(Reason::Invalid, "configmap/shop was not applied", "`metadata.name` is too long")
        .hint("at most 253 characters");
    let no_quorum = Refusal::new(Reason::Unavailable, "configmap/shop was not applied", "there is no leader");
    insta::assert_snapshot!(
        [
            typed("quorate apply -f -", CONFIG_MAP, vec![changed(ChangeKind::Created, &shop)]).await,
            typed("quorate apply -f -", CONFIG_MAP, vec![changed(ChangeKind::Configured, &shop)]).await,
            typed("quorate apply -f - --dry-run", CONFIG_MAP, vec![changed(ChangeKind::Unchanged, &shop)]).await,
            typed("quorate apply -f -", CONFIG_MAP, vec![Ok(vec![Answer::Refused(invalid)])]).await,
            typed("quorate apply -f -", CONFIG_MAP, vec![Err(no_quorum); 20]).await,
            typed(
                "quorate apply -f - -n other",
                &CONFIG_MAP.replace("name: shop", "name: shop\n  namespace: mine"),
                vec![]
            )
            .await,
            typed("quorate apply -f -", &CONFIG_MAP.replace("\ndata:", "\ndate:"), vec![]).await,
            typed("quorate apply -f -", "", vec![]).await,
            typed("quorate apply -f /nowhere/web.yaml", "", vec![]).await,
            typed("quorate apply -f -", &"#".repeat(2 << 20), vec![]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn objects_are_applied_in_the_order_in_which_they_need_each_other() {
    let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n";
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n";
    let text = format!("{service}---\n{CONFIG_MAP}---\n{namespace}");
    let recorded = Recorded::new(vec![changed(ChangeKind::Created, &web()); 3]);
    let Verb::Apply(arguments) = Arguments::try_parse_from(["quorate", "apply", "-f", "-"]).unwrap().verb else {
        panic!()
    };
    run_in(&recorded, async |session| apply::run(session, arguments, &mut text.as_bytes()).await).await;
    let kinds: Vec<_> = recorded
        .requests()
        .into_iter()
        .map(|request| match request {
            Request::Apply { object, .. } => crate::output::read(&object).unwrap().kind().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["Namespace", "ConfigMap", "Service"]);
}

#[tokio::test(start_paused = true)]
async fn delete_waits_until_what_it_deleted_is_gone() {
    let gone = || Ok(vec![Answer::Refused(not_found("deployment.apps/web"))]);
    let there = || Ok(vec![objects(&[web()])]);
    let mut another = web();
    another["metadata"]["uid"] = json!("u2");
    insta::assert_snapshot!(
        [
            typed(
                "quorate delete deploy web",
                "",
                vec![changed(ChangeKind::Deleted, &web()), there(), there(), gone()]
            )
            .await,
            typed(
                "quorate delete deploy web",
                "",
                vec![changed(ChangeKind::Deleted, &web()), Ok(vec![objects(&[another])])]
            )
            .await,
            typed("quorate delete deploy web --wait=false", "", vec![changed(ChangeKind::Deleted, &web())]).await,
            typed(
                "quorate delete deploy web --timeout 1s",
                "",
                [vec![changed(ChangeKind::Deleted, &web())], vec![there(); 9]].concat()
            )
            .await,
            typed("quorate delete deploy web", "", vec![gone()]).await,
            typed("quorate delete deploy web --ignore-not-found", "", vec![gone()]).await,
            typed("quorate delete deploy", "", vec![]).await,
            typed("quorate delete -f - --wait=false", CONFIG_MAP, vec![changed(ChangeKind::Deleted, &web())]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn scale_and_cordon_say_what_they_did() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let missing = Ok(vec![Answer::Refused(not_found("node/n9"))]);
    insta::assert_snapshot!(
        [
            typed("quorate scale deploy/web --replicas 5", "", vec![changed(ChangeKind::Configured, &web())]).await,
            typed("quorate scale deploy --replicas 5", "", vec![]).await,
            typed("quorate cordon n1 n9", "", vec![changed(ChangeKind::Configured, &node), missing]).await,
            typed("quorate cordon n1", "", vec![changed(ChangeKind::Unchanged, &node)]).await,
            typed("quorate uncordon n1", "", vec![changed(ChangeKind::Configured, &node)]).await,
            typed("quorate uncordon n1", "", vec![changed(ChangeKind::Unchanged, &node)]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn cordon_changes_nothing_but_whether_pods_may_come() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    for (line, patch) in [
        ("quorate cordon n1", r#"{"spec":{"unschedulable":true}}"#),
        ("quorate uncordon n1", r#"{"spec":{"unschedulable":null}}"#),
    ] {
        let recorded = Recorded::new(vec![changed(ChangeKind::Configured, &node)]);
        asked(&recorded, line, "").await;
        let [Request::Patch { object, patch: sent, dry_run: false, .. }] = &recorded.requests()[..] else {
            panic!("something else was asked")
        };
        assert_eq!((object.name.as_str(), &object.namespace, sent.0.as_ref()), ("n1", &None, patch.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_of_simulated_pods_says_so_once() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}});
    let rows = || Ok(vec![table(&["NAME", "READY"], &[&["a", "1/1"]]), Answer::End]);
    let list = || Ok(vec![objects(std::slice::from_ref(&pod)), Answer::End]);
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a.1", "namespace": "default"},
        "reason": "Started", "lastTimestamp": "2027-01-01T11:59:50Z", "involvedObject": {"kind": "Pod", "name": "a"}});
    let events = || Ok(vec![objects(std::slice::from_ref(&event)), Answer::End]);
    let none = || Ok(vec![objects(&[]), Answer::End]);
    let told = Ok(vec![Answer::Event { kind: EventKind::Added, object: document(&event) }, Answer::End]);
    let mut printed = Vec::new();
    for (line, answers) in [
        ("quorate get pods", vec![rows()]),
        ("quorate get pods,svc", vec![rows(), rows()]),
        ("quorate get pods -w", vec![rows()]),
        ("quorate get pods -o name", vec![list()]),
        ("quorate describe pods", vec![list(), none()]),
        ("quorate events", vec![events()]),
        ("quorate events -w", vec![told]),
    ] {
        let said = asked(&Recorded::new(answers.clone()).simulated(), line, "").await;
        let noted = said.lines().filter(|line| *line == "[stderr] note: pods of this cluster are simulated").count();
        assert_eq!(noted, 1, "{said}");
        let real = asked(&Recorded::new(answers), line, "").await;
        assert!(!real.contains("simulated"), "{real}");
        printed.push(said);
    }
    insta::assert_snapshot!(printed[0]);
}

#[tokio::test(start_paused = true)]
async fn events_are_shown_oldest_first() {
    let event = |name: &str, reason: &str, last: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{name}.{reason}"), "namespace": "default"},
            "type": "Normal", "reason": reason, "message": format!("{reason} it"), "lastTimestamp": last,
            "involvedObject": {"kind": "Pod", "name": name, "namespace": "default"}})
    };
    let both =
        || vec![event("web-1", "Started", "2027-01-01T11:59:50Z"), event("web-2", "Pulled", "2027-01-01T11:00:00Z")];
    let list = || Ok(vec![objects(&both()), Answer::End]);
    let mut watched: Vec<_> =
        both().iter().map(|event| Answer::Event { kind: EventKind::Added, object: document(event) }).collect();
    watched.push(Answer::End);
    insta::assert_snapshot!(
        [
            typed("quorate events", "", vec![list()]).await,
            typed("quorate events --for pod/web-1 -A", "", vec![list()]).await,
            typed("quorate events -w", "", vec![Ok(watched)]).await,
            typed("quorate events", "", vec![Ok(vec![Answer::End])]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_are_shown_once() {
    let tokens = vec![TokenInfo { id: "k3v9".to_owned(), uses_left: 2, expires: "2027-01-01T13:00:00Z".to_owned() }];
    insta::assert_snapshot!(
        [
            typed(
                "quorate token create --uses 2",
                "",
                vec![Ok(vec![Answer::Token("QRT1.n.pin.id.secret.check".to_owned())])]
            )
            .await,
            typed("quorate token list", "", vec![Ok(vec![Answer::Tokens(tokens)])]).await,
            typed("quorate token list", "", vec![Ok(vec![Answer::Tokens(Vec::new())])]).await,
            typed("quorate token revoke k3v9", "", vec![Ok(vec![Answer::Done])]).await,
        ]
        .join("\n")
    );
}

#[test]
fn wrong_usage_is_explained_and_help_is_complete() {
    // As wide as a terminal of 100 columns, wherever the test runs.
    let said = |line: &str| {
        let error = Arguments::command().term_width(100).try_get_matches_from(line.split(' ')).unwrap_err();
        format!("$ {line}\n{error}[exit code {}]\n", error.exit_code())
    };
    insta::assert_snapshot!(
        [
            "quorate --help",
            "quorate up --help",
            "quorate join --help",
            "quorate token create --help",
            "quorate apply --help",
            "quorate get --help",
            "quorate delete --help",
            "quorate logs --help",
            "quorate dev --help",
            "quorate dev up --help",
            "quorate",
            "quorate gte",
            "quorate get",
            "quorate scale deploy/web",
            "quorate get pods -o xml",
            "quorate token create --ttl 5y",
            "quorate delete",
            "quorate dev up --nodes 0",
            "quorate up --listen here",
        ]
        .map(said)
        .join("\n")
    );
}
