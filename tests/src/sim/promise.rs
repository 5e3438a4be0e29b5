//! What users were told is done, and whether it still is.
//!
//! Invariant: only an acknowledged change is a promise. After an answer that leaves open what happened, nothing is promised any more.

use std::{cell::RefCell, collections::BTreeMap};

use quorate_proto::{
    key::Key,
    kinds::{Kind, NODES, PODS},
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, ChangeKind},
    snapshot::Snapshot,
};

/// Objects as they were acknowledged; `None` for those that were deleted.
#[derive(Default)]
pub(super) struct Acknowledged(RefCell<BTreeMap<Key, Option<Object>>>);

impl Acknowledged {
    /// Notes what a user was answered.
    pub(super) fn note(&self, answer: &Result<Answer, Refusal>) {
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
            Err(refusal) if refusal.reason == Reason::Timeout => self.0.borrow_mut().clear(),
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
