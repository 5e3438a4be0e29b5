//! Fills in what a manifest leaves open, as Kubernetes does; a file per API group.
//! Source: kubernetes `pkg/apis/core/v1/defaults.go`, and likewise of the other groups.
//!
//! Invariant: what is given is never changed, and an object with its defaults is accepted as a manifest.

mod apps;
mod batch;
mod core;
mod pod;

use data_encoding::BASE64;
use quorate_proto::{
    job,
    kinds::{JOBS, Kind},
    object::Object,
};
use serde_json::{Map, Value, json};

/// Fills in the defaults of a whole object.
pub(crate) fn fill(kind: &Kind, object: &mut Object) {
    match (kind.group, kind.kind) {
        ("", "Pod") => edit(object, "spec", pod::spec),
        ("", "Service") => edit(object, "spec", core::service),
        ("", "Secret") => core::secret(object),
        ("", "Namespace") => core::namespace(object),
        ("apps", "Deployment") => edit(object, "spec", apps::deployment),
        ("apps", "ReplicaSet") => edit(object, "spec", apps::replicaset),
        ("apps", "DaemonSet") => edit(object, "spec", apps::daemonset),
        ("batch", "Job") => edit(object, "spec", batch::job),
        ("batch", "CronJob") => edit(object, "spec", batch::cronjob),
        _ => {}
    }
}

/// Fills in what follows from an object's own name and uid, once it has them.
pub(crate) fn identify(kind: &Kind, object: &mut Object) {
    if kind == &JOBS {
        job::identify(object);
    }
}

/// The status an object has before anyone has seen it run.
pub(crate) fn first_status(kind: &Kind, object: &mut Object) {
    match (kind.group, kind.kind) {
        ("", "Pod") => object.set(&["status", "phase"], "Pending"),
        ("", "Namespace") => object.set(&["status", "phase"], "Active"),
        _ => {}
    }
}

/// Folds what may be written in two ways into the way it is kept: a secret's `stringData` into `data`. Also of a patch, where `null`
/// removes.
pub(crate) fn fold(kind: &Kind, value: &mut Value) {
    if (kind.group, kind.kind) != ("", "Secret") {
        return;
    }
    let Value::Object(secret) = value else { return };
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let data = entry(secret, "data", || json!({}));
    if !data.is_object() {
        *data = json!({});
    }
    let Value::Object(data) = data else { return };
    for (name, text) in texts {
        let value = text.as_str().map_or(Value::Null, |text| BASE64.encode(text.as_bytes()).into());
        data.insert(name, value);
    }
}

/// Changes one of an object's maps, if it is there.
fn edit(object: &mut Object, field: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    if let Some(Value::Object(map)) = object.at(&[field]) {
        let mut map = map.clone();
        change(&mut map);
        object.set(&[field], map);
    }
}

/// The value of a field, made if it is missing.
fn entry<'a>(map: &'a mut Map<String, Value>, field: &str, missing: impl FnOnce() -> Value) -> &'a mut Value {
    map.entry(field).or_insert_with(missing)
}

/// Sets a field that is missing.
fn missing(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    map.entry(field).or_insert_with(|| value.into());
}

/// A map inside a map.
fn inner<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(field)?.as_object_mut()
}

/// The maps in a list.
fn items<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> + use<'a> {
    let list = map.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}
