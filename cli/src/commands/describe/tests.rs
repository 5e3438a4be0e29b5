//! What a description looks like.

use serde_json::{Value, json};

use super::*;
use crate::{
    args::Selectors,
    client::tests::Recorded,
    session::tests::{objects, run as run_in},
};
use quorate_proto::request::{Answer, Request};

async fn described(what: &[&str], object: Value, events: &[Value]) -> String {
    let recorded = Recorded::new([Ok(vec![objects(&[object])]), Ok(vec![objects(events), Answer::End])]);
    let selectors = Selectors { all_namespaces: false, selector: String::new(), field_selector: String::new() };
    let arguments = Describe { what: what.iter().map(|word| (*word).to_owned()).collect(), selectors };
    run_in(&recorded, async |session| run(session, arguments).await).await
}

fn event(kind: &str, name: &str, reason: &str, message: &str, last: &str, count: i64) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{name}.{reason}"), "namespace": "default"},
        "type": "Normal", "reason": reason, "message": message, "count": count, "source": {"component": "agent"},
        "firstTimestamp": "2027-01-01T11:50:00Z", "lastTimestamp": last,
        "involvedObject": {"kind": kind, "name": name, "namespace": "default"}})
}

#[tokio::test(start_paused = true)]
async fn a_pod_reads_as_kubectl_describes_it() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "default", "uid": "u1", "labels": {"app": "web", "tier": "front"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5f2c", "uid": "r", "controller": true}]},
        "spec": {"nodeName": "n2", "containers": [
            {"name": "app", "image": "shop/hello:1", "command": ["httpd", "-f"], "ports": [{"containerPort": 8080}],
             "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}},
             "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 2},
             "env": [{"name": "COLOUR", "value": "red"}, {"name": "MOTTO", "valueFrom": {"configMapKeyRef": {"name": "shop", "key": "motto"}}}],
             "volumeMounts": [{"name": "config", "mountPath": "/etc/shop", "readOnly": true}]}],
            "volumes": [{"name": "config", "configMap": {"name": "shop"}}],
            "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 6}]},
        "status": {"phase": "Running", "podIP": "10.214.2.7", "hostIP": "10.99.0.2", "startTime": "2027-01-01T11:55:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-01T11:55:04Z"}],
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 1, "image": "shop/hello:1", "imageID": "sha256:1",
                "containerID": "docker://abc", "state": {"running": {"startedAt": "2027-01-01T11:55:03Z"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
    let events = [
        event("Pod", "web-1", "Started", "Started container app", "2027-01-01T11:55:03Z", 2),
        event("Pod", "web-1", "Pulled", "Container image was there", "2027-01-01T11:55:01Z", 1),
        event("Pod", "web-2", "Started", "of another pod", "2027-01-01T11:55:01Z", 1),
    ];
    insta::assert_snapshot!(described(&["pod", "web-1"], pod, &events).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_shown_with_its_conditions_its_pods_and_what_they_take() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u1"},
        "spec": {"unschedulable": true},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "not heard for 7 s",
                "lastTransitionTime": "2027-01-01T11:59:00Z"}]}});
    let pod = |name: &str, node: &str, phase: &str, requests: Value| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2027-01-01T11:55:00Z"},
            "spec": {"nodeName": node, "initContainers": [
                    {"name": "setup", "resources": {"requests": {"cpu": "100m"}}},
                    {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "10m"}}}],
                "containers": [{"name": "app", "resources": {"requests": requests, "limits": {"memory": "128Mi"}}}]},
            "status": {"phase": phase}})
    };
    let pods = [
        pod("web-2", "n1", "Running", json!({"cpu": "250m", "memory": "64Mi"})),
        pod("web-1", "n1", "Pending", json!({})),
        pod("done", "n1", "Succeeded", json!({"cpu": "2"})),
        pod("elsewhere", "n2", "Running", json!({"cpu": "2"})),
    ];
    let recorded = Recorded::new([
        Ok(vec![objects(&[node])]),
        Ok(vec![objects(&[]), Answer::End]),
        Ok(vec![objects(&pods), Answer::End]),
    ]);
    let selectors = Selectors { all_namespaces: false, selector: String::new(), field_selector: String::new() };
    let arguments = Describe { what: vec!["node/n1".to_owned()], selectors };
    insta::assert_snapshot!(run_in(&recorded, async |session| run(session, arguments).await).await);
    let Some(Request::List(selection)) = recorded.requests().pop() else { panic!("no pods were asked for") };
    assert_eq!((selection.fields.as_str(), selection.namespace), ("spec.nodeName=n1", None));
}

#[tokio::test(start_paused = true)]
async fn any_other_object_shows_every_field_that_is_set() {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2027-01-01T11:00:00Z", "finalizers": ["example.com/a"]},
        "spec": {"replicas": 3, "minReadySeconds": 5, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "app", "image": "x", "args": ["a", "b"]}]}}},
        "status": {"replicas": 3, "conditions": [
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "2 of 3 are available",
             "lastTransitionTime": "2027-01-01T11:59:00Z"}]}});
    insta::assert_snapshot!(described(&["deploy/web"], deployment, &[]).await);
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_shown_only_by_its_sizes() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "default"},
        "type": "Opaque", "data": {"password": "aHVudGVyMg=="}});
    let printed = described(&["secret", "key"], secret, &[]).await;
    assert!(!printed.contains("aHVudGVyMg"));
    insta::assert_snapshot!(printed);
}
