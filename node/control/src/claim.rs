//! Which pods a controller manages: it adopts those that match its selector and belong to nobody, and lets go of those that no longer
//! match, as in Kubernetes.
//!
//! Invariant: a pod is adopted by one controller at most; an adoption compares the adopter, so that nobody is adopted by what is gone.

use std::collections::BTreeMap;

use quorate_proto::{
    k8s::apimachinery::pkg::apis::meta::v1::LabelSelector, kinds::PODS, object::Object, selector::Selector,
    snapshot::Stored, txn::Txn,
};
use serde_json::Value;

use crate::{
    decision::{Decision, Snapshot},
    edit::{items, update, view},
    ownership::{controlled_by, controller_uid},
    pod::{is_active, is_terminating},
};

/// The pods that nobody manages, by namespace.
#[derive(Debug)]
pub(crate) struct Orphans<'a>(BTreeMap<&'a str, Vec<&'a Stored>>);

impl<'a> Orphans<'a> {
    /// All there are.
    pub(crate) fn of(snapshot: &Snapshot<'a>) -> Self {
        let mut orphans: BTreeMap<&str, Vec<&Stored>> = BTreeMap::new();
        for pod in snapshot.objects.list(&PODS) {
            if let (None, true, Some(namespace)) =
                (controller_uid(&pod.object), is_active(&pod.object), pod.object.namespace())
            {
                orphans.entry(namespace).or_default().push(pod);
            }
        }
        Self(orphans)
    }

    /// The pods of `owner` after it has let go of those that no longer match, and adopted what does.
    pub(crate) fn claim(
        &mut self,
        owner: &Stored,
        owned: &[&'a Stored],
        selector: &Selector,
        decision: &mut Decision,
    ) -> Vec<&'a Stored> {
        let (mut pods, strangers): (Vec<&Stored>, Vec<&Stored>) =
            owned.iter().partition(|pod| selector.selects(&pod.object));
        for pod in strangers.into_iter().filter(|pod| is_active(&pod.object)) {
            decision.propose(release(pod, &owner.object));
        }
        let beside = owner.object.namespace().filter(|_| !is_terminating(&owner.object));
        if let Some(orphans) = beside.and_then(|namespace| self.0.get_mut(namespace)) {
            for pod in orphans.extract_if(.., |pod| selector.selects(&pod.object)) {
                decision.propose(adopt(pod, owner));
                pods.push(pod);
            }
        }
        pods
    }
}

/// The selector of a controller's pods.
///
/// # Errors
/// In words, if it cannot be read, or would take every pod.
pub(crate) fn selector(owner: &Object) -> Result<Selector, String> {
    let selector: LabelSelector =
        view(owner, &["spec", "selector"]).map_err(|error| format!("its selector cannot be read: {error}"))?;
    let selector =
        Selector::of_label_selector(&selector).map_err(|error| format!("its selector is refused: {error}"))?;
    if selector.is_empty() { Err("its selector is empty and would take every pod".to_owned()) } else { Ok(selector) }
}

fn adopt(pod: &Stored, owner: &Stored) -> Txn {
    let mut adopted = pod.object.clone();
    let mut owners = items(&adopted, &["metadata", "ownerReferences"]).to_vec();
    owners.push(controlled_by(&owner.object));
    adopted.set(&["metadata", "ownerReferences"], owners);
    update(Txn::new(), pod, &adopted).expect(owner.key.clone(), Some(owner.modified))
}

fn release(pod: &Stored, owner: &Object) -> Txn {
    let mut released = pod.object.clone();
    let mut owners = items(&released, &["metadata", "ownerReferences"]).to_vec();
    owners.retain(|found| found.get("uid").and_then(Value::as_str) != Some(owner.uid()));
    if owners.is_empty() {
        released.unset(&["metadata", "ownerReferences"]);
    } else {
        released.set(&["metadata", "ownerReferences"], owners);
    }
    update(Txn::new(), pod, &released)
}
