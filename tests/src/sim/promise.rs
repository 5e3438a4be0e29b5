//! What users were told is done, and whether it still is.
//!
//! Invariant: only an acknowledged change is a promise. After an answer that leaves open what happened, nothing is promised any more of
//! the object it was about.

use std::{cell::RefCell, collections::BTreeMap};

use quorate_proto::{
    key::Key,
    kinds::{Kind, NODES, PODS},
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, ChangeKind, Reference, Request},
    snapshot::Snapshot,
};

/// Objects as they were acknowledged; `None` for those that were deleted.
#[derive(Default)]
pub(super) struct Acknowledged(RefCell<BTreeMap<Key, Option<Object>>>);

impl Acknowledged {
    /// Notes what a user was answered who asked for a change of the object under `key`.
    pub(super) fn note(&self, key: Option<Key>, answer: &Result<Answer, Refusal>) {
        match answer {
            Ok(Answer::Changed { change, object, .. }) => {
                let object = Object::from_document(object).expect("an object");
                let kind = Kind::of(object.api_version(), object.kind()).expect("a known kind");
                // Pods and nodes are written by others too; what they promise is checked elsewhere.
                if kind != &PODS && kind != &NODES {
                    let key = kind.key(object.namespace(), object.name()).expect("a key");
                    self.0.borrow_mut().insert(key, (*change != ChangeKind::Deleted).then_some(object));
                }
            }
            Err(refusal) if refusal.reason == Reason::Timeout => {
                key.map(|key| self.0.borrow_mut().remove(&key));
            }
            _ => {}
        }
    }

    /// What was promised and is not so.
    pub(super) fn broken(&self, snapshot: &Snapshot) -> Vec<String> {
        let written = |object: &Object| ["spec", "data"].map(|field| object.at(&[field]).cloned());
        let kept = |key: &Key, promised: &Option<Object>| {
            let now = snapshot.get(key).map(|stored| written(&stored.object));
            now == promised.as_ref().map(written)
        };
        let promised = self.0.borrow();
        let broken = promised.iter().filter(|(key, promised)| !kept(key, promised));
        broken.map(|(key, _)| format!("{key} is not what was acknowledged")).collect()
    }
}

/// The object that a request would change, if it would change one.
pub(super) fn key(request: &Request) -> Option<Key> {
    match request {
        Request::Apply { object, .. } | Request::Create { object, .. } | Request::Replace { object, .. } => {
            let object = Object::from_document(object).ok()?;
            Kind::of(object.api_version(), object.kind())?.key(object.namespace(), object.name()).ok()
        }
        Request::Patch { object, .. } | Request::Delete { object, .. } | Request::Scale { object, .. } => {
            let Reference { kind, namespace, name } = object;
            Kind::named(kind)?.key(namespace.as_deref(), name).ok()
        }
        _ => None,
    }
}
