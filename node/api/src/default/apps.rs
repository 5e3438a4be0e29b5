//! Defaults of the group `apps`.

use serde_json::{Map, Value, json};

use super::{entry, inner, missing, pod};

/// Fills in the spec of a deployment.
pub(super) fn deployment(spec: &mut Map<String, Value>) {
    missing(spec, "replicas", 1);
    missing(spec, "revisionHistoryLimit", 10);
    missing(spec, "progressDeadlineSeconds", 600);
    if let Value::Object(strategy) = entry(spec, "strategy", || json!({})) {
        missing(strategy, "type", "RollingUpdate");
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
            missing(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = inner(strategy, "rollingUpdate") {
                missing(rolling, "maxUnavailable", "25%");
                missing(rolling, "maxSurge", "25%");
            }
        }
    }
    template(spec);
}

/// Fills in the spec of a replica set.
pub(super) fn replicaset(spec: &mut Map<String, Value>) {
    missing(spec, "replicas", 1);
    template(spec);
}

/// Fills in the spec of a daemon set.
pub(super) fn daemonset(spec: &mut Map<String, Value>) {
    missing(spec, "revisionHistoryLimit", 10);
    if let Value::Object(strategy) = entry(spec, "updateStrategy", || json!({})) {
        missing(strategy, "type", "RollingUpdate");
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
            missing(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = inner(strategy, "rollingUpdate") {
                missing(rolling, "maxUnavailable", 1);
                missing(rolling, "maxSurge", 0);
            }
        }
    }
    template(spec);
}

fn template(spec: &mut Map<String, Value>) {
    if let Some(template) = inner(spec, "template")
        && let Some(template) = inner(template, "spec")
    {
        pod::spec(template);
    }
}
