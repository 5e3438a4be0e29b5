//! A cluster as the lower half of a story shows it: pods by owner and age, nodes by name.
//!
//! Invariant: a pod keeps its line: its index is given when it is first shown, in the order of creation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use quorate_agent::runtime::Container;
use quorate_proto::{
    endpoints,
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
        let shown = format!("{}/{}", index.0, index.1);
        rows.insert(index.clone(), (node, status(pod).replace(pod.name(), &shown).replace(pod.uid(), "…")));
    }
    let rows = rows.into_iter().map(|((owner, index), (node, status))| [format!("{owner}/{index}"), node, status]);
    aligned(&rows.collect::<Vec<_>>())
}

/// Rows with their columns below each other.
fn aligned(rows: &[[String; 3]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let (first, second) = (width(0).max(6), width(1).max(2));
    rows.iter().map(|[one, two, three]| format!("{one:<first$}  {two:<second$}  {three}\n")).collect()
}

impl Indexes {
    /// A pod as it is shown, if it was shown before.
    fn of(&self, uid: &str) -> Option<String> {
        self.by_uid.get(uid).map(|(owner, index)| format!("{owner}/{index}"))
    }
}

/// Containers by node and pod, each with the number it got on its node when it was made.
pub(super) fn containers(containers: Vec<Container>, indexes: &Indexes) -> String {
    let mut rows = BTreeSet::new();
    for container in containers {
        let pod = indexes.of(&container.pod.uid).unwrap_or(container.pod.name);
        let what = format!("runs as container {}", container.id.trim_start_matches('0'));
        rows.insert([pod, container.node, what]);
    }
    aligned(&rows.into_iter().collect::<Vec<_>>())
}

/// Services with the pods that get their connections.
pub(super) fn services(snapshot: &Snapshot, indexes: &Indexes) -> String {
    let mut text = String::new();
    for service in endpoints::derive(snapshot) {
        let ready = service.pods.iter().filter(|endpoint| endpoint.ready);
        let pods: BTreeSet<String> = ready
            .filter_map(|endpoint| snapshot.find(&PODS, Some(&service.namespace), &endpoint.pod))
            .filter_map(|pod| indexes.of(pod.object.uid()))
            .collect();
        let pods: Vec<String> = pods.into_iter().collect();
        _ = writeln!(
            text,
            "service {} → {}",
            service.name,
            if pods.is_empty() { "nobody".to_owned() } else { pods.join(" ") }
        );
    }
    text
}

/// Pods whose status names a reason, with it and its message.
pub(super) fn reasons(snapshot: &Snapshot, indexes: &Indexes) -> String {
    let rows = snapshot.list(&PODS).filter_map(|stored| {
        let pod = &stored.object;
        let why = format!("{}: {}", pod.text(&["status", "reason"])?, pod.text(&["status", "message"])?);
        Some([indexes.of(pod.uid())?, pod.text(&["spec", "nodeName"])?.to_owned(), why])
    });
    let rows: BTreeSet<_> = rows.collect();
    aligned(&rows.into_iter().collect::<Vec<_>>())
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
    let mut containers = pod.at(&["status", "containerStatuses"]).and_then(Value::as_array).into_iter().flatten();
    if let Some(waiting) = containers.find_map(|status| status.get("state")?.get("waiting")) {
        let text = |field: &str| waiting.get(field).and_then(Value::as_str).unwrap_or_default();
        return match text("message") {
            "" => text("reason").to_owned(),
            message => format!("{}: {message}", text("reason")),
        };
    }
    if phase == "Running" {
        return "Running, not ready".to_owned();
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
