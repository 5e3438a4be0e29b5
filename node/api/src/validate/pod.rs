//! Pods and pod templates.

use std::{collections::BTreeSet, net::IpAddr};

use quorate_proto::{
    k8s::api::core::v1::{Pod, PodSpec, Toleration, Volume},
    object::Object,
    selector::Requirement,
};
use serde_json::Value;

use super::{
    container, labels, names,
    rules::{not_negative, one_of, pod_field, relative},
};
use crate::message::{Problem, cut};

/// The most name servers of a pod, as in Kubernetes: resolvers ask no more.
const MAX_NAMESERVERS: usize = 3;

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
        container::container(&path, container, init, &volumes, problems);
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
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        problems
            .push(Problem::new(&format!("{path}.shareProcessNamespace"), "must not be there together with `hostPID`"));
    }
    names_and_addresses(path, spec, problems);
    affinity(path, spec, problems);
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

/// How a pod resolves names, and what it is to know without asking.
fn names_and_addresses(path: &str, spec: &PodSpec, problems: &mut Vec<Problem>) {
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(&format!("{path}.dnsPolicy"), spec.dns_policy.as_deref(), &policies, problems);
    let servers = spec.dns_config.iter().flat_map(|config| config.nameservers.iter().flatten()).collect::<Vec<_>>();
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        let sentence = "needs at least one server where `dnsPolicy` is `None`";
        problems.push(Problem::new(&format!("{path}.dnsConfig.nameservers"), sentence));
    }
    if servers.len() > MAX_NAMESERVERS {
        let sentence = format!("has {} servers, at most {MAX_NAMESERVERS} are asked", servers.len());
        problems.push(Problem::new(&format!("{path}.dnsConfig.nameservers"), sentence));
    }
    let aliases = spec.host_aliases.iter().flatten();
    let addresses = servers.into_iter().map(|server| ("dnsConfig.nameservers", server));
    for (field, address) in addresses.chain(aliases.clone().map(|alias| ("hostAliases", &alias.ip))) {
        if address.parse::<IpAddr>().is_err() {
            let sentence = format!("has `{}`, which is no IP address", cut(address));
            problems.push(Problem::new(&format!("{path}.{field}"), sentence));
        }
    }
    for name in aliases.flat_map(|alias| alias.hostnames.iter().flatten()) {
        if let Err(sentence) = names::subdomain(name) {
            problems.push(Problem::new(&format!("{path}.hostAliases"), sentence));
        }
    }
}

/// The nodes a pod may run on, as far as its affinity says.
fn affinity(path: &str, spec: &PodSpec, problems: &mut Vec<Problem>) {
    let node = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let Some(required) = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref()) else {
        return;
    };
    let path = format!("{path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if required.node_selector_terms.is_empty() {
        problems.push(Problem::new(&path, "must have at least one term"));
    }
    for (index, term) in required.node_selector_terms.iter().enumerate() {
        for expression in term.match_expressions.iter().flatten() {
            let values = expression.values.as_deref().unwrap_or_default();
            if let Err(error) = Requirement::new(&expression.key, &expression.operator, values) {
                problems.push(Problem::new(
                    &format!("{path}[{index}].matchExpressions"),
                    format!("is no selector: {error}"),
                ));
            }
        }
        for field in term.match_fields.iter().flatten().filter(|field| field.key != "metadata.name") {
            let sentence = format!("has the key `{}`: nodes are selected by `metadata.name` only", cut(&field.key));
            problems.push(Problem::new(&format!("{path}[{index}].matchFields"), sentence));
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
            volume.downward_api.is_some(),
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
        for item in items {
            relative(&format!("{path}.items"), &item.path, problems);
        }
        for file in volume.downward_api.iter().flat_map(|source| source.items.iter().flatten()) {
            relative(&format!("{path}.downwardAPI.items"), &file.path, problems);
            match &file.field_ref {
                Some(field) => {
                    pod_field(&format!("{path}.downwardAPI.items.fieldRef.fieldPath"), &field.field_path, problems);
                }
                None => problems.push(Problem::new(&format!("{path}.downwardAPI.items.fieldRef"), "is missing")),
            }
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
