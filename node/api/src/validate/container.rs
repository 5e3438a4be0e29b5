//! The containers of a pod.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::{
    k8s::api::core::v1::{Container, EnvVar, Probe, ResourceRequirements},
    quantity::Quantity,
};

use super::{
    names,
    rules::{exactly_one, not_negative, number, one_of, pod_field, target},
};
use crate::message::{Problem, cut};

/// Validates one; an init container that has a restart policy of its own (a sidecar) goes on beside the others.
pub(super) fn container(
    path: &str,
    container: &Container,
    init: bool,
    volumes: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
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
    if container.restart_policy.is_some() && !init {
        let problem = Problem::new(&format!("{path}.restartPolicy"), "is for init containers only");
        problems.push(problem.hint("set the `restartPolicy` of the pod"));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(&format!("{path}.imagePullPolicy"), container.image_pull_policy.as_deref(), &policies, problems);
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = container.termination_message_policy.as_deref();
    one_of(&format!("{path}.terminationMessagePolicy"), policy, &policies, problems);
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
        let sources = [("configMapRef", source.config_map_ref.is_some()), ("secretRef", source.secret_ref.is_some())];
        exactly_one(&format!("{path}.envFrom[{index}]"), &sources, problems);
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
    hooks(path, container, init, problems);
    for (field, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let path = format!("{path}.{field}");
        if init && container.restart_policy.is_none() {
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
    let sources = [
        ("configMapKeyRef", from.config_map_key_ref.is_some()),
        ("secretKeyRef", from.secret_key_ref.is_some()),
        ("fieldRef", from.field_ref.is_some()),
        ("resourceFieldRef", from.resource_field_ref.is_some()),
    ];
    exactly_one(&path, &sources, problems);
    if let Some(field) = &from.field_ref {
        pod_field(&format!("{path}.fieldRef.fieldPath"), &field.field_path, problems);
    }
    if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        problems.push(Problem::new(&path, "must not be there together with `value`"));
    }
}

fn resources(path: &str, resources: &ResourceRequirements, problems: &mut Vec<Problem>) {
    let mut amounts = [("requests", &resources.requests), ("limits", &resources.limits)].map(|(field, amounts)| {
        let mut read = BTreeMap::new();
        for (resource, amount) in amounts.iter().flatten() {
            let path = format!("{path}.{field}[{resource}]");
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
            problems.push(Problem::new(&format!("{path}.requests[{resource}]"), sentence));
        }
    }
}

/// What is called when the container was started, and before it is stopped.
fn hooks(path: &str, container: &Container, init: bool, problems: &mut Vec<Problem>) {
    let Some(lifecycle) = &container.lifecycle else { return };
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(handler) = handler else { continue };
        let path = format!("{path}.lifecycle.{field}");
        if init && container.restart_policy.is_none() {
            problems.push(Problem::new(&path, "is not possible for an init container: it is waited for until it ends"));
        }
        let handlers = [
            ("exec", handler.exec.is_some()),
            ("httpGet", handler.http_get.is_some()),
            ("sleep", handler.sleep.is_some()),
        ];
        exactly_one(&path, &handlers, problems);
        if handler.exec.as_ref().is_some_and(|exec| exec.command.iter().flatten().next().is_none()) {
            problems.push(Problem::new(&format!("{path}.exec.command"), "must not be empty"));
        }
        if let Some(get) = &handler.http_get {
            target(&format!("{path}.httpGet.port"), &get.port, problems);
        }
        not_negative(&format!("{path}.sleep.seconds"), handler.sleep.as_ref().map(|sleep| sleep.seconds), problems);
    }
}

fn probe(path: &str, probe: &Probe, once: bool, problems: &mut Vec<Problem>) {
    let handlers = [
        ("exec", probe.exec.is_some()),
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
    ];
    exactly_one(path, &handlers, problems);
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
