//! The cells that are computed from a whole object, as `kubectl` prints them.
//! Source: kubernetes `pkg/printers/internalversion/printers.go`.

use quorate_proto::{
    k8s::{
        api::core::v1::{ContainerStatus, Pod, Service},
        apimachinery::pkg::apis::meta::v1::LabelSelector,
    },
    object::Object,
    selector::Selector,
    world::Timestamp,
};
use serde_json::Value;

use crate::age;

mod batch;

const NONE: &str = "<none>";

/// The text of a computed cell; `None` if there is no function of this name.
pub(crate) fn computed(name: &str, object: &Object, now: Timestamp) -> Option<String> {
    Some(match name {
        "deployment_ready" => {
            let number = |path: &[&str], missing| object.at(path).and_then(Value::as_i64).unwrap_or(missing);
            format!("{}/{}", number(&["status", "readyReplicas"], 0), number(&["spec", "replicas"], 1))
        }
        "template_containers" => template(object, &["spec", "template"], "name"),
        "template_images" => template(object, &["spec", "template"], "image"),
        "template_node_selector" => {
            let labels = object.strings(&["spec", "template", "spec", "nodeSelector"]);
            or_none(Selector::of_labels(labels).to_string())
        }
        "label_selector" => label_selector(object),
        "node_status" => node_status(object),
        "node_roles" => node_roles(object),
        "node_internal_ip" => node_internal_ip(object),
        "data_count" => ["data", "binaryData"]
            .into_iter()
            .filter_map(|field| object.at(&[field])?.as_object())
            .map(serde_json::Map::len)
            .sum::<usize>()
            .to_string(),
        "service_external_ip" => match object.text(&["spec", "type"]) {
            Some("ExternalName") => object.text(&["spec", "externalName"]).unwrap_or(NONE).to_owned(),
            _ => NONE.to_owned(),
        },
        "service_ports" => service_ports(object),
        "service_selector" => or_none(Selector::of_labels(object.strings(&["spec", "selector"])).to_string()),
        "pod_ready" => pod_ready(object),
        "pod_status" => pod_status(object),
        "pod_restarts" => pod_restarts(object, now),
        "job_status" => batch::job_status(object).to_owned(),
        "job_completions" => batch::job_completions(object),
        "job_duration" => batch::job_duration(object, now),
        "cronjob_suspend" => batch::cronjob_suspend(object).to_owned(),
        "cronjob_active" => batch::cronjob_active(object).to_string(),
        "cronjob_last_schedule" => batch::cronjob_last_schedule(object, now),
        "cronjob_containers" => template(object, &["spec", "jobTemplate", "spec", "template"], "name"),
        "cronjob_images" => template(object, &["spec", "jobTemplate", "spec", "template"], "image"),
        "event_last_seen" => {
            let times = ["lastTimestamp", "eventTime", "firstTimestamp"];
            let time = times.into_iter().find_map(|field| object.text(&[field]));
            time.map_or_else(|| "<unknown>".to_owned(), |time| age::since(time, now))
        }
        "event_object" => {
            let text = |field| object.text(&["involvedObject", field]).unwrap_or_default();
            format!("{}/{}", text("kind").to_lowercase(), text("name"))
        }
        _ => return None,
    })
}

fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn template(object: &Object, path: &[&str], field: &str) -> String {
    let path: Vec<&str> = path.iter().copied().chain(["spec", "containers"]).collect();
    let containers = object.at(&path).and_then(Value::as_array);
    let texts = containers.into_iter().flatten().filter_map(|container| container.get(field)?.as_str());
    texts.collect::<Vec<_>>().join(",")
}

fn label_selector(object: &Object) -> String {
    let selector = object.at(&["spec", "selector"]).and_then(|selector| {
        let selector: LabelSelector = serde::Deserialize::deserialize(selector).ok()?;
        Selector::of_label_selector(&selector).ok()
    });
    selector.map_or_else(|| NONE.to_owned(), |selector| or_none(selector.to_string()))
}

fn node_status(node: &Object) -> String {
    let ready = node.condition("Ready").and_then(|condition| condition.get("status")).and_then(Value::as_str);
    let ready = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    match node.at(&["spec", "unschedulable"]) {
        Some(Value::Bool(true)) => format!("{ready},SchedulingDisabled"),
        _ => ready.to_owned(),
    }
}

fn node_roles(node: &Object) -> String {
    let roles = node.labels().into_keys().filter_map(|label| label.strip_prefix("node-role.kubernetes.io/"));
    or_none(roles.collect::<Vec<_>>().join(","))
}

fn node_internal_ip(node: &Object) -> String {
    let addresses = node.at(&["status", "addresses"]).and_then(Value::as_array);
    let internal = addresses.into_iter().flatten().find(|address| address["type"] == "InternalIP");
    internal.and_then(|address| address["address"].as_str()).unwrap_or(NONE).to_owned()
}

fn service_ports(object: &Object) -> String {
    let Ok(service) = object.view::<Service>() else { return NONE.to_owned() };
    let ports = service.spec.into_iter().flat_map(|spec| spec.ports.unwrap_or_default()).map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.node_port {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", port.port),
            _ => format!("{}/{protocol}", port.port),
        }
    });
    or_none(ports.collect::<Vec<_>>().join(","))
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

fn init_statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default()
}

fn pod_ready(object: &Object) -> String {
    let Ok(pod) = object.view::<Pod>() else { return "0/0".to_owned() };
    let ready = statuses(&pod).iter().filter(|status| status.ready).count();
    format!("{ready}/{}", pod.spec.map_or(0, |spec| spec.containers.len()))
}

fn pod_restarts(object: &Object, now: Timestamp) -> String {
    let Ok(pod) = object.view::<Pod>() else { return "0".to_owned() };
    let all = || statuses(&pod).iter().chain(init_statuses(&pod));
    let count: i32 = all().map(|status| status.restart_count).sum();
    let ends = all().filter_map(|status| status.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    match ends.map(|time| time.0).max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", age::since(&last.to_string(), now)),
        _ => count.to_string(),
    }
}

/// The one word that says how a pod is.
fn pod_status(object: &Object) -> String {
    let Ok(pod) = object.view::<Pod>() else { return "Unknown".to_owned() };
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or_default();
    if object.deletion_timestamp().is_some() && !matches!(phase, "Succeeded" | "Failed") {
        return if reason == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    if let Some(text) = initializing(&pod) {
        return text;
    }
    let mut text = if reason.is_empty() { phase } else { reason }.to_owned();
    let mut running = false;
    for container in statuses(&pod).iter().rev() {
        let Some(state) = &container.state else { continue };
        if let Some(waiting) = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone()) {
            text = waiting;
        } else if let Some(ended) = &state.terminated {
            text = ended_as(ended.reason.as_deref(), ended.signal, ended.exit_code);
        } else if container.ready && state.running.is_some() {
            running = true;
        }
    }
    if text == "Completed" && running {
        return if object.is_true("Ready") { "Running" } else { "NotReady" }.to_owned();
    }
    text
}

/// What a pod waits for before its containers may start.
fn initializing(pod: &Pod) -> Option<String> {
    let statuses = init_statuses(pod);
    let all = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).map_or(statuses.len(), Vec::len);
    let (index, container) = statuses.iter().enumerate().find(|(_, status)| {
        let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.is_none_or(|ended| ended.exit_code != 0)
    })?;
    let state = container.state.as_ref();
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        return Some(format!("Init:{}", ended_as(ended.reason.as_deref(), ended.signal, ended.exit_code)));
    }
    let waiting = state.and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    match waiting.filter(|reason| !matches!(*reason, "" | "PodInitializing")) {
        Some(reason) => Some(format!("Init:{reason}")),
        None => Some(format!("Init:{index}/{all}")),
    }
}

fn ended_as(reason: Option<&str>, signal: Option<i32>, exit_code: i32) -> String {
    match (reason.filter(|reason| !reason.is_empty()), signal.filter(|signal| *signal != 0)) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(signal)) => format!("Signal:{signal}"),
        (None, None) => format!("ExitCode:{exit_code}"),
    }
}
