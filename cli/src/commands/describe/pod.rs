//! A pod, as `kubectl describe pod` lays it out.
//!
//! Invariant: for every container it says what it is doing now, why, and how it ended before.

use quorate_proto::{object::Object, world::Timestamp};
use serde_json::Value;

use super::fields::{Lines, scalar};

pub(super) fn describe(pod: &Object, now: Timestamp, lines: &mut Lines) {
    let text = |path: &[&str]| pod.text(path).unwrap_or("<none>");
    lines.pair(0, "Name", pod.name());
    lines.pair(0, "Namespace", pod.namespace().unwrap_or_default());
    let node = match (pod.text(&["spec", "nodeName"]), pod.text(&["status", "hostIP"])) {
        (Some(node), Some(address)) => format!("{node}/{address}"),
        (Some(node), None) => node.to_owned(),
        (None, _) => "<none>".to_owned(),
    };
    lines.pair(0, "Node", &node);
    lines.pair(0, "Start Time", text(&["status", "startTime"]));
    lines.map(0, "Labels", pod.at(&["metadata", "labels"]), "=");
    lines.map(0, "Annotations", pod.at(&["metadata", "annotations"]), ": ");
    if pod.deletion_timestamp().is_some() {
        lines.deletion(pod);
        if let Some(grace) = pod.at(&["metadata", "deletionGracePeriodSeconds"]) {
            lines.pair(0, "Termination Grace Period", &format!("{}s", scalar(grace)));
        }
    } else {
        lines.pair(0, "Status", pod.text(&["status", "phase"]).unwrap_or("Pending"));
    }
    for (name, field) in [("Reason", "reason"), ("Message", "message")] {
        if let Some(value) = pod.text(&["status", field]) {
            lines.pair(0, name, value);
        }
    }
    lines.pair(0, "IP", text(&["status", "podIP"]));
    if let Some(owner) = pod.controller() {
        lines.pair(0, "Controlled By", &format!("{}/{}", owner.kind, owner.name));
    }
    containers("Init Containers", "initContainers", "initContainerStatuses", pod, lines);
    containers("Containers", "containers", "containerStatuses", pod, lines);
    lines.conditions(pod.at(&["status", "conditions"]), now);
    volumes(pod, lines);
    lines.map(0, "Node-Selectors", pod.at(&["spec", "nodeSelector"]), "=");
    let tolerations: Vec<_> = list(pod.at(&["spec", "tolerations"])).map(toleration).collect();
    lines.pair(0, "Tolerations", &or_none(&tolerations, "\n"));
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn or_none(parts: &[String], separator: &str) -> String {
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(separator) }
}

fn of<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn containers(heading: &str, spec: &str, status: &str, pod: &Object, lines: &mut Lines) {
    let mut specs = list(pod.at(&["spec", spec])).peekable();
    if specs.peek().is_none() {
        return;
    }
    lines.line(0, &format!("{heading}:"));
    for container in specs {
        let name = of(container, "name");
        let status = list(pod.at(&["status", status])).find(|status| of(status, "name") == name);
        self::container(container, status, lines);
    }
}

fn container(container: &Value, status: Option<&Value>, lines: &mut Lines) {
    lines.line(1, &format!("{}:", of(container, "name")));
    if let Some(status) = status {
        lines.pair(2, "Container ID", of(status, "containerID"));
    }
    lines.pair(2, "Image", of(container, "image"));
    if let Some(status) = status {
        lines.pair(2, "Image ID", of(status, "imageID"));
    }
    let ports: Vec<_> = list(container.get("ports"))
        .map(|port| {
            let protocol = Some(of(port, "protocol")).filter(|text| !text.is_empty()).unwrap_or("TCP");
            format!("{}/{protocol}", port.get("containerPort").map(scalar).unwrap_or_default())
        })
        .collect();
    lines.pair(2, "Ports", &or_none(&ports, ", "));
    for (name, field) in [("Command", "command"), ("Args", "args")] {
        let words: Vec<_> = list(container.get(field)).map(scalar).collect();
        if !words.is_empty() {
            lines.pair(2, name, &words.join("\n"));
        }
    }
    if let Some(status) = status {
        state("State", status.get("state"), lines);
        state(
            "Last State",
            status.get("lastState").filter(|state| *state != &Value::Object(serde_json::Map::new())),
            lines,
        );
        let ready = status.get("ready").and_then(Value::as_bool).unwrap_or_default();
        lines.pair(2, "Ready", if ready { "True" } else { "False" });
        lines.pair(2, "Restart Count", &status.get("restartCount").map_or_else(|| "0".to_owned(), scalar));
    }
    for (name, field) in [("Limits", "limits"), ("Requests", "requests")] {
        if let Some(Value::Object(amounts)) = container.get("resources").and_then(|resources| resources.get(field)) {
            let amounts: Vec<_> = amounts.iter().map(|(name, amount)| format!("{name}: {}", scalar(amount))).collect();
            lines.pair(2, name, &or_none(&amounts, "\n"));
        }
    }
    for (name, field) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
        if let Some(probe) = container.get(field) {
            lines.pair(2, name, &self::probe(probe));
        }
    }
    let variables: Vec<_> = list(container.get("env")).map(variable).collect();
    lines.pair(2, "Environment", &or_none(&variables, "\n"));
    let mounts: Vec<_> = list(container.get("volumeMounts"))
        .map(|mount| {
            let read_only = mount.get("readOnly").and_then(Value::as_bool).unwrap_or_default();
            let mode = if read_only { "ro" } else { "rw" };
            format!("{} from {} ({mode})", of(mount, "mountPath"), of(mount, "name"))
        })
        .collect();
    lines.pair(2, "Mounts", &or_none(&mounts, "\n"));
}

fn state(heading: &str, state: Option<&Value>, lines: &mut Lines) {
    let Some((kind, detail)) = state.and_then(Value::as_object).and_then(|state| state.iter().next()) else {
        if heading == "State" {
            lines.pair(2, heading, "Waiting");
        }
        return;
    };
    let mut name = kind.clone();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    lines.pair(2, heading, &name);
    let fields = ["reason", "message", "exitCode", "signal", "startedAt", "finishedAt"];
    let names = ["Reason", "Message", "Exit Code", "Signal", "Started", "Finished"];
    for (name, field) in names.into_iter().zip(fields) {
        if let Some(value) = detail.get(field) {
            lines.pair(3, name, &scalar(value));
        }
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, default: i64| probe.get(field).and_then(Value::as_i64).unwrap_or(default);
    let what = if let Some(get) = probe.get("httpGet") {
        format!("http-get :{}{}", get.get("port").map(scalar).unwrap_or_default(), of(get, "path"))
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!("tcp-socket :{}", socket.get("port").map(scalar).unwrap_or_default())
    } else {
        let words: Vec<_> = list(probe.get("exec").and_then(|exec| exec.get("command"))).map(scalar).collect();
        format!("exec [{}]", words.join(" "))
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3),
    )
}

fn variable(variable: &Value) -> String {
    let name = of(variable, "name");
    let Some(Value::Object(from)) = variable.get("valueFrom") else {
        return format!("{name}: {}", of(variable, "value"));
    };
    let source = from.iter().next().map(|(kind, source)| match kind.as_str() {
        "configMapKeyRef" => format!("the key '{}' of config map '{}'", of(source, "key"), of(source, "name")),
        "secretKeyRef" => format!("the key '{}' in secret '{}'", of(source, "key"), of(source, "name")),
        "fieldRef" => format!("({})", of(source, "fieldPath")),
        kind => kind.to_owned(),
    });
    format!("{name}: <set to {}>", source.unwrap_or_default())
}

fn volumes(pod: &Object, lines: &mut Lines) {
    let mut volumes = list(pod.at(&["spec", "volumes"])).peekable();
    if volumes.peek().is_none() {
        return;
    }
    lines.line(0, "Volumes:");
    for volume in volumes {
        lines.line(1, &format!("{}:", of(volume, "name")));
        for (kind, source) in volume.as_object().into_iter().flatten().filter(|(field, _)| *field != "name") {
            let detail = match kind.as_str() {
                "configMap" => format!("ConfigMap {}", of(source, "name")),
                "secret" => format!("Secret {}", of(source, "secretName")),
                "emptyDir" => format!("EmptyDir {}", of(source, "medium")),
                "hostPath" => format!("HostPath {}", of(source, "path")),
                kind => kind.to_owned(),
            };
            lines.pair(2, "Type", detail.trim_end());
        }
    }
}

fn toleration(toleration: &Value) -> String {
    let mut text = of(toleration, "key").to_owned();
    if !of(toleration, "value").is_empty() {
        text.push_str(&format!("={}", of(toleration, "value")));
    }
    if !of(toleration, "effect").is_empty() {
        text.push_str(&format!(":{}", of(toleration, "effect")));
    }
    if of(toleration, "operator") == "Exists" {
        text.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration.get("tolerationSeconds") {
        text.push_str(&format!(" for {}s", scalar(seconds)));
    }
    text
}
