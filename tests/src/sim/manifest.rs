//! The manifests behind a story's short words.
//!
//! Invariant: a setting that means nothing is refused, so that no story tests less than it says.

use serde_json::{Map, Value, json};

/// A deployment whose pods have one container, `app`.
///
/// `replicas=3 image=app:1 cpu=500m memory=1Gi on=n1 config=settings probe=readiness grace=60`
///
/// # Panics
/// If a setting is not known.
pub(super) fn deployment(name: &str, settings: &[&str]) -> Value {
    let mut container = json!({"name": "app", "image": "app:1"});
    let mut pod = json!({});
    let mut replicas = 1;
    for setting in settings {
        match setting.split_once('=') {
            Some(("replicas", count)) => replicas = super::story::number(count),
            Some((resource @ ("cpu" | "memory"), amount)) => {
                container["resources"]["requests"][resource] = amount.into();
            }
            Some(("image", image)) => container["image"] = image.into(),
            Some(("on", value)) => pod["nodeSelector"] = json!({"kubernetes.io/hostname": value}),
            Some(("config", map)) => container["envFrom"] = json!([{"configMapRef": {"name": map}}]),
            Some(("probe", "readiness")) => {
                container["readinessProbe"] =
                    json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 2});
            }
            _ => panic!("a deployment in a story knows no `{setting}`"),
        }
    }
    pod["containers"] = json!([container]);
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    })
}

/// A service of the deployment of the same name, on port 80.
pub(super) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

/// A config map: `mode=fast level=3`.
///
/// # Panics
/// If a setting has no value.
pub(super) fn config_map(name: &str, settings: &[&str]) -> Value {
    let data: Map<String, Value> = settings
        .iter()
        .map(|setting| setting.split_once('=').unwrap_or_else(|| panic!("`{setting}` has no value: write mode=fast")))
        .map(|(field, value)| (field.to_owned(), value.into()))
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})
}
