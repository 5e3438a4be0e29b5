//! The replicaset of a pod template: how it is named, made and found again.
//!
//! Invariant: a set is found by its template, never by its name: the hash only tells names apart, so that another way of hashing does not
//! restart what runs.

use quorate_proto::{
    kinds::REPLICASETS,
    object::Object,
    snapshot::{Snapshot, Stored},
    world::rfc3339,
};
use serde_json::{Map, Value, json};

use super::wanted::Wanted;
use crate::{decision::Moment, ownership::controlled_by};

/// The label by which the pods of one template are told from those of another.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// How many names are tried for a new set, should other objects have them.
const TRIES: u32 = 16;

/// Whether a set has this template.
pub(super) fn is_of(set: &Object, template: &Value) -> bool {
    set.at(&["spec", "template"]).is_some_and(|own| equal(own, template, &["metadata", "labels"]))
}

/// Whether two values are equal but for the hash in the map at `path`.
fn equal(own: &Value, wanted: &Value, path: &[&str]) -> bool {
    let (Value::Object(own), Value::Object(wanted)) = (own, wanted) else { return own == wanted };
    let aside = path.first().copied().unwrap_or(TEMPLATE_HASH);
    let others = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(aside));
    others(own) == others(wanted)
        && own.iter().all(|(field, value)| field == aside || wanted.get(field) == Some(value))
        && match (path.split_first(), own.get(aside), wanted.get(aside)) {
            (None, ..) => true,
            (Some((_, inner)), Some(own), Some(wanted)) => equal(own, wanted, inner),
            (Some(_), own, wanted) => own == wanted,
        }
}

/// A new set for the deployment's template, without replicas yet; `None` if every name it could have is taken.
pub(super) fn new_set(objects: &Snapshot, deployment: &Stored, wanted: &Wanted, moment: &Moment<'_>) -> Option<Object> {
    let owner = &deployment.object;
    let hash = (0..TRIES)
        .map(|attempt| hash(&wanted.template, attempt))
        .find(|hash| objects.find(&REPLICASETS, owner.namespace(), &format!("{}-{hash}", owner.name())).is_none())?;
    let mut set = Object::from_value(json!({
        "apiVersion": REPLICASETS.api_version(),
        "kind": REPLICASETS.kind,
        "metadata": {
            "name": format!("{}-{hash}", owner.name()),
            "namespace": owner.namespace(),
            "uid": moment.random.uid(),
            "creationTimestamp": rfc3339(moment.wall),
            "generation": 1,
            "labels": wanted.template.pointer("/metadata/labels"),
            "ownerReferences": [controlled_by(owner)],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": wanted.min_ready_seconds,
            "selector": owner.at(&["spec", "selector"]),
            "template": wanted.template,
        },
    }))
    .ok()?;
    for labels in
        [&["metadata", "labels"][..], &["spec", "selector", "matchLabels"], &["spec", "template", "metadata", "labels"]]
    {
        let path: Vec<&str> = labels.iter().copied().chain([TEMPLATE_HASH]).collect();
        set.set(&path, hash.clone());
    }
    Some(set)
}

/// The hash of a template: FNV-1a over its canonical JSON, in the letters that Kubernetes uses for names.
fn hash(template: &Value, attempt: u32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes = template.to_string().into_bytes().into_iter().chain(attempt.to_le_bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_template_is_the_same_in_every_release() {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
        assert_eq!([hash(&template, 0), hash(&template, 1)], ["7bc96467dd", "c69756545"]);
    }
}
