//! Pods and pod templates.

use std::collections::BTreeSet;

use quorate_proto::{
    k8s::{
        api::core::v1::{Container, EnvVar, Pod, PodSpec, Probe, ResourceRequirements, Toleration, Volume},
        apimachinery::pkg::util::intstr::IntOrString,
    },
    object::Object,
    quantity::Quantity,
};
use serde_json::Value;

use super::{labels, names};
use crate::message::{Problem, cut};

pub(super) fn object(pod: &Pod, problems: &mut Vec<Problem>) {
    match &pod.spec {
        Some(spec) => self::spec("spec", spec, problems),
        None => problems.push(Problem::new("spec", "is missing: a pod needs containers")),
    }
}

/// What may change in a pod that exists: the images of its containers, and more tolerations. A pod is replaced, not moved or rebuilt.
pub(super) fn change(stored: &Object, next: &Object, problems: &mut Vec<Problem>) {
    let mut allowed = stored.clone();
    for list in ["containers", "initContainers"] {
        let (Some(Value::Array(before)), Some(Value::Array(after))) =
            (stored.at(&["spec", list]), next.at(&["spec", list]))
        else {
            continue;
        };
        let mut containers = before.clone();
        for (container, after) in containers.iter_mut().zip(after) {
            if let Some(image) = after.get("image") {
                container["image"] = image.clone();
            }
        }
        allowed.set(&["spec", list], containers);
    }
    let tolerations =
        |pod: &Object| pod.at(&["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let after = tolerations(next);
    if tolerations(stored).iter().all(|toleration| after.contains(toleration))
        && let Some(tolerations) = next.at(&["spec", "tolerations"])
    {
        allowed.set(&["spec", "tolerations"], tolerations.clone());
    }
    let (Some(Value::Object(allowed)), Some(Value::Object(wanted))) = (allowed.at(&["spec"]), next.at(&["spec"]))
    else {
        return;
    };
    let fields: BTreeSet<&String> = allowed.keys().chain(wanted.keys()).collect();
    for field in fields.into_iter().filter(|field| allowed.get(*field) != wanted.get(*field)) {
        let problem =
            Problem::new(&format!("spec.{field}"), "of a pod cannot be changed: only images, and more tolerations");
        problems.push(problem.hint("delete the pod and create it anew, or use a Deployment"));
    }
}

pub(super) fn spec(path: &str, spec: &PodSpec, problems: &mut Vec<Problem>) {
    if spec.containers.is_empty() {
        problems.push(Problem::new(&format!("{path}.containers"), "must have at least one container"));
    }
    let volumes = volumes(&format!("{path}.volumes"), spec.volumes.as_deref().unwrap_or_default(), problems);
    let mut seen = BTreeSet::new();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let all =
        init.iter().enumerate().map(|(index, container)| (format!("{path}.initContainers[{index}]"), container, true));
    let all = all.chain(
        spec.containers
            .iter()
            .enumerate()
            .map(|(index, container)| (format!("{path}.containers[{index}]"), container, false)),
    );
    for (path, container, init) in all {
        if !seen.insert(&container.name) {
            problems.push(Problem::new(&format!("{path}.name"), format!("`{}` is used twice", cut(&container.name))));
        }
        self::container(&path, container, init, &volumes, problems);
    }
    one_of(
        &format!("{path}.restartPolicy"),
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
        problems,
    );
    not_negative(&format!("{path}.terminationGracePeriodSeconds"), spec.termination_grace_period_seconds, problems);
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(Err(sentence)) = name.as_deref().map(names::label) {
            problems.push(Problem::new(&format!("{path}.{field}"), sentence));
        }
    }
    if let Some(Err(sentence)) = spec.node_name.as_deref().map(names::subdomain) {
        problems.push(Problem::new(&format!("{path}.nodeName"), sentence));
    }
    if let Some(selector) = &spec.node_selector {
        labels(
            &format!("{path}.nodeSelector"),
            selector.iter().map(|(key, value)| (key.as_str(), value.as_str())),
            problems,
        );
    }
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        self::toleration(&format!("{path}.tolerations[{index}]"), toleration, problems);
    }
}

fn container(path: &str, container: &Container, init: bool, volumes: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    if let Err(sentence) = names::label(&container.name) {
        problems.push(Problem::new(&format!("{path}.name"), sentence));
    }
    match container.image.as_deref() {
        None | Some("") => problems.push(Problem::new(&format!("{path}.image"), "is missing")),
        Some(image) if image.trim() != image => {
            problems.push(Problem::new(&format!("{path}.image"), "must not begin or end with a space"));
        }
        Some(_) => {}
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(&format!("{path}.imagePullPolicy"), container.image_pull_policy.as_deref(), &policies, problems);
    let mut ports = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        number(&format!("{path}.containerPort"), port.container_port, 1..=65_535, problems);
        if let Some(name) = port.name.as_deref() {
            if let Err(sentence) = names::port(name) {
                problems.push(Problem::new(&format!("{path}.name"), sentence));
            } else if !ports.insert(name) {
                problems.push(Problem::new(&format!("{path}.name"), format!("`{}` is used twice", cut(name))));
            }
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        self::variable(&format!("{path}.env[{index}]"), variable, problems);
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        if source.config_map_ref.is_some() == source.secret_ref.is_some() {
            let sentence = "needs exactly one of `configMapRef` and `secretRef`";
            problems.push(Problem::new(&format!("{path}.envFrom[{index}]"), sentence));
        }
    }
    let mut mounted = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !volumes.contains(mount.name.as_str()) {
            let sentence = format!("is `{}`, but the pod has no such volume", cut(&mount.name));
            problems.push(Problem::new(&format!("{path}.name"), sentence).hint("add it to `volumes`"));
        }
        if !mount.mount_path.starts_with('/') {
            let sentence = format!("must begin with `/`, not be `{}`", cut(&mount.mount_path));
            problems.push(Problem::new(&format!("{path}.mountPath"), sentence));
        }
        if !mounted.insert(&mount.mount_path) {
            problems.push(Problem::new(
                &format!("{path}.mountPath"),
                format!("`{}` is used twice", cut(&mount.mount_path)),
            ));
        }
    }
    if let Some(resources) = &container.resources {
        self::resources(&format!("{path}.resources"), resources, problems);
    }
    for (field, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let path = format!("{path}.{field}");
        if init {
            problems.push(Problem::new(&path, "is not possible for an init container: it is waited for until it ends"));
        }
        self::probe(&path, probe, field != "readinessProbe", problems);
    }
}

fn variable(path: &str, variable: &EnvVar, problems: &mut Vec<Problem>) {
    if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
        let sentence = format!("must not be empty and must not contain `=`, as `{}`", cut(&variable.name));
        problems.push(Problem::new(&format!("{path}.name"), sentence));
    }
    let Some(from) = &variable.value_from else { return };
    let path = format!("{path}.valueFrom");
    let sources = [from.config_map_key_ref.is_some(), from.secret_key_ref.is_some(), from.field_ref.is_some()];
    if sources.iter().filter(|given| **given).count() != 1 {
        problems.push(Problem::new(&path, "needs exactly one of `configMapKeyRef`, `secretKeyRef` and `fieldRef`"));
    }
    if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        problems.push(Problem::new(&path, "must not be there together with `value`"));
    }
}

fn resources(path: &str, resources: &ResourceRequirements, problems: &mut Vec<Problem>) {
    let mut amounts = [("requests", &resources.requests), ("limits", &resources.limits)].map(|(field, amounts)| {
        let mut read = std::collections::BTreeMap::new();
        for (resource, amount) in amounts.iter().flatten() {
            let path = format!("{path}.{field}.{resource}");
            match amount.0.parse::<Quantity>() {
                Ok(amount) if amount < Quantity::ZERO => problems.push(Problem::new(&path, "must not be negative")),
                Ok(amount) => {
                    read.insert(resource.as_str(), amount);
                }
                Err(error) => problems.push(Problem::new(&path, format!("is no amount: {error}"))),
            }
        }
        read
    });
    let limits = std::mem::take(&mut amounts[1]);
    for (resource, request) in &amounts[0] {
        if let Some(limit) = limits.get(resource).filter(|limit| *limit < request) {
            let sentence = format!("is {request}, more than the limit of {limit}");
            problems.push(Problem::new(&format!("{path}.requests.{resource}"), sentence));
        }
    }
}

fn probe(path: &str, probe: &Probe, once: bool, problems: &mut Vec<Problem>) {
    let handlers = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some()];
    if handlers.iter().filter(|given| **given).count() != 1 {
        problems.push(Problem::new(path, "needs exactly one of `exec`, `httpGet` and `tcpSocket`"));
    }
    if probe.exec.as_ref().is_some_and(|exec| exec.command.iter().flatten().next().is_none()) {
        problems.push(Problem::new(&format!("{path}.exec.command"), "must not be empty"));
    }
    for port in probe.http_get.iter().map(|get| &get.port).chain(probe.tcp_socket.iter().map(|socket| &socket.port)) {
        target(&format!("{path}.port"), port, problems);
    }
    not_negative(&format!("{path}.initialDelaySeconds"), probe.initial_delay_seconds.map(i64::from), problems);
    for (field, value) in [
        ("periodSeconds", probe.period_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if value.is_some_and(|value| value < 1) {
            problems.push(Problem::new(&format!("{path}.{field}"), "must be at least 1"));
        }
    }
    if once && probe.success_threshold.is_some_and(|value| value > 1) {
        problems.push(Problem::new(&format!("{path}.successThreshold"), "must be 1 for liveness and startup"));
    }
}

/// A port, by number or by name.
pub(super) fn target(path: &str, port: &IntOrString, problems: &mut Vec<Problem>) {
    match port {
        IntOrString::Int(port) => number(path, *port, 1..=65_535, problems),
        IntOrString::String(name) => {
            if let Err(sentence) = names::port(name) {
                problems.push(Problem::new(path, sentence));
            }
        }
    }
}

fn volumes<'a>(path: &str, volumes: &'a [Volume], problems: &mut Vec<Problem>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Err(sentence) = names::label(&volume.name) {
            problems.push(Problem::new(&format!("{path}.name"), sentence));
        }
        if !seen.insert(volume.name.as_str()) {
            problems.push(Problem::new(&format!("{path}.name"), format!("`{}` is used twice", cut(&volume.name))));
        }
        let sources = [
            volume.config_map.is_some(),
            volume.secret.is_some(),
            volume.empty_dir.is_some(),
            volume.host_path.is_some(),
        ];
        if sources.iter().filter(|given| **given).count() > 1 {
            problems.push(Problem::new(&path, "has more than one source"));
        }
        if volume.config_map.as_ref().is_some_and(|source| source.name.is_empty()) {
            problems.push(Problem::new(&format!("{path}.configMap.name"), "is missing"));
        }
        if volume.secret.as_ref().is_some_and(|source| source.secret_name.as_deref().unwrap_or_default().is_empty()) {
            problems.push(Problem::new(&format!("{path}.secret.secretName"), "is missing"));
        }
        if volume
            .host_path
            .as_ref()
            .is_some_and(|host| !host.path.starts_with('/') || host.path.split('/').any(|part| part == ".."))
        {
            problems.push(Problem::new(&format!("{path}.hostPath.path"), "must begin with `/` and not contain `..`"));
        }
        let items = volume.config_map.iter().flat_map(|source| source.items.iter().flatten());
        let items = items.chain(volume.secret.iter().flat_map(|source| source.items.iter().flatten()));
        for item in items.filter(|item| {
            item.path.is_empty() || item.path.starts_with('/') || item.path.split('/').any(|part| part == "..")
        }) {
            let sentence = format!("has the path `{}`: it must be relative and not contain `..`", cut(&item.path));
            problems.push(Problem::new(&format!("{path}.items"), sentence));
        }
    }
    seen
}

fn toleration(path: &str, toleration: &Toleration, problems: &mut Vec<Problem>) {
    let operator = toleration.operator.as_deref();
    one_of(&format!("{path}.operator"), operator, &["Exists", "Equal"], problems);
    one_of(
        &format!("{path}.effect"),
        toleration.effect.as_deref().filter(|effect| !effect.is_empty()),
        &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        problems,
    );
    let (key, value) = [&toleration.key, &toleration.value].map(|text| text.as_deref().unwrap_or_default()).into();
    if key.is_empty() && operator != Some("Exists") {
        problems.push(Problem::new(&format!("{path}.operator"), "must be `Exists` where there is no `key`"));
    }
    if !value.is_empty() && operator == Some("Exists") {
        problems.push(Problem::new(&format!("{path}.value"), "must be empty where the operator is `Exists`"));
    }
    if toleration.toleration_seconds.is_some() && toleration.effect.as_deref() != Some("NoExecute") {
        problems.push(Problem::new(&format!("{path}.tolerationSeconds"), "needs the effect `NoExecute`"));
    }
}

pub(super) fn one_of(path: &str, value: Option<&str>, known: &[&str], problems: &mut Vec<Problem>) {
    if let Some(value) = value.filter(|value| !known.contains(value)) {
        let known = known.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        problems.push(Problem::new(path, format!("must be one of {known}, not `{}`", cut(value))));
    }
}

pub(super) fn not_negative(path: &str, value: Option<i64>, problems: &mut Vec<Problem>) {
    if let Some(value) = value.filter(|value| *value < 0) {
        problems.push(Problem::new(path, format!("must not be negative, but is {value}")));
    }
}

pub(super) fn number(path: &str, value: i32, range: std::ops::RangeInclusive<i32>, problems: &mut Vec<Problem>) {
    if !range.contains(&value) {
        problems.push(Problem::new(path, format!("must be from {} to {}, not {value}", range.start(), range.end())));
    }
}
