//! A cluster as the lower half of a story shows it: pods by owner and age, nodes by name.
//!
//! Invariant: a pod keeps its line: its index is given when it is first shown, in the order of creation.

use std::{collections::BTreeMap, fmt::Write as _};

use quorate_proto::{
    kinds::{DEPLOYMENTS, NODES, PODS, REPLICASETS},
    object::Object,
    snapshot::Snapshot,
};
use serde_json::Value;

/// Which pod is which.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    by_uid: BTreeMap<String, (String, usize)>,
    last: BTreeMap<String, usize>,
}

pub(super) fn pods(snapshot: &Snapshot, indexes: &mut Indexes) -> String {
    let mut pods: Vec<_> = snapshot.list(&PODS).collect();
    pods.sort_by_key(|stored| (stored.created, stored.key.clone()));
    let mut rows = BTreeMap::new();
    for stored in pods {
        let pod = &stored.object;
        let index = indexes.by_uid.entry(pod.uid().to_owned()).or_insert_with(|| {
            let owner = owner(snapshot, pod);
            let last = indexes.last.entry(owner.clone()).or_default();
            *last += 1;
            (owner, *last)
        });
        let node = pod.text(&["spec", "nodeName"]).unwrap_or("-").to_owned();
        rows.insert(index.clone(), (node, status(pod)));
    }
    let mut text = String::new();
    for ((owner, index), (node, status)) in rows {
        _ = writeln!(text, "{:<8}{node:<4}{status}", format!("{owner}/{index}"));
    }
    text
}

/// The deployment, or else the replicaset, or else the pod itself.
fn owner(snapshot: &Snapshot, pod: &Object) -> String {
    let namespace = pod.namespace();
    let Some(set) = pod.controller() else { return pod.name().to_owned() };
    let Some(set) = snapshot.find(&REPLICASETS, namespace, &set.name) else { return set.name };
    match set.object.controller() {
        Some(owner) if snapshot.find(&DEPLOYMENTS, namespace, &owner.name).is_some() => owner.name,
        _ => set.object.name().to_owned(),
    }
}

fn status(pod: &Object) -> String {
    let phase = pod.text(&["status", "phase"]).unwrap_or("Pending");
    if pod.deletion_timestamp().is_some() {
        return "Terminating".to_owned();
    }
    if pod.is_true("Ready") {
        return "Ready".to_owned();
    }
    let containers = pod.at(&["status", "containerStatuses"]).and_then(Value::as_array).into_iter().flatten();
    let waiting = containers.filter_map(|status| status.get("state")?.get("waiting"));
    for reason in waiting {
        let text = |field: &str| reason.get(field).and_then(Value::as_str).unwrap_or_default();
        return match text("message") {
            "" => text("reason").to_owned(),
            message => format!("{}: {message}", text("reason")),
        };
    }
    let scheduled = pod.condition("PodScheduled").filter(|condition| condition["status"] == "False");
    match scheduled.and_then(|condition| condition["message"].as_str()) {
        Some(message) => format!("{phase}: {message}"),
        None => phase.to_owned(),
    }
}

pub(super) fn nodes(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for stored in snapshot.list(&NODES) {
        let node = &stored.object;
        let ready = node.condition("Ready").and_then(|condition| condition["status"].as_str());
        let how = match ready {
            Some("True") => "Ready",
            Some("Unknown") => "Unknown",
            _ => "NotReady",
        };
        let cordoned = node.at(&["spec", "unschedulable"]) == Some(&Value::Bool(true));
        _ = writeln!(text, "{:<8}{how}{}", node.name(), if cordoned { ",cordoned" } else { "" });
    }
    text
}
