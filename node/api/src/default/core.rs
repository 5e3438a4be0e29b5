//! Defaults of the core group, other than pods.

use quorate_proto::object::Object;
use serde_json::{Map, Value, json};

use super::{items, missing};

/// Fills in the spec of a service. Its address and node ports are given out in `addresses.rs`.
pub(super) fn service(spec: &mut Map<String, Value>) {
    missing(spec, "type", "ClusterIP");
    missing(spec, "sessionAffinity", "None");
    let service_type = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if service_type != "ExternalName" {
        missing(spec, "ipFamilies", json!(["IPv4"]));
        missing(spec, "ipFamilyPolicy", "SingleStack");
        missing(spec, "internalTrafficPolicy", "Cluster");
    }
    if service_type == "NodePort" {
        missing(spec, "externalTrafficPolicy", "Cluster");
    }
    for port in items(spec, "ports") {
        missing(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            missing(port, "targetPort", number);
        }
    }
}

/// Fills in a secret.
pub(super) fn secret(object: &mut Object) {
    if object.at(&["type"]).is_none() {
        object.set(&["type"], "Opaque");
    }
}

/// Fills in a namespace: the label by which namespaces are selected.
pub(super) fn namespace(object: &mut Object) {
    let name = object.name().to_owned();
    object.set(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
}
