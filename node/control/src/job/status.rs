//! What a job says of itself: how many of its pods are at work and how many ended how, since when, and whether it is done.
//!
//! Invariant: the counts are those after the decision they are written with. A job says that it is done only when every pod of it has
//! ended and is counted.

use quorate_proto::{
    object::Object,
    snapshot::Stored,
    world::{Timestamp, rfc3339},
};
use serde_json::json;

use super::{outcome::Outcome, tally::Tally, wanted::Wanted};
use crate::edit::{Condition, set_condition, touch_condition};

/// The pods of a job after a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) active: usize,
    pub(super) ready: usize,
    /// Asked to end, and not ended yet.
    pub(super) terminating: usize,
    /// Whether every pod that ended is counted.
    pub(super) all_counted: bool,
}

/// The job with its status.
pub(super) fn with(
    job: &Stored,
    wanted: &Wanted,
    outcome: Option<Outcome>,
    counts: &Counts,
    tally: &Tally,
    wall: Timestamp,
) -> Object {
    let mut changed = job.object.clone();
    changed.merge(&json!({"status": {
        "active": counts.active,
        "ready": counts.ready,
        "terminating": counts.terminating,
        "succeeded": tally.succeeded,
        "failed": tally.failed,
    }}));
    if wanted.indexed {
        changed.set(&["status", "completedIndexes"], tally.completed.to_string());
    }
    match outcome {
        Some(outcome) => finish(&mut changed, outcome, counts, wall),
        None if wanted.suspended => {
            say(&mut changed, "Suspended", "True", "JobSuspended", "Job suspended", wall);
            changed.unset(&["status", "startTime"]);
        }
        None => {
            if changed.is_true("Suspended") {
                say(&mut changed, "Suspended", "False", "JobResumed", "Job resumed", wall);
            }
            if changed.at(&["status", "startTime"]).is_none() {
                changed.set(&["status", "startTime"], rfc3339(wall));
            }
        }
    }
    changed
}

fn finish(job: &mut Object, outcome: Outcome, counts: &Counts, wall: Timestamp) {
    let (coming, done) = outcome.conditions();
    say(job, coming, "True", outcome.reason(), outcome.message(), wall);
    if counts.active > 0 || counts.terminating > 0 || !counts.all_counted {
        return;
    }
    say(job, done, "True", outcome.reason(), outcome.message(), wall);
    if outcome == Outcome::Completed {
        job.set(&["status", "completionTime"], rfc3339(wall));
    }
}

fn say(job: &mut Object, kind: &str, status: &str, reason: &str, message: &str, wall: Timestamp) {
    if set_condition(job, Condition { kind, status, reason, message }, wall) {
        touch_condition(job, kind, "lastProbeTime", wall);
    }
}

/// What a job waits for, in words; `None` if it is done.
pub(super) fn lacking(
    job: &Object,
    wanted: &Wanted,
    outcome: Option<Outcome>,
    counts: &Counts,
    tally: &Tally,
) -> Option<String> {
    let Counts { active, terminating, .. } = *counts;
    match outcome {
        Some(outcome) => (!job.is_true(outcome.conditions().1))
            .then(|| format!("{}: waits for {} pods to end", outcome.message(), active + terminating)),
        None if wanted.suspended => Some("it is suspended".to_owned()),
        None => Some(match wanted.completions {
            Some(completions) => {
                format!("{} of {completions} completions are done, {active} pods are active", tally.succeeded)
            }
            None => format!("{} pods succeeded, {active} are active", tally.succeeded),
        }),
    }
}
