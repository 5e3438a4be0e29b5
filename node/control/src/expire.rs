//! Removes what has a limited life: join tokens past their time, events past theirs.
//!
//! Invariant: at rest this wakes at most once in [`PAUSE`], and an idle cluster writes nothing else.

use std::time::Duration;

use quorate_proto::{
    kinds::{EVENTS, JOINTOKENS},
    object::Object,
    snapshot::Stored,
    txn::Txn,
    world::Timestamp,
};

use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::time,
};

/// How many objects one transaction removes: each is a compare and a write.
const BATCH: usize = 64;

/// Expiry is no hurry: what ends within this time ends together.
const PAUSE: Duration = Duration::from_secs(60);

/// Removes what has expired.
pub(crate) fn expire(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let lifetime = snapshot.settings.event_lifetime;
    let tokens = snapshot
        .objects
        .list(&JOINTOKENS)
        .filter_map(|token| Some((token, time(&token.object, &["spec", "expires"])?)));
    let events = snapshot.objects.list(&EVENTS).filter_map(|event| {
        let seen = last_seen(&event.object)?;
        Some((event, seen.checked_add(lifetime).unwrap_or(Timestamp::MAX)))
    });
    let (mut expired, mut next): (Vec<&Stored>, Option<Timestamp>) = (Vec::new(), None);
    for (stored, expires) in tokens.chain(events) {
        if expires <= moment.wall {
            expired.push(stored);
        } else {
            next = Some(next.map_or(expires, |earlier| earlier.min(expires)));
        }
    }
    for batch in expired.chunks(BATCH) {
        decision.propose(batch.iter().fold(Txn::new(), |txn, stored| txn.remove(stored.key.clone(), stored.modified)));
    }
    if let Some(next) = next {
        let left = Duration::try_from(next.duration_since(moment.wall)).unwrap_or_default();
        decision.wake_at(moment.now + left.max(PAUSE));
    }
    decision
}

/// When an event last happened, in whichever of its fields says so.
fn last_seen(event: &Object) -> Option<Timestamp> {
    let fields: [&[&str]; 5] = [
        &["series", "lastObservedTime"],
        &["lastTimestamp"],
        &["eventTime"],
        &["firstTimestamp"],
        &["metadata", "creationTimestamp"],
    ];
    fields.iter().find_map(|path| time(event, path))
}

#[cfg(test)]
mod tests;
