//! The one way of a change: decode → patch → default → admit → validate → transaction. Pure; a dry run ends after it.
//!
//! Invariant: a plan is a function of the request, the snapshot and the moment, and its transaction compares all it was decided on. The
//! same request planned again on what it led to writes nothing.

use quorate_proto::{
    ids::RequestId,
    kinds::{DEPLOYMENTS, Kind, REPLICASETS},
    object::{MAX_OBJECT, Object},
    patch::{three_way, without_nulls},
    refusal::{Reason, Refusal},
    request::{ChangeKind, Reference},
    snapshot::{Snapshot, Stored},
    txn::{Document, MAX_OPERATIONS, MAX_TXN, Revision, Txn},
    world::{Random, Timestamp},
};
use serde_json::Value;

use crate::{
    access, addresses, admit,
    decode::{self, Incoming},
    default,
    message::{Subject, Verb, not_found},
    metadata::{self, LAST_APPLIED},
    seam::Settings,
    update, validate,
};

/// The most characters of all annotations together, as in Kubernetes.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// All that may differ between two plans for the same request on the same snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// Wall time, for metadata.
    pub(crate) wall: Timestamp,
    /// The request: the source of uids, suffixes and addresses.
    pub(crate) request: RequestId,
    /// What was agreed when the cluster was made.
    pub(crate) settings: &'a Settings,
}

/// What a request leads to.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What to propose; without writes, nothing.
    pub(crate) txn: Txn,
    /// The object afterwards.
    pub(crate) object: Object,
    /// What is done to it.
    pub(crate) change: ChangeKind,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
    /// The revision that last wrote the object; `None` if it is new.
    pub(crate) seen: Option<Revision>,
}

/// Chance drawn from a request's id, which is random: a retry draws the same.
pub(crate) struct Chance(RequestId);

impl Random for Chance {
    fn fill(&self, buffer: &mut [u8]) {
        let bytes = self.0.0.to_le_bytes();
        for (slot, byte) in buffer.iter_mut().zip(bytes.iter().cycle()) {
            *slot = *byte;
        }
    }
}

impl Moment<'_> {
    /// The request's own chance.
    pub(crate) const fn chance(&self) -> Chance {
        Chance(self.request)
    }
}

impl Plan {
    /// Nothing is to be written.
    pub(crate) fn unchanged(stored: &Stored, change: ChangeKind, warnings: Vec<String>) -> Self {
        Self { txn: Txn::new(), object: stored.object.clone(), change, warnings, seen: Some(stored.modified) }
    }
}

/// Plans an apply: creates the object, or merges its manifest into what is there.
pub(crate) fn apply(document: &Document, snapshot: &Snapshot, moment: &Moment<'_>) -> Result<Plan, Refusal> {
    let mut incoming = decode::object(Verb::Apply, document, moment)?;
    incoming.object.unset(&["metadata", "annotations", LAST_APPLIED]);
    let manifest = Value::Object(incoming.object.as_map().clone());
    let Some(stored) = snapshot.find(incoming.kind, incoming.object.namespace(), incoming.object.name()) else {
        incoming.object.set(&["metadata", "annotations", LAST_APPLIED], format!("{manifest}\n"));
        return created(incoming, snapshot, moment);
    };
    let last = stored.object.annotation(LAST_APPLIED).and_then(|text| serde_json::from_str::<Value>(text).ok());
    if last.is_none() {
        incoming.warnings.push(
            "the object was not made by apply: what it has and the manifest has not is kept; from now on, apply removes what a manifest drops".to_owned(),
        );
    }
    let live = Value::Object(stored.object.as_map().clone());
    let merged = three_way(incoming.kind, last.as_ref(), &manifest, &live);
    let mut next = readable(&incoming.subject, merged)?;
    next.set(&["metadata", "annotations", LAST_APPLIED], format!("{manifest}\n"));
    let made_by_us = stored.created == stored.modified && stored.object.uid() == moment.chance().uid();
    let Incoming { kind, subject, warnings, seen, .. } = incoming;
    let mut plan = update::plan(&subject, kind, stored, next, seen, snapshot, moment)?;
    plan.warnings = warnings;
    if made_by_us && plan.change == ChangeKind::Unchanged {
        plan.change = ChangeKind::Created;
    }
    Ok(plan)
}

/// Plans a creation.
pub(crate) fn create(document: &Document, snapshot: &Snapshot, moment: &Moment<'_>) -> Result<Plan, Refusal> {
    let incoming = decode::object(Verb::Create, document, moment)?;
    if incoming.seen.is_some() {
        let because = "`metadata.resourceVersion` says that it was read from a cluster";
        return Err(incoming.subject.refuse(Reason::BadRequest, because).hint("leave it out, or replace the object"));
    }
    created(incoming, snapshot, moment)
}

/// Plans a replacement: what the new object does not say is as if it had never been said.
pub(crate) fn replace(document: &Document, snapshot: &Snapshot, moment: &Moment<'_>) -> Result<Plan, Refusal> {
    let Incoming { kind, subject, object, warnings, seen } = decode::object(Verb::Replace, document, moment)?;
    let stored = snapshot
        .find(kind, object.namespace(), object.name())
        .ok_or_else(|| not_found(&subject, kind, object.namespace(), object.name()).hint("create or apply it"))?;
    let next = readable(&subject, without_nulls(&object.into_value()))?;
    let mut plan = update::plan(&subject, kind, stored, next, seen, snapshot, moment)?;
    plan.warnings = warnings;
    Ok(plan)
}

/// Plans a merge patch (RFC 7386).
pub(crate) fn patch(
    reference: &Reference,
    patch: &Document,
    snapshot: &Snapshot,
    moment: &Moment<'_>,
) -> Result<Plan, Refusal> {
    let (kind, subject, stored) = existing(Verb::Patch, reference, snapshot)?;
    let (patch, mut warnings) = decode::patch(kind, &subject, patch)?;
    let mut next = stored.object.clone();
    next.merge(&patch);
    warnings.extend(decode::patched(&subject, &stored.object, &next)?);
    let seen = decode::resource_version(&subject, &next)?;
    let mut plan = update::plan(&subject, kind, stored, next, seen, snapshot, moment)?;
    plan.warnings = warnings;
    Ok(plan)
}

/// Plans a new number of replicas.
pub(crate) fn scale(
    reference: &Reference,
    replicas: u32,
    snapshot: &Snapshot,
    moment: &Moment<'_>,
) -> Result<Plan, Refusal> {
    let (kind, subject, stored) = existing(Verb::Scale, reference, snapshot)?;
    if ![&DEPLOYMENTS, &REPLICASETS].contains(&kind) {
        let because = format!("a {} has no number of replicas", kind.singular);
        return Err(subject.refuse(Reason::BadRequest, because).hint("deployments and replicasets can be scaled"));
    }
    let mut next = stored.object.clone();
    next.set(&["spec", "replicas"], replicas);
    update::plan(&subject, kind, stored, next, None, snapshot, moment)
}

/// The object a request is about, which must exist and be one that this may be done to.
pub(crate) fn existing<'a>(
    verb: Verb,
    reference: &Reference,
    snapshot: &'a Snapshot,
) -> Result<(&'static Kind, Subject, &'a Stored), Refusal> {
    let (kind, subject) = decode::reference(verb, reference)?;
    access::kind_allows(verb, kind, &subject)?;
    let namespace = reference.namespace.as_deref().unwrap_or("default");
    match snapshot.find(kind, Some(namespace), &reference.name) {
        Some(stored) => Ok((kind, subject, stored)),
        None => Err(not_found(&subject, kind, Some(namespace), &reference.name)),
    }
}

fn created(incoming: Incoming, snapshot: &Snapshot, moment: &Moment<'_>) -> Result<Plan, Refusal> {
    let Incoming { kind, subject, object, warnings, .. } = incoming;
    if let Some(stored) = snapshot.find(kind, object.namespace(), object.name()) {
        if stored.object.uid() == moment.chance().uid() {
            return Ok(Plan::unchanged(stored, ChangeKind::Created, warnings));
        }
        let because = format!("there is a {} of this name already", kind.singular);
        return Err(subject.refuse(Reason::AlreadyExists, because).hint("apply or replace it, or choose another name"));
    }
    let mut object = readable(&subject, without_nulls(&object.into_value()))?;
    default::fill(kind, &mut object);
    default::first_status(kind, &mut object);
    let mut txn = admit::create(kind, &subject, &object, snapshot)?;
    let mut problems = validate::new_object(kind, &object);
    problems.extend(validate::object(kind, &object));
    if !problems.is_empty() {
        return Err(subject.invalid(&problems));
    }
    metadata::create(&mut object, moment);
    default::identify(kind, &mut object);
    txn = addresses::assign(&subject, kind, None, &mut object, snapshot, moment, txn)?;
    let key = kind
        .key(object.namespace(), object.name())
        .map_err(|error| subject.refuse(Reason::Invalid, error.to_string()))?;
    let txn = within_limits(&subject, txn.create(key, object.to_document()), &object)?;
    Ok(Plan { txn, object, change: ChangeKind::Created, warnings, seen: None })
}

/// Takes a merged value for an object again.
pub(crate) fn readable(subject: &Subject, value: Value) -> Result<Object, Refusal> {
    Object::from_value(value).map_err(|error| subject.refuse(Reason::Invalid, error.to_string()))
}

/// Refuses what the store would refuse, with the limit that is exceeded.
pub(crate) fn within_limits(subject: &Subject, txn: Txn, object: &Object) -> Result<Txn, Refusal> {
    let too_large = |because: String| Err(subject.refuse(Reason::TooLarge, because));
    let annotations: usize =
        object.strings(&["metadata", "annotations"]).iter().map(|(key, value)| key.len() + value.len()).sum();
    if annotations > MAX_ANNOTATIONS {
        let because =
            format!("`metadata.annotations` has {annotations} bytes, the limit is {MAX_ANNOTATIONS} (256 KiB)");
        let hint = "apply keeps the manifest in an annotation: create or replace a large object instead";
        return too_large(because).map_err(|refusal| refusal.hint(hint));
    }
    let (size, operations) = (object.to_string().len(), txn.operations());
    if size > MAX_OBJECT {
        return too_large(format!(
            "the object has {size} bytes with its defaults, the limit is {MAX_OBJECT} (1.5 MiB)"
        ));
    }
    if txn.size() > MAX_TXN {
        return too_large(format!("its transaction has {} bytes, the limit is {MAX_TXN} (1.5 MiB)", txn.size()));
    }
    if operations > MAX_OPERATIONS {
        return too_large(format!("its transaction has {operations} operations, the limit is {MAX_OPERATIONS}"));
    }
    Ok(txn)
}

#[cfg(test)]
mod tests;
