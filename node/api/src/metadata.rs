//! The rules of `metadata` that hold for every kind: what only the cluster sets, and when a generation rises.
//!
//! Invariant: what users send never reaches `status`, `uid`, times or the generation; those of the stored object stay.

use quorate_proto::{
    object::Object,
    world::{Random, rfc3339},
};
use serde_json::Value;

use crate::pipeline::Moment;

/// The annotation that keeps the manifest an object was last applied from.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What only the cluster sets, and keeps when an object is changed. `managedFields` belongs to server-side apply, which is not served.
const KEPT: &[&str] = &["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// What is never stored.
const DROPPED: &[&str] = &["resourceVersion", "managedFields", "selfLink"];

/// Leaves out what only the cluster sets.
pub(crate) fn strip(object: &mut Object) {
    for field in KEPT.iter().chain(DROPPED) {
        object.unset(&["metadata", field]);
    }
    object.unset(&["status"]);
}

/// Gives a new object what every object has.
pub(crate) fn create(object: &mut Object, moment: &Moment<'_>) {
    object.set(&["metadata", "uid"], moment.chance().uid());
    object.set(&["metadata", "creationTimestamp"], rfc3339(moment.wall));
    if object.at(&["spec"]).is_some() {
        object.set(&["metadata", "generation"], 1);
    }
}

/// Takes over from the stored object what a change by a user does not touch.
pub(crate) fn carry(stored: &Object, next: &mut Object) {
    strip(next);
    for field in KEPT {
        if let Some(value) = stored.at(&["metadata", field]) {
            next.set(&["metadata", field], value.clone());
        }
    }
    if let Some(status) = stored.at(&["status"]) {
        next.set(&["status"], status.clone());
    }
}

/// Raises the generation if anything but `metadata` and `status` changed: what a controller has to deal with.
pub(crate) fn generation(stored: &Object, next: &mut Object) {
    let wanted = |object: &Object| {
        let mut map = object.as_map().clone();
        map.retain(|field, _| field != "metadata" && field != "status");
        map
    };
    if stored.at(&["metadata", "generation"]).and_then(Value::as_i64).is_some() && wanted(stored) != wanted(next) {
        next.set(&["metadata", "generation"], stored.generation() + 1);
    }
}
