//! Defaults of pods and of pod templates.

use serde_json::{Map, Value, json};

use super::{inner, items, missing};

/// The mode of files from config maps and secrets: 0644.
const FILE_MODE: u32 = 0o644;

/// Fills in the spec of a pod.
pub(super) fn spec(spec: &mut Map<String, Value>) {
    missing(spec, "restartPolicy", "Always");
    missing(spec, "terminationGracePeriodSeconds", 30);
    missing(spec, "dnsPolicy", "ClusterFirst");
    missing(spec, "enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(container);
    }
    items(spec, "volumes").for_each(volume);
}

fn container(container: &mut Map<String, Value>) {
    let policy = container.get("image").and_then(Value::as_str).map(pull_policy);
    if let Some(policy) = policy {
        missing(container, "imagePullPolicy", policy);
    }
    for port in items(container, "ports") {
        missing(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(field) = inner(variable, "valueFrom").and_then(|source| inner(source, "fieldRef")) {
            missing(field, "apiVersion", "v1");
        }
    }
    if let Some(resources) = inner(container, "resources")
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        missing(resources, "requests", json!({}));
        if let Some(requests) = inner(resources, "requests") {
            for (resource, limit) in limits {
                missing(requests, &resource, limit);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = inner(container, probe) else { continue };
        missing(probe, "timeoutSeconds", 1);
        missing(probe, "periodSeconds", 10);
        missing(probe, "successThreshold", 1);
        missing(probe, "failureThreshold", 3);
        if let Some(get) = inner(probe, "httpGet") {
            missing(get, "path", "/");
            missing(get, "scheme", "HTTP");
        }
    }
}

fn volume(volume: &mut Map<String, Value>) {
    for source in ["configMap", "secret", "downwardAPI"] {
        if let Some(source) = inner(volume, source) {
            missing(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(downward) = inner(volume, "downwardAPI") {
        for file in items(downward, "items") {
            if let Some(field) = inner(file, "fieldRef") {
                missing(field, "apiVersion", "v1");
            }
        }
    }
    if let Some(host) = inner(volume, "hostPath") {
        missing(host, "type", "");
    }
    if volume.len() == 1 && volume.contains_key("name") {
        missing(volume, "emptyDir", json!({}));
    }
}

/// An image that may change under its name is looked for each time: one without a tag, or with `latest`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default(); // a colon before the last slash belongs to a registry's port
    match (digest, last.split_once(':')) {
        (Some(_), _) => "IfNotPresent",
        (None, Some((_, tag))) if tag != "latest" => "IfNotPresent",
        (None, _) => "Always",
    }
}
