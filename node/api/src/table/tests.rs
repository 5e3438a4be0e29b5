use insta::assert_snapshot;
use quorate_proto::kinds::{Access, KINDS};
use serde_json::json;

use super::*;
use crate::testing::{World, cronjob, daemonset, deployment, job, pod, service, wall};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

#[test]
fn every_computed_cell_of_the_registry_has_its_function_even_for_an_empty_object() {
    for kind in KINDS {
        let empty = object(json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "x"}}));
        for column in kind.columns {
            if let Cell::Computed(name) = column.cell {
                assert!(cell::computed(name, &empty, wall()).is_some(), "{} of {}", column.name, kind.plural);
            }
        }
        assert_eq!(row(kind, &empty, wall()).cells.len(), kind.columns.len());
    }
}

#[test]
fn tables_read_as_in_kubectl() {
    let mut world = World::new();
    world.wall = Timestamp::from_second(wall().as_second() - 192).unwrap();
    world.apply(&deployment("web")).unwrap();
    world.apply(&pod("p")).unwrap();
    let mut agent = daemonset("agent");
    agent["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast", "zone": "a"});
    world.apply(&agent).unwrap();
    world.apply(&job("once")).unwrap();
    world.apply(&cronjob("nightly")).unwrap();
    let mut external = service("shop");
    external["spec"] = json!({"type": "ExternalName", "externalName": "shop.example.com"});
    world.apply(&external).unwrap();
    let mut node_port = service("np");
    node_port["spec"]["type"] = json!("NodePort");
    node_port["spec"]["clusterIP"] = json!("10.213.0.99");
    node_port["spec"]["ports"] = json!([{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 53, "protocol": "UDP", "nodePort": 30053}]);
    world.apply(&node_port).unwrap();
    world
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "1"}}))
        .unwrap();
    world.patch("node", "n1", &json!({"spec": {"unschedulable": true}})).unwrap();
    world.put(json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "p.1", "namespace": "default"}, "type": "Warning",
        "reason": "BackOff", "message": "Back-off restarting\nfailed container", "lastTimestamp": "2027-01-15T07:59:18Z",
        "involvedObject": {"kind": "Pod", "name": "p"},
    }));
    let mut text = String::new();
    for kind in KINDS.iter().filter(|kind| kind.access != Access::Internal) {
        let headings: Vec<_> = columns(kind).into_iter().map(|column| column.name).collect();
        text.push_str(&headings.join(" | "));
        for stored in world.snapshot.list(kind) {
            text.push_str(&format!("\n{}", row(kind, &stored.object, wall()).cells.join(" | ")));
        }
        text.push_str("\n\n");
    }
    assert_snapshot!(text);
}

#[test]
fn a_jobs_status_completions_and_duration_read_as_in_kubectl() {
    let yes = |condition: &str| json!({"type": condition, "status": "True"});
    for (patch, expected) in [
        (json!({}), ["Running", "0/1", ""]),
        (
            json!({"status": {"startTime": "2027-01-15T07:59:00Z", "succeeded": 2}, "spec": {"completions": 5}}),
            ["Running", "2/5", "60s"],
        ),
        (json!({"spec": {"parallelism": 3}}), ["Running", "0/1 of 3", ""]),
        (json!({"status": {"conditions": [yes("Suspended")]}}), ["Suspended", "0/1", ""]),
        (json!({"status": {"conditions": [yes("FailureTarget")]}}), ["FailureTarget", "0/1", ""]),
        (json!({"status": {"conditions": [yes("FailureTarget"), yes("Failed")]}}), ["Failed", "0/1", ""]),
        (
            json!({"status": {"conditions": [yes("SuccessCriteriaMet"), yes("Complete")], "succeeded": 1,
                "startTime": "2027-01-15T07:00:00Z", "completionTime": "2027-01-15T07:00:42Z"}}),
            ["Complete", "1/1", "42s"],
        ),
        (json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}), ["Terminating", "0/1", ""]),
    ] {
        let mut job = object(job("once"));
        job.merge(&patch);
        assert_eq!(row(&quorate_proto::kinds::JOBS, &job, wall()).cells[1..4], expected, "{patch}");
    }
}

#[test]
fn a_cron_job_shows_its_runs_and_when_it_was_last_run() {
    let mut cron = object(cronjob("nightly"));
    cron.merge(&json!({"spec": {"timeZone": "Europe/Berlin", "suspend": true},
        "status": {"active": [{"name": "a"}, {"name": "b"}], "lastScheduleTime": "2027-01-15T07:30:00Z"}}));
    let cells = row(&quorate_proto::kinds::CRONJOBS, &cron, wall()).cells;
    assert_eq!(cells[1..6], ["30 2 * * *", "Europe/Berlin", "True", "2", "30m"]);
}

fn pod_with(status: &Value, more: &Value) -> Vec<String> {
    let mut value = pod("p");
    value["status"] = status.clone();
    let mut pod = object(value);
    pod.merge(more);
    row(&quorate_proto::kinds::PODS, &pod, wall()).cells[1..4].to_vec()
}

#[test]
fn a_pods_status_is_the_one_word_that_says_how_it_is() {
    let container = |state: Value, ready: bool, restarts: u32| {
        json!({"phase": "Running", "containerStatuses": [{"name": "web", "ready": ready, "restartCount": restarts, "state": state,
            "image": "", "imageID": "", "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2027-01-15T07:55:00Z"}}}]})
    };
    let running = json!({"running": {"startedAt": "2027-01-15T07:00:00Z"}});
    let init = |state: Value| {
        json!({"phase": "Pending", "initContainerStatuses":
            [{"name": "i", "ready": false, "restartCount": 0, "state": state, "image": "", "imageID": ""}]})
    };
    let none = json!({});
    let leaving = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    let two = json!({"spec": {"initContainers": [{"name": "i"}, {"name": "j"}]}});
    for (status, more, expected) in [
        (json!({"phase": "Pending"}), &none, ["0/1", "Pending", "0"]),
        (container(running.clone(), true, 0), &none, ["1/1", "Running", "0"]),
        (container(running.clone(), true, 2), &none, ["1/1", "Running", "2 (5m ago)"]),
        (
            container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false, 3),
            &none,
            ["0/1", "CrashLoopBackOff", "3 (5m ago)"],
        ),
        (
            container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), false, 0),
            &none,
            ["0/1", "OOMKilled", "0"],
        ),
        (container(json!({"terminated": {"exitCode": 3}}), false, 0), &none, ["0/1", "ExitCode:3", "0"]),
        (container(json!({"terminated": {"exitCode": 137, "signal": 9}}), false, 0), &none, ["0/1", "Signal:9", "0"]),
        (container(running, true, 0), &leaving, ["1/1", "Terminating", "0"]),
        (init(json!({"running": {}})), &two, ["0/1", "Init:0/2", "0"]),
        (init(json!({"waiting": {"reason": "ErrImagePull"}})), &two, ["0/1", "Init:ErrImagePull", "0"]),
        (init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), &two, ["0/1", "Init:Error", "0"]),
    ] {
        assert_eq!(pod_with(&status, more), expected, "{status}");
    }
}
