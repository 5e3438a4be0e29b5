//! What a node saw → status of its pods and of itself, and events.
//!
//! Merging a status twice changes nothing, so a report may be repeated; a repeated event counts once more.
//!
//! Invariant: a fact about an object that is gone, or is another one by now, changes nothing; a pod that has ended stays ended.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use quorate_proto::{
    ids::ClusterId,
    key::{Key, MAX_KEY},
    kinds::{EVENTS, Kind, NAMESPACES, NODES, PODS},
    object::{MAX_OBJECT, Object},
    refusal::{Reason, Refusal},
    request::Fact,
    snapshot::{Snapshot, Stored},
    txn::{Document, MAX_TXN, Revision, Txn},
    world::{Random, Timestamp, rfc3339},
};
use serde_json::{Value, json};

use crate::{access, delete, message::cut, seam::Caller};

/// The most facts in one report.
pub(crate) const MAX_FACTS: usize = 4096;

/// The most objects written in one transaction: each takes a compare and a write.
const MAX_WRITTEN: usize = quorate_proto::txn::MAX_OPERATIONS / 2;

/// What an object takes in a transaction beside itself, in bytes: its key twice, and a revision.
const OVERHEAD: usize = 2 * (MAX_KEY + 9);

/// The longest message of an event, in bytes, as in Kubernetes.
const MAX_MESSAGE: usize = 1024;

/// Some facts of a report, as one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) txn: Txn,
    /// How many facts it deals with; at least one.
    pub(crate) taken: usize,
}

/// Who reports, and when.
#[derive(Clone, Copy)]
pub(crate) struct Reporter<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) cluster: ClusterId,
    pub(crate) wall: Timestamp,
    pub(crate) random: &'a dyn Random,
}

/// An object as it will be after the facts so far.
struct Work {
    seen: Option<Revision>,
    before: Option<Object>,
    after: Option<Object>,
    /// What it takes in a transaction, in bytes.
    size: usize,
}

impl Work {
    fn new(stored: Option<&Stored>) -> Self {
        let before = stored.map(|stored| stored.object.clone());
        Self { seen: stored.map(|stored| stored.modified), after: before.clone(), before, size: 0 }
    }
}

/// Plans one transaction for as many of the first facts as it can hold.
pub(crate) fn plan(facts: &[Fact], snapshot: &Snapshot, reporter: Reporter<'_>) -> Result<Batch, Refusal> {
    let mut works: BTreeMap<Key, Work> = BTreeMap::new();
    let (mut taken, mut total) = (0, 0);
    for fact in facts {
        if let Some((key, after)) = change(fact, snapshot, &works, reporter)? {
            let size = OVERHEAD + after.as_ref().map_or(0, |object| object.to_string().len());
            if size > MAX_TXN {
                return Err(refuse(format!("it makes `{key}` {size} bytes large, the limit is {MAX_TXN} (1.5 MiB)")));
            }
            let known = works.get(&key).map(|work| work.size);
            let full = known.is_none() && works.len() == MAX_WRITTEN;
            if full || total - known.unwrap_or_default() + size > MAX_TXN {
                break;
            }
            total = total - known.unwrap_or_default() + size;
            let work = works.entry(key).or_insert_with_key(|key| Work::new(snapshot.get(key).map(|stored| &**stored)));
            (work.after, work.size) = (after, size);
        }
        taken += 1;
    }
    let mut txn = Txn::new();
    for (key, work) in works.into_iter().filter(|(_, work)| work.before != work.after) {
        txn = txn.expect(key.clone(), work.seen);
        txn = match work.after {
            Some(object) => txn.put(key, object.to_document()),
            None => txn.delete(key),
        };
    }
    Ok(Batch { txn, taken })
}

/// What a fact changes: the key, and the object afterwards. `None` if it changes nothing.
fn change(
    fact: &Fact,
    snapshot: &Snapshot,
    works: &BTreeMap<Key, Work>,
    reporter: Reporter<'_>,
) -> Result<Option<(Key, Option<Object>)>, Refusal> {
    let present = |key: &Key| match works.get(key) {
        Some(work) => work.after.clone(),
        None => snapshot.get(key).map(|stored| stored.object.clone()),
    };
    let find = |kind: &Kind, namespace: Option<&str>, name: &str, uid: &str| {
        let key = kind.key(namespace, name).ok()?;
        let object = present(&key).filter(|object| object.uid() == uid)?;
        Some((key, object))
    };
    match fact {
        Fact::Pod { namespace, name, uid, status } => {
            let patch = status_patch(status)?;
            Ok(find(&PODS, Some(namespace), name, uid)
                .and_then(|(key, pod)| Some((key, Some(with_status(pod, patch)?)))))
        }
        Fact::Gone { namespace, name, uid } => {
            let found = find(&PODS, Some(namespace), name, uid);
            Ok(found.filter(|(_, pod)| pod.deletion_timestamp().is_some()).map(|(key, mut pod)| {
                if pod.finalizers().is_empty() {
                    return (key, None);
                }
                delete::wait_for_finalizers(&mut pod);
                (key, Some(pod))
            }))
        }
        Fact::Node { status } => {
            let patch = status_patch(status)?;
            let Some(own) = access::own_node(reporter.caller, snapshot, reporter.cluster) else { return Ok(None) };
            Ok(find(&NODES, None, own.name(), own.uid()).map(|(key, mut node)| {
                node.merge(&json!({ "status": patch }));
                (key, Some(node))
            }))
        }
        Fact::Event { event } => happened(event, snapshot, &present, reporter),
    }
}

fn status_patch(document: &Document) -> Result<Value, Refusal> {
    if document.0.len() > MAX_OBJECT {
        return Err(refuse(format!("a status has {} bytes, the limit is {MAX_OBJECT} (1.5 MiB)", document.0.len())));
    }
    match serde_json::from_slice(&document.0) {
        Ok(patch @ Value::Object(_)) => Ok(patch),
        Ok(_) => Err(refuse("a status is a map")),
        Err(error) => Err(refuse(format!("a status is not JSON: {error}"))),
    }
}

fn refuse(because: impl Into<String>) -> Refusal {
    Refusal::new(Reason::BadRequest, "the report was not taken", because)
}

/// How far a pod has come.
fn rank(phase: Option<&str>) -> u8 {
    match phase {
        Some("Succeeded" | "Failed") => 2,
        Some("Running") => 1,
        _ => 0,
    }
}

/// The pod with its status merged. A phase never goes back; what is told of a pod that has ended is too late.
fn with_status(mut pod: Object, mut patch: Value) -> Option<Object> {
    if let Some(next) = patch.get("phase") {
        let (now, next) = (rank(pod.text(&["status", "phase"])), rank(next.as_str()));
        if now == 2 && next < 2 {
            return None;
        }
        if next < now
            && let Value::Object(patch) = &mut patch
        {
            patch.remove("phase");
        }
    }
    pod.merge(&json!({ "status": patch }));
    Some(pod)
}

/// Writes an event down, or counts it once more if the same was told before.
fn happened(
    document: &Document,
    snapshot: &Snapshot,
    present: &dyn Fn(&Key) -> Option<Object>,
    reporter: Reporter<'_>,
) -> Result<Option<(Key, Option<Object>)>, Refusal> {
    if document.0.len() > MAX_OBJECT {
        return Err(refuse(format!("an event has {} bytes, the limit is {MAX_OBJECT}", document.0.len())));
    }
    let told: Value =
        serde_json::from_slice(&document.0).map_err(|error| refuse(format!("an event is not JSON: {error}")))?;
    let involved = |field: &str| told["involvedObject"][field].as_str().unwrap_or_default().to_owned();
    let text = |field: &str| told[field].as_str().unwrap_or_default();
    let about = involved("name");
    let namespace = Some(involved("namespace")).filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
    if about.is_empty() || text("reason").is_empty() {
        return Err(refuse("an event lacks `involvedObject.name` or `reason`"));
    }
    let open = snapshot.find(&NAMESPACES, None, &namespace);
    if open.is_none_or(|namespace| namespace.object.deletion_timestamp().is_some()) {
        return Ok(None);
    }
    let message = shortened(text("message"));
    let source = told["source"]["component"].as_str().unwrap_or_default();
    let same =
        [involved("uid"), involved("fieldPath"), text("type").to_owned(), text("reason").to_owned(), message.clone()];
    let mut hasher = DefaultHasher::new();
    (&same, source).hash(&mut hasher);
    let mut name = format!("{}.{:016x}", about, hasher.finish());
    let mut key = EVENTS.key(Some(&namespace), &name).map_err(|error| refuse(format!("`{}`: {error}", cut(&name))))?;
    let mut before = present(&key);
    let identity = |event: &Object| {
        let path = |path: &[&str]| event.text(path).unwrap_or_default().to_owned();
        [
            path(&["involvedObject", "uid"]),
            path(&["involvedObject", "fieldPath"]),
            path(&["type"]),
            path(&["reason"]),
            path(&["message"]),
        ]
    };
    if before.as_ref().is_some_and(|event| identity(event) != same) {
        name = format!("{about}.{:016x}", reporter.random.number());
        key = EVENTS.key(Some(&namespace), &name).map_err(|error| refuse(format!("`{}`: {error}", cut(&name))))?;
        before = None;
    }
    let now = rfc3339(reporter.wall);
    let event = match before {
        Some(mut event) => {
            let count = event.at(&["count"]).and_then(Value::as_i64).unwrap_or(1);
            event.set(&["count"], count.saturating_add(1));
            event.set(&["lastTimestamp"], now);
            event
        }
        None => Object::from_value(json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace, "uid": reporter.random.uid(), "creationTimestamp": now},
            "involvedObject": told["involvedObject"],
            "type": text("type"),
            "reason": text("reason"),
            "message": message,
            "source": told["source"],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }))
        .map_err(|error| refuse(error.to_string()))?,
    };
    Ok(Some((key, Some(event))))
}

fn shortened(message: &str) -> String {
    let end = (0..=message.len().min(MAX_MESSAGE)).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
    message[..end].to_owned()
}

#[cfg(test)]
mod tests;
