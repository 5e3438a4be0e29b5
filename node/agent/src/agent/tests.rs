use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use quorate_proto::{
    request::{Fact, Logs},
    txn::Revision,
};
use serde_json::json;

use super::*;
use crate::{
    plan,
    runtime::{
        Role, State,
        docker::{Docker, tests::Engine},
        simulated::{self, Behaviour, Simulated},
    },
    testing::{Running, Store, TestClock, condition},
};

mod engine;
mod hooks;
mod sources;

const SERVE: &str = "trap 'exit 0' TERM; busybox httpd -f -p 8080 -h / & wait";

fn logs(pod: &str) -> Logs {
    Logs {
        namespace: "shop".into(),
        pod: pod.into(),
        container: None,
        follow: false,
        previous: false,
        tail: None,
        since_seconds: None,
        timestamps: false,
        forwarded: false,
    }
}

async fn text(agent: &Agent, logs: &Logs) -> String {
    let parts: Vec<_> = agent.logs(logs).await.unwrap().collect().await;
    let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.unwrap().to_vec()).collect();
    String::from_utf8(bytes).unwrap()
}

fn waiting(store: &Store, pod: &str) -> String {
    let status = store.status(pod).unwrap_or_default();
    status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
}

fn restarts(store: &Store, pod: &str) -> u64 {
    store.status(pod).unwrap_or_default()["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

fn simulated(clock: &Arc<TestClock>) -> Arc<Simulated> {
    let config =
        simulated::Config { node: "n1".into(), pod_range: "10.214.1.0/24".parse().unwrap(), cpus: 4, memory: 8 << 30 };
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    Arc::new(Simulated::new(config, clock))
}

struct Sim {
    runtime: Arc<Simulated>,
    store: Arc<Store>,
    clock: Arc<TestClock>,
    running: Running,
}

fn sim() -> Sim {
    let clock = Arc::new(TestClock::new());
    let (runtime, store) = (simulated(&clock), Store::new());
    let running = Running::start(Arc::new(Arc::clone(&runtime)), &store, Arc::<TestClock>::clone(&clock));
    Sim { runtime, store, clock, running }
}

fn web() -> serde_json::Value {
    json!({"containers": [{"name": "web", "image": "web:1"}]})
}

#[tokio::test(start_paused = true)]
async fn pods_become_ready_each_with_an_address_of_its_own() {
    let sim = sim();
    for number in 0..20 {
        sim.store.pod(&format!("web-{number}"), web());
    }
    let mut addresses = BTreeSet::new();
    for number in 0..20 {
        let name = format!("web-{number}");
        sim.store.until_ready(&name).await;
        let status = sim.store.status(&name).unwrap();
        assert_eq!((&status["phase"], &status["hostIP"]), (&json!("Running"), &json!("192.0.2.1")));
        addresses.insert(status["podIP"].as_str().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), 20);
    sim.running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashes_is_restarted_ever_more_slowly_and_reported_seldom() {
    let sim = sim();
    sim.runtime.behave("web:1", Behaviour { exits: Some((Duration::from_secs(1), 1)), ..Behaviour::default() });
    sim.store.pod("web", web());
    let begin = tokio::time::Instant::now();
    let mut times = Vec::new();
    for count in 1..=4 {
        sim.store.until("it was restarted", |store| restarts(store, "web") >= count).await;
        times.push(begin.elapsed().as_secs());
    }
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().zip([11, 21, 41]).all(|(gap, expected)| gap.abs_diff(expected) <= 1), "{gaps:?}");
    sim.store.until("it says that it waits", |store| waiting(store, "web") == "CrashLoopBackOff").await;
    assert_eq!(sim.store.status("web").unwrap()["phase"], "Running");
    assert!(
        sim.store.events().iter().any(|event| event.starts_with("BackOff Back-off restarting failed container web"))
    );
    let reports = sim.store.facts.lock().unwrap().iter().filter(|fact| matches!(fact, Fact::Pod { .. })).count();
    assert!(reports as u64 <= begin.elapsed().as_secs(), "{reports} reports");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_got_connections_is_stopped_when_no_node_sends_it_any_more() {
    let sim = sim();
    sim.store.pod("web", web());
    sim.store.until_ready("web").await;
    let runs = async || {
        let containers = sim.runtime.list().await.unwrap();
        containers.iter().any(|container| container.image == "web:1" && plan::is_running(container))
    };
    sim.store.withdrawn.send_replace(Revision(0));
    sim.store.delete("web", 30);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(runs().await, "another node still sends connections to it");
    sim.store.withdrawn.send_replace(Revision(u64::MAX));
    let asked = tokio::time::Instant::now();
    sim.store.until("it is gone", |store| store.status("web").is_none()).await;
    assert!(!runs().await && asked.elapsed() < Duration::from_secs(5), "it is not kept without need");

    sim.store.withdrawn.send_replace(Revision(0));
    sim.store.pod("late", web());
    sim.store.until_ready("late").await;
    sim.store.delete("late", 30);
    let deleted = tokio::time::Instant::now();
    sim.store.until("it is gone", |store| store.status("late").is_none()).await;
    assert!(deleted.elapsed() < Duration::from_secs(30), "who does not answer is not waited for beyond half its grace");
    sim.running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_goes_on_and_tells_afterwards() {
    let sim = sim();
    *sim.store.cut_off.lock().unwrap() = true;
    sim.store.pod("web", web());
    let mut events = Runtime::events(&sim.runtime).await.unwrap();
    while !sim
        .runtime
        .list()
        .await
        .unwrap()
        .iter()
        .any(|container| container.image == "web:1" && plan::is_running(container))
    {
        events.next().await.unwrap().unwrap();
    }
    assert!(sim.store.facts.lock().unwrap().is_empty());
    *sim.store.cut_off.lock().unwrap() = false;
    sim.store.until_ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_said_of_a_pod_while_its_node_was_not_heard_is_put_right() {
    let sim = sim();
    sim.store.pod("web", web());
    sim.store.until_ready("web").await;
    let well = sim.store.status("web").unwrap();
    *sim.store.cut_off.lock().unwrap() = true;
    let lost = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "message": "n1 not heard for 6s"});
    let status = json!({"reason": "NodeLost", "message": "n1 not heard for 6s", "conditions": [lost]});
    sim.store.patch("web", &json!({ "status": status }));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sim.store.status("web").unwrap()["reason"], "NodeLost");
    *sim.store.cut_off.lock().unwrap() = false;
    sim.store.until_ready("web").await;
    assert_eq!(sim.store.status("web").unwrap(), well);
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_reports_nothing() {
    let sim = sim();
    sim.store.pod("web", web());
    sim.store.until_ready("web").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let told = sim.store.facts.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(sim.store.facts.lock().unwrap().len(), told);
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other_and_a_job_succeeds() {
    let sim = sim();
    let ends = |seconds, code| Behaviour { exits: Some((Duration::from_secs(seconds), code)), ..Behaviour::default() };
    sim.runtime.behave("prepare:1", ends(5, 0));
    sim.runtime.behave("work:1", ends(5, 0));
    sim.store.pod(
        "job",
        json!({"restartPolicy": "Never",
        "initContainers": [{"name": "one", "image": "prepare:1"}, {"name": "two", "image": "prepare:1"}],
        "containers": [{"name": "work", "image": "work:1"}]}),
    );
    sim.store
        .until("the second is prepared", |store| {
            store.status("job").unwrap_or_default()["initContainerStatuses"][1]["state"]["running"].is_object()
        })
        .await;
    assert_eq!(waiting(&sim.store, "job"), "PodInitializing");
    sim.store.until("it succeeded", |store| store.status("job").unwrap_or_default()["phase"] == "Succeeded").await;
    let status = sim.store.status("job").unwrap();
    let started: Vec<&str> = ["/initContainerStatuses/0", "/initContainerStatuses/1", "/containerStatuses/0"]
        .iter()
        .map(|path| status.pointer(&format!("{path}/state/terminated/startedAt")).unwrap().as_str().unwrap())
        .collect();
    assert!(started.is_sorted() && started[0] < started[1] && started[1] < started[2], "{started:?}");
    assert_eq!(condition(&status, "Ready"), "False");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_holder_makes_a_new_network_and_its_containers_anew() {
    let sim = sim();
    sim.store.pod("web", web());
    sim.store.until_ready("web").await;
    let holder = sim.runtime.list().await.unwrap().into_iter().find(|seen| seen.role == Role::Holder).unwrap();
    sim.runtime.crash(&holder.id, 137);
    sim.store.until("it was restarted", |store| restarts(store, "web") == 1).await;
    sim.store.until_ready("web").await;
    let seen = sim.runtime.list().await.unwrap();
    let new = seen.iter().find(|seen| seen.role == Role::Holder).unwrap();
    assert_ne!(new.id, holder.id);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_takes_over_what_runs_and_clears_what_is_not_bound_here() {
    let Sim { runtime, store, clock, running } = sim();
    store.pod("web", web());
    store.pod("old", web());
    store.until_ready("web").await;
    store.until_ready("old").await;
    let before: Vec<_> = runtime.list().await.unwrap().into_iter().filter(|seen| seen.pod.name == "web").collect();
    running.stop().await;
    store.forget("old");
    let again = Running::start(Arc::new(Arc::clone(&runtime)), &store, clock);
    let mut events = Runtime::events(&runtime).await.unwrap();
    while runtime.list().await.unwrap().iter().any(|seen| seen.pod.name == "old") {
        events.next().await.unwrap().unwrap();
    }
    let after: Vec<_> = runtime.list().await.unwrap().into_iter().filter(|seen| seen.pod.name == "web").collect();
    assert_eq!(after, before);
    again.stop().await;
}

/// An agent on a real engine.
fn on(engine: &Engine, store: &Arc<Store>) -> Running {
    Running::start(Arc::<Docker>::clone(&engine.runtime), store, Arc::new(TestClock::new()))
}

#[tokio::test]
async fn on_docker_a_pod_is_made_as_it_is_written_and_leaves_nothing_behind() {
    let engine = Engine::start().await;
    let store = Store::new();
    let running = on(&engine, &store);
    store.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site", "namespace": "shop"}, "data": {"index.html": "hello", "greeting": "good day"}}));
    store.put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"}, "data": {"token": "czNjcjN0"}}));
    store.pod("web", json!({
        "terminationGracePeriodSeconds": 20,
        "volumes": [{"name": "site", "configMap": {"name": "site"}}, {"name": "keys", "secret": {"secretName": "keys"}}, {"name": "scratch", "emptyDir": {}}],
        "containers": [{
            "name": "web", "image": engine.image,
            "command": ["/bin/sh", "-c", format!("echo $GREETING $(busybox cat /keys/token) $(busybox hostname); {SERVE}")],
            "env": [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "site", "key": "greeting"}}}],
            "volumeMounts": [{"name": "site", "mountPath": "/srv"}, {"name": "keys", "mountPath": "/keys"}, {"name": "scratch", "mountPath": "/scratch"}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"path": "/srv/index.html", "port": 8080}},
            "livenessProbe": {"exec": {"command": ["/bin/busybox", "test", "-f", "/srv/index.html"]}, "timeoutSeconds": 10},
        }],
    }));
    store.until_ready("web").await;
    assert_eq!(text(&running.agent, &logs("web")).await, "good day s3cr3t web\n");

    let status = store.status("web").unwrap();
    let id =
        status["containerStatuses"][0]["containerID"].as_str().unwrap().strip_prefix("docker://").unwrap().to_owned();
    let host = engine.client().await.inspect_container(&id, None).await.unwrap().host_config.unwrap();
    let figures = (host.cpu_shares, host.cpu_period, host.cpu_quota, host.memory, host.memory_swap, host.oom_score_adj);
    let expected =
        (Some(512), Some(100_000), Some(50_000), Some(67_108_864), Some(67_108_864), Some(engine.oom_score(-997)));
    assert_eq!(figures, expected);
    assert_eq!(status["qosClass"], "Guaranteed");
    let address: Ipv4Addr = status["podIP"].as_str().unwrap().parse().unwrap();
    assert!(engine.config.pod_range.contains(&address));

    store.delete("web", 20);
    store.until("it is gone", |store| store.status("web").is_none()).await;
    assert!(engine.runtime.list().await.unwrap().is_empty());
    assert!(engine.runtime.mounted().await.unwrap().is_empty());
    let events = store.events();
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(events.iter().any(|event| event.starts_with(reason)), "no {reason} in {events:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn on_docker_a_restarted_agent_restarts_no_container_and_touches_no_foreign_one() {
    let engine = Engine::start().await;
    let store = Store::new();
    let runtime: Arc<dyn Runtime> = Arc::<Docker>::clone(&engine.runtime);
    let running = on(&engine, &store);
    let serve = |name: &str| {
        store.pod(name, json!({"terminationGracePeriodSeconds": 5, "containers": [{"name": "web", "image": engine.image, "command": ["/bin/sh", "-c", SERVE]}]}));
    };
    serve("web");
    serve("orphan");
    store.until_ready("web").await;
    store.until_ready("orphan").await;
    let client = engine.client().await;
    let body = bollard::models::ContainerCreateBody {
        image: Some(engine.image.clone()),
        entrypoint: Some(vec!["/bin/busybox".into(), "sleep".into(), "600".into()]),
        ..Default::default()
    };
    let foreign = client.create_container(None, body).await.unwrap().id;
    client.start_container(&foreign, None).await.unwrap();
    let of_web = async || -> Vec<Container> {
        runtime.list().await.unwrap().into_iter().filter(|seen| seen.pod.name == "web").collect()
    };
    let before = of_web().await;
    running.stop().await;
    store.forget("orphan");

    let again = on(&engine, &store);
    let mut events = runtime.events().await.unwrap();
    let cleared = tokio::time::timeout(Duration::from_secs(60), async {
        while runtime.list().await.unwrap().iter().any(|seen| seen.pod.name == "orphan") {
            events.next().await.unwrap().unwrap();
        }
    })
    .await;
    let after = of_web().await;
    let foreign_runs = client.inspect_container(&foreign, None).await.unwrap().state.unwrap().running;
    runtime.remove(&foreign).await.unwrap();
    assert!(cleared.is_ok(), "what is not bound here any more still runs");
    assert_eq!(after, before);
    assert!(after.iter().all(|seen| matches!(seen.state, State::Running { .. })));
    assert_eq!(foreign_runs, Some(true));
    again.stop().await;
}

#[tokio::test]
async fn on_docker_a_pod_that_lacked_its_config_map_starts_at_the_first_try_when_it_appears() {
    let engine = Engine::start().await;
    let store = Store::new();
    let running = on(&engine, &store);
    store.pod(
        "lacking",
        json!({"terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "later", "configMap": {"name": "later"}}],
            "containers": [{"name": "web", "image": engine.image, "command": ["/bin/sh", "-c", SERVE],
                "volumeMounts": [{"name": "later", "mountPath": "/later"}],
                "readinessProbe": {"httpGet": {"path": "/later/greeting", "port": 8080}}}],
        }),
    );
    let told = |store: &Store, of: &str| store.events().iter().filter(|event| event.starts_with(of)).count();
    store
        .until("it says what it lacks", |store| {
            waiting(store, "lacking") == "CreateContainerConfigError" && told(store, "FailedMount ") == 1
        })
        .await;
    store.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later", "namespace": "shop"}, "data": {"greeting": "hello"}}));
    store.until_ready("lacking").await;
    assert_eq!((told(&store, "Failed"), told(&store, "Created ")), (1, 1), "{:?}", store.events());
    running.stop().await;
}

#[tokio::test]
async fn on_docker_what_ends_or_is_unwell_is_started_again() {
    let engine = Engine::start().await;
    let store = Store::new();
    let running = on(&engine, &store);
    let image = &engine.image;
    store.pod(
        "ends",
        json!({"containers": [{"name": "c", "image": image, "command": ["/bin/sh", "-c", "echo once; exit 3"]}]}),
    );
    store.pod("unwell", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image, "command": ["/bin/sh", "-c", SERVE],
        "livenessProbe": {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}}]}));
    store.pod("nobody-has", json!({"containers": [{"name": "c", "image": "127.0.0.1:9/nothing:1"}]}));
    store.pod("no-program", json!({"containers": [{"name": "c", "image": image, "command": ["/nothing"]}]}));
    store.until("it waits for its next start", |store| waiting(store, "ends") == "CrashLoopBackOff").await;
    let ended = store.status("ends").unwrap();
    assert_eq!(ended["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    let previous = Logs { previous: true, ..logs("ends") };
    assert_eq!(text(&running.agent, &previous).await, "once\n");
    store.until("it was restarted", |store| restarts(store, "unwell") >= 1).await;
    assert!(
        store.events().iter().any(|event| event == "Killing Container c failed liveness probe, will be restarted"),
        "{:?}",
        store.events()
    );
    // On a slow machine it has been tried again by now.
    let pull_failed = ["ErrImagePull", "ImagePullBackOff"];
    store.until("the pull failed", |store| pull_failed.contains(&waiting(store, "nobody-has").as_str())).await;
    store.until("the start failed", |store| waiting(store, "no-program") == "RunContainerError").await;
    running.stop().await;
}

#[tokio::test]
async fn on_docker_the_last_words_of_a_container_are_its_message_or_the_end_of_its_log() {
    let engine = Engine::start().await;
    let store = Store::new();
    let running = on(&engine, &store);
    let container = |name: &str, policy: &str, script: &str| json!({"name": name, "image": engine.image, "command": ["/bin/sh", "-c", script], "terminationMessagePolicy": policy});
    store.pod(
        "ends",
        json!({"restartPolicy": "Never", "securityContext": {"runAsUser": 1000}, "containers": [
            container("says", "File", "echo log; echo words > /dev/termination-log; exit 127"),
            container("logs", "FallbackToLogsOnError", "echo first; echo last; exit 1"),
            container("well", "FallbackToLogsOnError", "echo all is well"),
            container("mute", "File", "echo log; exit 1"),
        ]}),
    );
    store.until("it failed", |store| store.status("ends").unwrap_or_default()["phase"] == "Failed").await;
    let status = store.status("ends").unwrap();
    let ended = |index: usize| &status["containerStatuses"][index]["state"]["terminated"];
    assert_eq!((&ended(0)["message"], &ended(0)["reason"]), (&json!("words\n"), &json!("Error")));
    assert_eq!(ended(1)["message"], "first\nlast\n");
    assert!(ended(2)["message"].is_null() && ended(3)["message"].is_null(), "{status}");
    running.stop().await;
}
