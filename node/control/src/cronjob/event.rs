//! What is told of a cron job beside its status, as an event that `describe` and `events` show.
//!
//! Invariant: an event is made by the transaction that does what it tells of.

use quorate_proto::{kinds::EVENTS, object::Object, txn::Txn, world::rfc3339};
use serde_json::json;

use crate::decision::Moment;

/// Adds that many times were missed.
pub(super) fn many_missed(txn: Txn, cron: &Object, moment: &Moment<'_>) -> Txn {
    let (now, name) = (rfc3339(moment.wall), format!("{}.{:016x}", cron.name(), moment.random.number()));
    let message = format!(
        "more than {} times were missed, and only the last is made up for: set or lower `startingDeadlineSeconds`, or look at the clocks",
        super::MANY
    );
    let event = Object::from_value(json!({
        "apiVersion": EVENTS.api_version(),
        "kind": EVENTS.kind,
        "metadata": {"name": name, "namespace": cron.namespace(), "uid": moment.random.uid(), "creationTimestamp": now},
        "involvedObject": {
            "apiVersion": cron.api_version(),
            "kind": cron.kind(),
            "name": cron.name(),
            "namespace": cron.namespace(),
            "uid": cron.uid(),
        },
        "type": "Warning",
        "reason": "TooManyMissedTimes",
        "message": message,
        "source": {"component": "cronjob-controller"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }));
    match (event, EVENTS.key(cron.namespace(), &name)) {
        (Ok(event), Ok(key)) => txn.create(key, event.to_document()),
        _ => txn,
    }
}
