use serde_json::json;

use super::*;
use crate::{
    pod::tests::{bound, with_metadata},
    runtime::{PodRef, Role},
};

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn exited(code: i32, out_of_memory: bool) -> State {
    State::Exited {
        started: wall(0),
        finished: wall(5),
        code,
        out_of_memory,
        message: String::new(),
        words: String::new(),
    }
}

fn container(role: Role, attempt: u32, state: State) -> Container {
    Container {
        id: format!("id-{attempt}"),
        node: "n1".into(),
        pod: PodRef { namespace: "shop".into(), name: "web".into(), uid: "uid-web".into() },
        role,
        attempt,
        grace: std::time::Duration::from_secs(30),
        image: "web:1".into(),
        image_id: "sha256:0".into(),
        address: Some([10, 214, 0, 2].into()),
        state,
    }
}

fn web(attempt: u32, state: State) -> Container {
    container(Role::Container { name: "web".into(), hash: String::new(), holder: "h".into() }, attempt, state)
}

fn spec(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "web", "image": "web:1"}]})
}

fn status(bound: &BoundPod, seen: &[Container], waiting: Option<Waiting>) -> Value {
    let seen: Vec<&Container> = seen.iter().collect();
    let mut memory = PodMemory::default();
    memory.observe(bound, &seen, quorate_proto::world::Instant::default(), wall(10));
    let waiting = waiting.into_iter().map(|waiting| ("web".to_owned(), waiting)).collect();
    let context = Context { memory: &memory, waiting: &waiting, host: "192.0.2.1", wall: wall(10), scheme: "docker" };
    of(bound, &seen, context)
}

#[test]
fn a_running_pod_is_told_as_kubectl_shows_it() {
    let seen =
        [container(Role::Holder, 0, State::Running { started: wall(0) }), web(0, State::Running { started: wall(1) })];
    let told = status(&bound("web", spec("Always")), &seen, None);
    let always = "2027-01-15T08:00:10Z";
    let yes = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": always});
    let expected = json!({
        "phase": "Running", "reason": null, "message": null, "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}],
        "podIP": "10.214.0.2", "podIPs": [{"ip": "10.214.0.2"}], "startTime": always, "qosClass": "BestEffort",
        "conditions": [yes("Initialized"), yes("Ready"), yes("ContainersReady"), yes("PodScheduled")],
        "containerStatuses": [{
            "name": "web", "image": "web:1", "imageID": "sha256:0", "containerID": "docker://id-0", "restartCount": 0,
            "ready": true, "started": true, "lastState": {}, "state": {"running": {"startedAt": "2027-01-15T08:00:01Z"}},
        }],
    });
    assert_eq!(told, expected);
}

#[test]
fn how_a_container_ended_is_told_in_kubernetes_words() {
    for (state, policy, phase, reason, signal) in [
        (exited(0, false), "Never", "Succeeded", "Completed", None),
        (exited(1, false), "Never", "Failed", "Error", None),
        (exited(143, false), "Never", "Failed", "Error", Some(15)),
        (exited(137, true), "OnFailure", "Running", "OOMKilled", Some(9)),
    ] {
        let told = status(&bound("web", spec(policy)), &[web(0, state)], None);
        let ended = &told["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (told["phase"].as_str(), ended["reason"].as_str(), ended["signal"].as_i64()),
            (Some(phase), Some(reason), signal)
        );
    }
}

#[test]
fn what_waits_for_its_next_start_shows_how_it_ended_last() {
    let waiting = Waiting::new("CrashLoopBackOff", "back-off 10s");
    let told = status(&bound("web", spec("Always")), &[web(3, exited(2, false))], Some(waiting));
    let of = &told["containerStatuses"][0];
    assert_eq!(of["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    assert_eq!((of["lastState"]["terminated"]["exitCode"].as_i64(), of["restartCount"].as_i64()), (Some(2), Some(3)));
    assert_eq!(told["phase"], "Running");
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let since = "2020-01-01T00:00:00Z";
    let known = json!({"startTime": since, "conditions": [
        {"type": "Initialized", "status": "True", "lastTransitionTime": since},
        {"type": "Ready", "status": "True", "lastTransitionTime": since},
        {"type": "example.com/gate", "status": "True"},
    ]});
    let stored = with_metadata("web", spec("Always"), &json!({}), &known);
    let told = status(&BoundPod::read(&stored, "n1").unwrap(), &[], None);
    let time = |kind: &str| {
        let conditions = told["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap()["lastTransitionTime"].clone()
    };
    assert_eq!((time("Initialized"), time("Ready")), (json!(since), json!("2027-01-15T08:00:10Z")));
    assert_eq!(time("example.com/gate"), Value::Null, "conditions of others stay");
    assert_eq!(told["startTime"], since);
}

#[test]
fn a_container_whose_trace_is_lost_counts_on() {
    let known = json!({"containerStatuses": [{"name": "web", "restartCount": 4, "containerID": "docker://gone"}]});
    assert_eq!((next_attempt(&known, "web"), next_attempt(&known, "other")), (5, 0));
}
