//! Pods from the template of what manages them.
//!
//! Invariant: a pod is its template, named and owned; what else its controller adds is up to that controller.

use quorate_proto::{
    kinds::PODS,
    object::Object,
    txn::{MAX_TXN, Txn},
    world::rfc3339,
};
use serde_json::{Value, json};

use crate::{decision::Moment, ownership::controlled_by};

/// How long a name may be before the random suffix: what remains of a DNS label.
const MAX_STEM: usize = 58;

/// How much a document may grow by the status that is written into it together with new pods, in bytes.
const GROWTH: usize = 4096;

/// A pod from the template of `owner`. Its name is that of its owner, as far as there is room for it, `part`, and five characters.
pub(crate) fn pod(owner: &Object, part: &str, moment: &Moment<'_>) -> Option<Object> {
    let mut stem = owner.name();
    while stem.len() + part.len() >= MAX_STEM {
        stem = stem.get(..stem.len().checked_sub(1)?).unwrap_or_default();
    }
    let stem = format!("{stem}{part}-");
    let template = |part: &str| owner.at(&["spec", "template", part]).cloned().unwrap_or_else(|| json!({}));
    let mut pod = json!({
        "apiVersion": PODS.api_version(),
        "kind": PODS.kind,
        "metadata": template("metadata"),
        "spec": template("spec"),
        "status": {"phase": "Pending"},
    });
    let own = json!({
        "name": format!("{stem}{}", moment.random.suffix(5)),
        "generateName": stem,
        "namespace": owner.namespace(),
        "uid": moment.random.uid(),
        "creationTimestamp": rfc3339(moment.wall),
        "generation": 1,
        "ownerReferences": [controlled_by(owner)],
    });
    if let (Some(Value::Object(metadata)), Value::Object(own)) = (pod.get_mut("metadata"), own) {
        metadata.extend(own);
    }
    Object::from_value(pod).ok()
}

/// A transaction that makes a pod as well, if both still fit into one beside the owner.
pub(crate) fn make(txn: &Txn, pod: &Object, owner: &Object) -> Option<Txn> {
    let room = MAX_TXN.saturating_sub(owner.to_document().0.len() + GROWTH);
    let key = PODS.key(pod.namespace(), pod.name()).ok()?;
    let next = txn.clone().create(key, pod.to_document());
    (next.size() <= room).then_some(next)
}

/// Why a controller that could make no pod at all waits.
pub(crate) fn too_large() -> String {
    format!("no pod can be made of its template within a transaction of {MAX_TXN} bytes")
}
