//! A pod of a job, and how a job lets go of one.
//!
//! Invariant: every pod of a job is made with the finalizer by which it is counted; what is let go of while nothing of it runs any more
//! is removed at once, since nobody else waits for it.

use quorate_proto::{
    job::{COMPLETION_INDEX, TRACKING},
    object::Object,
    snapshot::Stored,
    txn::Txn,
    world::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    decision::Moment,
    edit::{items, update},
    pod::{ask_to_end, is_terminating, node_name},
    template,
};

/// What containers of an indexed job know their number by.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A pod of the job, for one of its completions if they are numbered.
pub(super) fn of(job: &Object, index: Option<u32>, moment: &Moment<'_>) -> Option<Object> {
    let part = index.map(|index| format!("-{index}")).unwrap_or_default();
    let mut pod = template::pod(job, &part, moment)?;
    let finalizers: Vec<Value> =
        items(&pod, &["metadata", "finalizers"]).iter().cloned().chain([TRACKING.into()]).collect();
    pod.set(&["metadata", "finalizers"], finalizers);
    let Some(index) = index else { return Some(pod) };
    pod.set(&["metadata", "annotations", COMPLETION_INDEX], index.to_string());
    pod.set(&["metadata", "labels", COMPLETION_INDEX], index.to_string());
    pod.set(&["spec", "hostname"], format!("{}-{index}", job.name()));
    for list in ["initContainers", "containers"] {
        let mut containers = items(&pod, &["spec", list]).to_vec();
        containers.iter_mut().for_each(tell_index);
        if !containers.is_empty() {
            pod.set(&["spec", list], containers);
        }
    }
    Some(pod)
}

fn tell_index(container: &mut Value) {
    let Value::Object(container) = container else { return };
    let Value::Array(variables) = container.entry("env").or_insert_with(|| json!([])) else { return };
    if variables.iter().all(|variable| variable.get("name").and_then(Value::as_str) != Some(VARIABLE)) {
        let field = format!("metadata.annotations['{COMPLETION_INDEX}']");
        variables.push(json!({"name": VARIABLE, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}}));
    }
}

/// Lets go of a pod: it is counted, or is nobody's to count.
pub(super) fn release(txn: Txn, pod: &Stored) -> Txn {
    let released = without_finalizer(&pod.object);
    let waits_for_us = is_terminating(&released) && !is_kept_by_agent(&released);
    if waits_for_us && released.finalizers().is_empty() {
        return txn.remove(pod.key.clone(), pod.modified);
    }
    update(txn, pod, &released)
}

/// Lets go of a pod and ends it.
pub(super) fn end(txn: Txn, pod: &Stored, wall: Timestamp) -> Txn {
    let mut leaving = without_finalizer(&pod.object);
    if node_name(&leaving).is_none() && leaving.finalizers().is_empty() {
        return txn.remove(pod.key.clone(), pod.modified);
    }
    ask_to_end(&mut leaving, wall);
    update(txn, pod, &leaving)
}

/// Whether an agent has yet to say that nothing is left of a pod that was asked to end.
fn is_kept_by_agent(pod: &Object) -> bool {
    let said = pod.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64) == Some(0);
    node_name(pod).is_some() && !said
}

fn without_finalizer(pod: &Object) -> Object {
    let mut released = pod.clone();
    let mut finalizers = items(pod, &["metadata", "finalizers"]).to_vec();
    finalizers.retain(|finalizer| finalizer.as_str() != Some(TRACKING));
    if finalizers.is_empty() {
        released.unset(&["metadata", "finalizers"]);
    } else {
        released.set(&["metadata", "finalizers"], finalizers);
    }
    released
}
