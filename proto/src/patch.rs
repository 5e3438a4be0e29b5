//! Three-way apply: what an object becomes when its manifest is applied over what others have written, as `kubectl apply` does it.
//!
//! A field is the manifest's if the manifest has it; gone if the last applied manifest had it and this one has not; else it stays as it
//! is. Lists whose items have a merge key (containers by `name`, a service's ports by `port`) are merged item by item, others are
//! replaced; which is which is in [`crate::schema`].
//! Source: apimachinery `pkg/util/strategicpatch/patch.go`, `CreateThreeWayMergePatch` and `StrategicMergeMapPatch`.
//!
//! Invariant: applying a manifest to what it led to changes nothing.

use serde_json::{Map, Value};

use crate::{
    kinds::Kind,
    schema::{Merge, merge_key},
};

/// What `live` becomes when `manifest` is applied over it; `last` is the manifest that was applied before, if there was one.
///
/// A `null` in the manifest removes the field, as in a patch.
#[must_use]
pub fn three_way(kind: &Kind, last: Option<&Value>, manifest: &Value, live: &Value) -> Value {
    let mut path = Path { kind, fields: Vec::new() };
    match (manifest, live) {
        (Value::Object(manifest), Value::Object(live)) => Value::Object(path.map(last, manifest, live)),
        _ => without_nulls(manifest),
    }
}

/// The value without fields that are `null`: to the API, such a field is not there.
#[must_use]
pub fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(field, value)| (field.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Where in the object we are: the fields' names, without list indexes.
struct Path<'a> {
    kind: &'a Kind,
    fields: Vec<&'a str>,
}

impl<'a> Path<'a> {
    fn map(
        &mut self,
        last: Option<&'a Value>,
        wanted: &'a Map<String, Value>,
        live: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut merged = live.clone();
        if let Some(Value::Object(last)) = last {
            merged.retain(|field, _| wanted.contains_key(field) || !last.contains_key(field));
        }
        for (field, value) in wanted {
            if value.is_null() {
                merged.remove(field);
                continue;
            }
            self.fields.push(field);
            let value = self.value(last.and_then(|last| last.get(field)), value, live.get(field));
            self.fields.pop();
            merged.insert(field.clone(), value);
        }
        merged
    }

    fn value(&mut self, last: Option<&'a Value>, wanted: &'a Value, live: Option<&Value>) -> Value {
        match (wanted, live) {
            (Value::Object(wanted), Some(Value::Object(live))) => match merge_key(self.kind, &self.fields) {
                Merge::Replace => without_nulls(&Value::Object(wanted.clone())),
                merge => Value::Object(self.one_of_or_all(merge == Merge::RetainKeys, last, wanted, live)),
            },
            (Value::Array(wanted), Some(Value::Array(live))) => Value::Array(self.list(last, wanted, live)),
            _ => without_nulls(wanted),
        }
    }

    /// Merges a map. In one whose fields exclude each other (`retainKeys`: a deployment's strategy, a volume), a change keeps only the
    /// manifest's fields.
    fn one_of_or_all(
        &mut self,
        retain: bool,
        last: Option<&'a Value>,
        wanted: &'a Map<String, Value>,
        live: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut merged = self.map(last, wanted, live);
        if retain && merged != *live {
            merged.retain(|field, _| wanted.contains_key(field));
        }
        merged
    }

    fn list(&mut self, last: Option<&'a Value>, wanted: &'a [Value], live: &[Value]) -> Vec<Value> {
        let last = last.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (key, retain) = match merge_key(self.kind, &self.fields) {
            Merge::ByKey(key) => (key, false),
            Merge::ByKeyRetainKeys(key) => (key, true),
            Merge::Set => {
                let others = live.iter().filter(|item| !wanted.contains(item) && !last.contains(item));
                return wanted.iter().chain(others).cloned().collect();
            }
            Merge::Replace | Merge::RetainKeys | Merge::Fields => return wanted.iter().map(without_nulls).collect(),
        };
        if ![last, wanted, live].iter().all(|items| tells_apart(key, items)) {
            return wanted.iter().map(without_nulls).collect();
        }
        let mut merged = Vec::with_capacity(wanted.len());
        for item in wanted {
            merged.push(match (item, same(key, item, live)) {
                (Value::Object(item_map), Some(Value::Object(live))) => {
                    Value::Object(self.one_of_or_all(retain, same(key, item, last), item_map, live))
                }
                _ => without_nulls(item),
            });
        }
        let others = live.iter().filter(|item| same(key, item, wanted).is_none() && same(key, item, last).is_none());
        merged.extend(others.cloned());
        merged
    }
}

/// Whether every item has the key and no two have the same: a DNS service has port 53 twice, once for each protocol.
fn tells_apart(key: &str, items: &[Value]) -> bool {
    let keys: Vec<_> = items.iter().filter_map(|item| item.get(key)).collect();
    let mut texts: Vec<_> = keys.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts.dedup();
    texts.len() == items.len()
}

fn same<'a>(key: &str, item: &Value, items: &'a [Value]) -> Option<&'a Value> {
    items.iter().find(|other| other.get(key) == item.get(key))
}

#[cfg(test)]
mod tests;
