use std::sync::Arc;

use clap::Parser as _;
use serde_json::json;

use super::*;
use crate::{
    args::{Arguments, Verb},
    client::tests::Recorded,
    session::tests::{objects, run as run_in},
};

type Answers = Vec<Result<Vec<Answer>, Refusal>>;

async fn asked(recorded: &Arc<Recorded>, line: &str) -> String {
    let Verb::Logs(logs) = Arguments::try_parse_from(line.split(' ')).unwrap().verb else { panic!("another verb") };
    let printed = run_in(recorded, async |session| run(session, logs).await).await;
    format!("$ {line}\n{printed}")
}

async fn typed(line: &str, answers: Answers) -> String {
    asked(&Recorded::new(answers), line).await
}

fn wrote(pieces: &[&'static str]) -> Result<Vec<Answer>, Refusal> {
    let data = pieces.iter().map(|piece| Answer::Data(Bytes::from_static(piece.as_bytes())));
    Ok(data.chain([Answer::End]).collect())
}

fn pod(name: &str, phase: &str, containers: &[&str]) -> Value {
    let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"initContainers": [{"name": "setup"}], "containers": containers}, "status": {"phase": phase}})
}

fn owner(kind: &str, selector: &Value) -> Result<Vec<Answer>, Refusal> {
    let version = if kind == "Service" { "v1" } else { "apps/v1" };
    Ok(vec![objects(&[json!({"apiVersion": version, "kind": kind,
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": selector}})])])
}

fn list(pods: &[Value]) -> Result<Vec<Answer>, Refusal> {
    Ok(vec![objects(pods), Answer::End])
}

#[tokio::test(start_paused = true)]
async fn one_pod_of_several_is_chosen_and_named_as_kubectl_does() {
    let web = || owner("Deployment", &json!({"matchLabels": {"app": "web"}}));
    let pods = || {
        list(&[pod("web-1", "Pending", &["app"]), pod("web-3", "Running", &["app"]), pod("web-2", "Running", &["app"])])
    };
    let several = Refusal::new(
        Reason::BadRequest,
        "pod/web-1 was not read",
        "the pod has several containers, and none was named",
    )
    .hint("name one of app, proxy with `-c`");
    insta::assert_snapshot!(
        [
            typed("quorate logs web-1", vec![wrote(&["one\n", "two\n"])]).await,
            typed("quorate logs deploy/web", vec![web(), pods(), wrote(&["one\n"])]).await,
            typed("quorate logs rs/web", vec![web(), list(&[pod("web-1", "Running", &["app"])]), wrote(&["one\n"])])
                .await,
            typed("quorate logs deploy/web", vec![web(), list(&[])]).await,
            typed("quorate logs svc/web", vec![owner("Service", &json!({}))]).await,
            typed("quorate logs web-1", vec![Ok(vec![Answer::Refused(several)])]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn several_logs_are_told_apart_by_prefix_and_kept_whole_by_line() {
    let both = || list(&[pod("web-1", "Running", &["app", "proxy"]), pod("web-2", "Running", &["app"])]);
    let single = || list(&[pod("web-1", "Running", &["app"]), pod("web-2", "Running", &["app"])]);
    let one = || Ok(vec![objects(&[pod("web-1", "Running", &["app", "proxy"])])]);
    let lost = Refusal::new(Reason::NotFound, "pod/web-1 was not read", "the pod runs nowhere");
    insta::assert_snapshot!(
        [
            typed("quorate logs -l app=web", vec![single(), wrote(&["a1\n"]), wrote(&["b1"])]).await,
            typed("quorate logs -l app=web --prefix", vec![single(), wrote(&["a1\na", "2\n"]), wrote(&["b1"])]).await,
            typed("quorate logs -l app=web --prefix -f", vec![single(), wrote(&["a1\na", "2\n"]), wrote(&["b1"])])
                .await,
            typed(
                "quorate logs -l app=web --all-containers --prefix",
                vec![both(), wrote(&["s\n"]), wrote(&["a\n"]), wrote(&["p\n"]), wrote(&["s\n"]), wrote(&["b\n"])]
            )
            .await,
            typed(
                "quorate logs web-1 --all-containers",
                vec![one(), wrote(&["s\n"]), wrote(&["a\n"]), wrote(&["p\n"])]
            )
            .await,
            typed("quorate logs -l app=web", vec![single(), Ok(vec![Answer::Refused(lost)]), wrote(&["b1\n"])]).await,
            typed("quorate logs -l app=none", vec![list(&[])]).await,
            typed("quorate logs -l app=web --all-containers -f --max-log-requests 4", vec![both()]).await,
        ]
        .join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn a_selection_shows_ten_lines_a_pod_unless_more_are_asked_for() {
    for (line, tail) in [
        ("quorate logs -l app=web", Some(10)),
        ("quorate logs -l app=web --tail 3", Some(3)),
        ("quorate logs -l app=web --tail -1", None),
        ("quorate logs pod/web-1", None),
        ("quorate logs pod/web-1 --tail=0", Some(0)),
    ] {
        let mut answers = vec![wrote(&[])];
        if line.contains("-l") {
            answers.insert(0, list(&[pod("web-1", "Running", &["app"])]));
        }
        let recorded = Recorded::new(answers);
        asked(&recorded, line).await;
        let Some(Request::Logs(logs)) = recorded.requests().pop() else { panic!("no log was asked for") };
        assert_eq!(logs.tail, tail, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_workload_are_those_that_its_whole_selector_selects() {
    let selector = json!({"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "track", "operator": "In", "values": ["canary", "stable"]}]});
    let web = list(&[pod("web-1", "Running", &["app"])]);
    let recorded = Recorded::new(vec![owner("ReplicaSet", &selector), web, wrote(&[])]);
    asked(&recorded, "quorate logs rs/web").await;
    let Request::List(selection) = &recorded.requests()[1] else { panic!("pods were not listed") };
    assert_eq!(selection.labels, "app=web,track in (canary,stable)");
}

#[tokio::test(start_paused = true)]
async fn one_log_alone_is_passed_on_byte_by_byte_and_a_line_without_end_does_not_fill_the_memory() {
    let bytes: &'static [u8] = &[0xff, b'\n', 0x00, b'x'];
    let log = || -> Log { stream::iter([Ok(Bytes::from_static(bytes))]).boxed() };
    let mixed: Vec<_> = lines(log(), "> ".to_owned()).try_collect().await.unwrap();
    assert_eq!(mixed.concat(), b"> \xff\n> \x00x\n");

    let endless = stream::iter(vec![Ok(Bytes::from(vec![b'x'; LONGEST_LINE])); 3]).boxed();
    let cut: Vec<_> = lines(endless, String::new()).try_collect().await.unwrap();
    assert!(cut.iter().all(|piece| piece.len() <= 2 * LONGEST_LINE + 1));
    assert_eq!(cut.concat().iter().filter(|byte| **byte == b'x').count(), 3 * LONGEST_LINE);

    let printed = typed("quorate logs web-1", vec![wrote(&["no end of line"])]).await;
    assert_eq!(printed, "$ quorate logs web-1\nno end of line");
}
