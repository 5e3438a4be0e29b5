//! An object: a Kubernetes API object, kept as a canonical JSON document (D1).
//!
//! Readers take a typed view; writers change the document by a patch, so that fields this binary does not know survive.
//! `resourceVersion` is not stored: it is the revision that last wrote the key, and added when an object is shown.
//!
//! Invariant: equal objects have equal bytes on every node: object keys are sorted, numbers and strings written one way.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::txn::{Document, Revision};

/// The largest object, in bytes of its canonical JSON (as in etcd and Kubernetes).
pub const MAX_OBJECT: usize = 3 << 19;

/// An object. Its `apiVersion`, `kind` and `metadata.name` are there; nothing else is promised.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Map<String, Value>);

/// Why a document is no object.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// Not JSON.
    #[error("not a JSON document")]
    Json(#[from] serde_json::Error),
    /// JSON, but not a map.
    #[error("an object is a map, this is {0}")]
    NotAMap(&'static str),
    /// A field that every object has is missing or not a string.
    #[error("`{0}` is missing or not a string")]
    Missing(&'static str),
}

/// Who owns an object, from `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name, in the same namespace or cluster-scoped.
    pub name: String,
    /// The owner's uid: an owner of the same name with another uid is not the owner.
    pub uid: String,
    /// Whether this owner manages the object; at most one does.
    pub controller: bool,
}

impl Object {
    /// Takes a JSON value for an object.
    ///
    /// # Errors
    /// If it is not a map, or has no `apiVersion`, `kind` or `metadata.name`.
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        let object = match value {
            Value::Object(map) => Self(map),
            Value::Null => return Err(ObjectError::NotAMap("null")),
            Value::Bool(_) => return Err(ObjectError::NotAMap("a boolean")),
            Value::Number(_) => return Err(ObjectError::NotAMap("a number")),
            Value::String(_) => return Err(ObjectError::NotAMap("a string")),
            Value::Array(_) => return Err(ObjectError::NotAMap("a list")),
        };
        for (path, name) in
            [(&["apiVersion"][..], "apiVersion"), (&["kind"], "kind"), (&["metadata", "name"], "metadata.name")]
        {
            if object.text(path).is_none() {
                return Err(ObjectError::Missing(name));
            }
        }
        Ok(object)
    }

    /// Reads a stored document.
    ///
    /// # Errors
    /// If it is not JSON or not an object.
    pub fn from_document(document: &Document) -> Result<Self, ObjectError> {
        Self::from_value(serde_json::from_slice(&document.0)?)
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_document(&self) -> Document {
        Document(Bytes::from(self.to_string()))
    }

    /// The document as JSON.
    #[must_use]
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The document as a JSON value.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// A typed view of the whole object, for example of `k8s_openapi::api::core::v1::Pod`. Fields the type does not know are left out.
    ///
    /// # Errors
    /// If a known field has the wrong type.
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&Value::Object(self.0.clone()))
    }

    /// The value at a path of field names.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, field| value.get(field))
    }

    /// The string at a path.
    #[must_use]
    pub fn text(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str()
    }

    /// Sets the value at a path, making maps on the way.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = &mut self.0;
        for field in parents {
            let slot = map.entry(*field).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(inner) = slot else { return };
            map = inner;
        }
        map.insert((*last).to_owned(), value.into());
    }

    /// Removes the value at a path.
    pub fn unset(&mut self, path: &[&str]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = &mut self.0;
        for field in parents {
            let Some(Value::Object(inner)) = map.get_mut(*field) else { return };
            map = inner;
        }
        map.remove(*last);
    }

    /// Merges a patch: maps are merged, `null` removes, everything else replaces (RFC 7386).
    pub fn merge(&mut self, patch: &Value) {
        fn merge(target: &mut Value, patch: &Value) {
            let Value::Object(patch) = patch else {
                patch.clone_into(target);
                return;
            };
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(map) = target else { return };
            for (field, value) in patch {
                if value.is_null() {
                    map.remove(field);
                } else {
                    merge(map.entry(field.clone()).or_insert(Value::Null), value);
                }
            }
        }
        let mut value = Value::Object(std::mem::take(&mut self.0));
        merge(&mut value, patch);
        if let Value::Object(map) = value {
            self.0 = map;
        }
    }

    /// `apiVersion`, for example `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.text(&["apiVersion"]).unwrap_or_default()
    }

    /// `kind`, for example `Deployment`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text(&["kind"]).unwrap_or_default()
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text(&["metadata", "name"]).unwrap_or_default()
    }

    /// `metadata.namespace`; `None` for a cluster-scoped object.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.text(&["metadata", "namespace"])
    }

    /// `metadata.uid`; empty before the object is stored.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.text(&["metadata", "uid"]).unwrap_or_default()
    }

    /// `metadata.generation`: how often the spec changed.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.at(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or_default()
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.text(&["metadata", "labels", name])
    }

    /// An annotation's value.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.text(&["metadata", "annotations", name])
    }

    /// All labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        self.strings(&["metadata", "labels"])
    }

    /// A map of strings at a path; values that are not strings are left out.
    #[must_use]
    pub fn strings(&self, path: &[&str]) -> BTreeMap<&str, &str> {
        let Some(Value::Object(map)) = self.at(path) else { return BTreeMap::new() };
        map.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
    }

    /// `metadata.ownerReferences`.
    #[must_use]
    pub fn owners(&self) -> Vec<Owner> {
        let Some(Value::Array(references)) = self.at(&["metadata", "ownerReferences"]) else { return Vec::new() };
        references
            .iter()
            .map(|reference| {
                let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
                Owner {
                    api_version: text("apiVersion"),
                    kind: text("kind"),
                    name: text("name"),
                    uid: text("uid"),
                    controller: reference.get("controller").and_then(Value::as_bool).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// The owner that manages this object.
    #[must_use]
    pub fn controller(&self) -> Option<Owner> {
        self.owners().into_iter().find(|owner| owner.controller)
    }

    /// Whether `owner` manages this object.
    #[must_use]
    pub fn is_controlled_by(&self, owner: &Self) -> bool {
        self.controller().is_some_and(|reference| !reference.uid.is_empty() && reference.uid == owner.uid())
    }

    /// `metadata.finalizers`.
    #[must_use]
    pub fn finalizers(&self) -> Vec<&str> {
        let Some(Value::Array(names)) = self.at(&["metadata", "finalizers"]) else { return Vec::new() };
        names.iter().filter_map(Value::as_str).collect()
    }

    /// `metadata.deletionTimestamp`: set once someone asked for the deletion.
    #[must_use]
    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.text(&["metadata", "deletionTimestamp"])
    }

    /// `metadata.creationTimestamp`.
    #[must_use]
    pub fn creation_timestamp(&self) -> Option<&str> {
        self.text(&["metadata", "creationTimestamp"])
    }

    /// The object as it is shown: with `metadata.resourceVersion`.
    #[must_use]
    pub fn with_resource_version(mut self, revision: Revision) -> Self {
        self.set(&["metadata", "resourceVersion"], revision.to_string());
        self
    }

    /// Whether a condition in `status.conditions` is `True`.
    #[must_use]
    pub fn is_true(&self, condition: &str) -> bool {
        self.condition(condition).and_then(|found| found.get("status")).and_then(Value::as_str) == Some("True")
    }

    /// A condition in `status.conditions`, by its type.
    #[must_use]
    pub fn condition(&self, condition: &str) -> Option<&Value> {
        let Value::Array(conditions) = self.at(&["status", "conditions"])? else { return None };
        conditions.iter().find(|found| found.get("type").and_then(Value::as_str) == Some(condition))
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match serde_json::to_string(&self.0) {
            Ok(text) => formatter.write_str(&text),
            Err(_) => Err(std::fmt::Error), // a map of JSON values always serialises
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn equal_objects_have_equal_bytes_whatever_order_they_were_written_in() {
        let one = br#"{"kind":"Pod","metadata":{"name":"a","labels":{"x":"1","b":"2"}},"apiVersion":"v1"}"#;
        let two = br#"{"apiVersion":"v1", "metadata":{"labels":{"b":"2","x":"1"},"name":"a"},"kind":"Pod"}"#;
        let [one, two] = [&one[..], two].map(|bytes| object(serde_json::from_slice(bytes).unwrap()).to_document());
        assert_eq!(one, two);
        assert_eq!(
            &one.0[..],
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"b":"2","x":"1"},"name":"a"}}"#
        );
    }

    #[test]
    fn what_lacks_a_name_or_a_kind_is_no_object() {
        for (value, missing) in [
            (json!({"kind": "Pod", "metadata": {"name": "a"}}), "apiVersion"),
            (json!({"apiVersion": "v1", "metadata": {"name": "a"}}), "kind"),
            (json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}}), "metadata.name"),
        ] {
            assert_eq!(
                Object::from_value(value).unwrap_err().to_string(),
                format!("`{missing}` is missing or not a string")
            );
        }
    }

    #[test]
    fn a_patch_merges_maps_removes_nulls_and_keeps_unknown_fields() {
        let mut pod = object(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "1"}}, "new": [1]}),
        );
        pod.merge(&json!({"metadata": {"labels": {"x": null, "y": "2"}}, "spec": {"nodeName": "n1"}}));
        let expected = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"y": "2"}}, "new": [1], "spec": {"nodeName": "n1"}});
        assert_eq!(pod.into_value(), expected);
    }

    #[test]
    fn paths_are_set_and_removed() {
        let mut pod = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}));
        pod.set(&["status", "phase"], "Running");
        assert_eq!(pod.text(&["status", "phase"]), Some("Running"));
        pod.unset(&["status", "phase"]);
        assert_eq!(pod.at(&["status", "phase"]), None);
    }
}
