//! Who manages whom, looked up once per decision.
//!
//! Invariant: an owner is known by its uid; another object of the same name is not the owner.

use std::collections::BTreeMap;

use quorate_proto::{
    kinds::{Kind, NAMESPACES},
    object::Object,
    snapshot::{Snapshot, Stored},
};
use serde_json::{Value, json};

use crate::edit::items;

/// The uid of the controller that manages an object.
pub(crate) fn controller_uid(object: &Object) -> Option<&str> {
    items(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
        .and_then(|owner| owner.get("uid"))
        .and_then(Value::as_str)
        .filter(|uid| !uid.is_empty())
}

/// The objects of a kind by the uid of their controller.
pub(crate) fn by_controller<'a>(objects: &'a Snapshot, kind: &Kind) -> BTreeMap<&'a str, Vec<&'a Stored>> {
    let mut index: BTreeMap<&str, Vec<&Stored>> = BTreeMap::new();
    for stored in objects.list(kind) {
        if let Some(uid) = controller_uid(&stored.object) {
            index.entry(uid).or_default().push(stored);
        }
    }
    index
}

/// The owner reference by which `owner` manages an object.
pub(crate) fn controlled_by(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.api_version(),
        "kind": owner.kind(),
        "name": owner.name(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Whether new objects may be made in the namespace of `object`: not while it ends.
pub(crate) fn may_create_beside(objects: &Snapshot, object: &Object) -> bool {
    let namespace = object.namespace().and_then(|namespace| objects.find(&NAMESPACES, None, namespace));
    namespace.is_none_or(|namespace| namespace.object.deletion_timestamp().is_none())
}
