//! How controllers change documents: by path, leaving alone what they do not know.
//!
//! Invariant: an edit that changes nothing leaves equal bytes, so that "is anything different?" can be asked of the result.

use quorate_proto::{
    object::Object,
    snapshot::Stored,
    txn::Txn,
    world::{Timestamp, rfc3339},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A typed view of a part of an object, without a copy of the rest; the default if the part is missing.
pub(crate) fn view<T: DeserializeOwned + Default>(object: &Object, path: &[&str]) -> Result<T, serde_json::Error> {
    object.at(path).map_or_else(|| Ok(T::default()), T::deserialize)
}

/// A number at a path.
pub(crate) fn number(object: &Object, path: &[&str]) -> Option<i64> {
    object.at(path)?.as_i64()
}

/// The items of a list at a path; none if there is no list.
pub(crate) fn items<'a>(object: &'a Object, path: &[&str]) -> &'a [Value] {
    object.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A wall time at a path.
pub(crate) fn time(object: &Object, path: &[&str]) -> Option<Timestamp> {
    object.text(path)?.parse().ok()
}

/// A field of a condition.
pub(crate) fn of_condition<'a>(object: &'a Object, condition: &str, field: &str) -> Option<&'a str> {
    object.condition(condition)?.get(field)?.as_str()
}

/// A condition as a controller wants it to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition<'a> {
    pub(crate) kind: &'a str,
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// Sets a condition. Its `lastTransitionTime` moves only when its status does; says whether anything changed.
pub(crate) fn set_condition(object: &mut Object, wanted: Condition<'_>, wall: Timestamp) -> bool {
    let mut conditions = items(object, &["status", "conditions"]).to_vec();
    let place = conditions.iter().position(|found| found.get("type").and_then(Value::as_str) == Some(wanted.kind));
    let mut condition = place.map_or_else(Map::new, |place| match &conditions[place] {
        Value::Object(found) => found.clone(),
        _ => Map::new(),
    });
    let before = condition.clone();
    if condition.get("status").and_then(Value::as_str) != Some(wanted.status) {
        condition.insert("lastTransitionTime".to_owned(), rfc3339(wall).into());
    }
    for (field, value) in
        [("type", wanted.kind), ("status", wanted.status), ("reason", wanted.reason), ("message", wanted.message)]
    {
        if value.is_empty() {
            condition.remove(field);
        } else {
            condition.insert(field.to_owned(), value.into());
        }
    }
    let changed = condition != before;
    if changed {
        match place {
            Some(place) => conditions[place] = condition.into(),
            None => conditions.push(condition.into()),
        }
        object.set(&["status", "conditions"], conditions);
    }
    changed
}

/// Writes `changed` over what was stored, if it differs.
pub(crate) fn update(txn: Txn, stored: &Stored, changed: &Object) -> Txn {
    if *changed == stored.object { txn } else { txn.update(stored.key.clone(), stored.modified, changed.to_document()) }
}

/// Changes the spec of an object that has a generation, which then rises.
pub(crate) fn set_spec(object: &mut Object, field: &str, value: impl Into<Value>) {
    let value = value.into();
    if object.at(&["spec", field]) != Some(&value) {
        object.set(&["spec", field], value);
        object.set(&["metadata", "generation"], object.generation() + 1);
    }
}

/// Deletes an object that no agent has to take leave of: at once, or once its finalizers are done. Nothing if that is under way.
pub(crate) fn delete(txn: Txn, stored: &Stored, wall: Timestamp) -> Txn {
    if stored.object.finalizers().is_empty() {
        return txn.remove(stored.key.clone(), stored.modified);
    }
    if stored.object.deletion_timestamp().is_some() {
        return txn;
    }
    let mut leaving = stored.object.clone();
    leaving.merge(&json!({"metadata": {"deletionTimestamp": rfc3339(wall), "deletionGracePeriodSeconds": 0}}));
    update(txn, stored, &leaving)
}

/// Sets a time in a condition that is there.
pub(crate) fn touch_condition(object: &mut Object, condition: &str, field: &str, wall: Timestamp) {
    let mut conditions = items(object, &["status", "conditions"]).to_vec();
    let found = conditions.iter_mut().find(|found| found.get("type").and_then(Value::as_str) == Some(condition));
    if let Some(Value::Object(found)) = found {
        found.insert(field.to_owned(), rfc3339(wall).into());
        object.set(&["status", "conditions"], conditions);
    }
}
