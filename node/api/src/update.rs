//! What every change to an object that exists has in common, whatever it came from.
//!
//! Invariant: what only the cluster sets stays, what must not change does not, and an object that is as asked for already is not written.

use quorate_proto::{
    kinds::{Kind, NODES},
    object::Object,
    refusal::{Reason, Refusal},
    request::ChangeKind,
    snapshot::{Snapshot, Stored},
    txn::{Revision, Txn},
};

use crate::{
    addresses, default, delete,
    message::Subject,
    metadata,
    pipeline::{Moment, Plan, within_limits},
    validate,
};

/// Plans that `stored` becomes `next`. With `seen`, only if it was last written then.
pub(crate) fn plan(
    subject: &Subject,
    kind: &'static Kind,
    stored: &Stored,
    mut next: Object,
    seen: Option<Revision>,
    snapshot: &Snapshot,
    moment: &Moment<'_>,
) -> Result<Plan, Refusal> {
    metadata::carry(&stored.object, &mut next);
    if kind == &NODES {
        keep_identity(&stored.object, &mut next);
    }
    default::fill(kind, &mut next);
    default::identify(kind, &mut next);
    addresses::carry(kind, &stored.object, &mut next);
    // What was written before there was a default, or past this pipeline, is compared as if it had it.
    let mut known = stored.object.clone();
    default::fill(kind, &mut known);
    if next == known {
        return Ok(Plan::unchanged(stored, ChangeKind::Unchanged, Vec::new()));
    }
    if let Some(seen) = seen.filter(|seen| *seen != stored.modified) {
        let because = format!("it was changed since revision {seen}: it is now at {}", stored.modified);
        return Err(subject
            .refuse(Reason::Conflict, because)
            .hint("read it again and make the change to what it is now, or leave out `metadata.resourceVersion`"));
    }
    let mut problems = validate::change(kind, &known, &next);
    problems.extend(validate::object(kind, &next));
    if !problems.is_empty() {
        return Err(subject.invalid(&problems));
    }
    metadata::generation(&known, &mut next);
    let txn = Txn::new();
    let txn = if delete::is_finished(kind, &stored.object, &next) {
        addresses::release(&stored.object, snapshot, txn).remove(stored.key.clone(), stored.modified)
    } else {
        let txn = addresses::assign(subject, kind, Some(&stored.object), &mut next, snapshot, moment, txn)?;
        txn.update(stored.key.clone(), stored.modified, next.to_document())
    };
    let txn = within_limits(subject, txn, &next)?;
    Ok(Plan { txn, object: next, change: ChangeKind::Configured, warnings: Vec::new(), seen: Some(stored.modified) })
}

/// Of a node's spec, users change whether it is cordoned and its taints; who it is and which range its pods have stays.
fn keep_identity(stored: &Object, next: &mut Object) {
    let wanted = ["unschedulable", "taints"].map(|field| (field, next.at(&["spec", field]).cloned()));
    match stored.at(&["spec"]) {
        Some(spec) => next.set(&["spec"], spec.clone()),
        None => next.unset(&["spec"]),
    }
    for (field, value) in wanted {
        match value {
            Some(value) => next.set(&["spec", field], value),
            None => next.unset(&["spec", field]),
        }
    }
}
