//! Makes the jobs of cron jobs when they are due, and removes those that are done and no longer kept.
//!
//! Of the times that were missed (nobody led, the cron job was suspended, another run was not to be joined) only the last is made up for,
//! and only if it is not later than `startingDeadlineSeconds`. A run is named after its time, so that it has one job whoever makes it.
//!
//! Invariant: a job is made by the transaction that notes its time in the cron job and compares it: no time is run twice, and none is
//! noted that was not run. Between two times nothing is written and nobody wakes.

use std::time::Duration;

use quorate_proto::{
    cron::Schedule,
    job,
    kinds::{CRONJOBS, JOBS},
    object::Object,
    snapshot::Stored,
    txn::Txn,
    world::{Timestamp, rfc3339},
};
use serde_json::json;

use self::{
    history::History,
    wanted::{Policy, Wanted},
};
use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{delete, time, update},
    ownership::{by_controller, controlled_by, may_create_beside},
    pod::is_terminating,
};

mod event;
mod history;
mod wanted;

/// More missed times than this are told of: something was wrong for long.
const MANY: usize = 100;

/// The most runs that one decision removes because another takes their place.
const REPLACED: usize = 32;

/// Makes what is due.
pub(crate) fn run_schedules(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let owned = by_controller(snapshot.objects, &JOBS);
    for cron in snapshot.objects.list(&CRONJOBS).filter(|cron| !is_terminating(&cron.object)) {
        let jobs = owned.get(cron.object.uid()).map_or(&[][..], Vec::as_slice);
        match Wanted::of(&cron.object) {
            Ok(wanted) => step(snapshot, moment, cron, &wanted, jobs, &mut decision),
            Err(reason) => decision.explain(&cron.key, reason),
        }
    }
    decision
}

fn step(
    snapshot: &Snapshot<'_>,
    moment: &Moment<'_>,
    cron: &Stored,
    wanted: &Wanted,
    jobs: &[&Stored],
    decision: &mut Decision,
) {
    let mut history = History::of(jobs);
    let mut changed = cron.object.clone();
    let mut txn = history.beyond(wanted).into_iter().fold(Txn::new(), |txn, job| delete(txn, job, moment.wall));
    if let Some(due) = due(cron, wanted, moment, decision) {
        match run(snapshot, moment, cron, wanted, &mut history, due, &txn) {
            Ok(None) => txn = make_room(txn, &mut history, moment),
            Ok(Some(next)) => {
                txn = next;
                changed.set(&["status", "lastScheduleTime"], rfc3339(due));
            }
            Err(reason) => decision.explain(&cron.key, reason),
        }
    }
    let active = history.active(cron.object.namespace());
    if active.is_empty() {
        changed.unset(&["status", "active"]);
    } else {
        changed.set(&["status", "active"], active);
    }
    if let Some(last) = history.last_success(&cron.object) {
        changed.set(&["status", "lastSuccessfulTime"], last);
    }
    // When jobs are written the cron job is, too, even if it stays as it is: the compare on it is the lock.
    decision.propose(if txn.writes.is_empty() {
        update(txn, cron, &changed)
    } else {
        txn.update(cron.key.clone(), cron.modified, changed.to_document())
    });
}

/// The time that should be run now, if there is one.
fn due(cron: &Stored, wanted: &Wanted, moment: &Moment<'_>, decision: &mut Decision) -> Option<Timestamp> {
    if wanted.suspended {
        decision.explain(&cron.key, "it is suspended");
        return None;
    }
    let between = |from: Timestamp, to: Timestamp| Duration::try_from(to.duration_since(from)).unwrap_or_default();
    if let Some(next) = wanted.schedule.after(moment.wall) {
        decision.wake_at(moment.now + between(moment.wall, next));
    }
    let due = wanted.schedule.until(moment.wall).filter(|due| *due > noted(&cron.object))?;
    wanted.deadline.is_none_or(|deadline| between(due, moment.wall) <= deadline).then_some(due)
}

/// Up to when every time was run, or is past: the last that was run, or when the cron job was made.
fn noted(cron: &Object) -> Timestamp {
    let made = time(cron, &["metadata", "creationTimestamp"]).unwrap_or_default();
    time(cron, &["status", "lastScheduleTime"]).unwrap_or_default().max(made)
}

/// Whether so many times were missed before this one that it should be told of.
fn missed_many(cron: &Object, schedule: &Schedule, due: Timestamp) -> bool {
    let mut missed = std::iter::successors(schedule.after(noted(cron)), |time| schedule.after(*time));
    missed.nth(MANY).is_some_and(|time| time <= due)
}

/// Makes the job of a time; `None` if more runs than one transaction should remove must go first.
///
/// # Errors
/// In words, if it cannot be made now.
fn run(
    snapshot: &Snapshot<'_>,
    moment: &Moment<'_>,
    cron: &Stored,
    wanted: &Wanted,
    history: &mut History<'_>,
    due: Timestamp,
    txn: &Txn,
) -> Result<Option<Txn>, String> {
    let when = wanted.schedule.written(due);
    if !may_create_beside(snapshot.objects, &cron.object) {
        return Err(format!("its run of {when} is not made: its namespace ends"));
    }
    let name = format!("{}-{}", cron.object.name(), due.as_second().div_euclid(60));
    let key = JOBS.key(cron.object.namespace(), &name).map_err(|error| format!("its run of {when}: {error}"))?;
    let mut txn = txn.clone();
    match snapshot.objects.get(&key) {
        Some(found) if found.object.is_controlled_by(&cron.object) => return Ok(Some(txn)),
        Some(_) => return Err(format!("its run of {when} is not made: there is a job `{name}` that is not its own")),
        None => {}
    }
    if let (Policy::Forbid, [running, ..]) = (wanted.policy, history.at_work.as_slice()) {
        return Err(format!("its run of {when} waits for `{}` to end", running.object.name()));
    }
    if wanted.policy == Policy::Replace {
        if history.at_work.len() > REPLACED {
            return Ok(None);
        }
        txn = make_room(txn, history, moment);
    }
    let job = new_job(&cron.object, &name, &when, moment).ok_or("its job cannot be made of its template")?;
    txn = txn.create(key, job.to_document());
    if missed_many(&cron.object, &wanted.schedule, due) {
        txn = event::many_missed(txn, &cron.object, moment);
    }
    history.made = Some(job);
    Ok(Some(txn))
}

/// Removes the runs that another is to take the place of, as many as one transaction should.
fn make_room(txn: Txn, history: &mut History<'_>, moment: &Moment<'_>) -> Txn {
    let replaced = history.at_work.len().min(REPLACED);
    history.at_work.drain(..replaced).fold(txn, |txn, job| delete(txn, job, moment.wall))
}

fn new_job(cron: &Object, name: &str, when: &str, moment: &Moment<'_>) -> Option<Object> {
    let template = |path: &[&str]| {
        let path: Vec<&str> = ["spec", "jobTemplate"].iter().chain(path).copied().collect();
        cron.at(&path).cloned().unwrap_or_else(|| json!({}))
    };
    let mut made = Object::from_value(json!({
        "apiVersion": JOBS.api_version(),
        "kind": JOBS.kind,
        "metadata": {
            "name": name,
            "namespace": cron.namespace(),
            "uid": moment.random.uid(),
            "creationTimestamp": rfc3339(moment.wall),
            "generation": 1,
            "labels": template(&["metadata", "labels"]),
            "annotations": template(&["metadata", "annotations"]),
            "ownerReferences": [controlled_by(cron)],
        },
        "spec": template(&["spec"]),
    }))
    .ok()?;
    made.set(&["metadata", "annotations", job::SCHEDULED_AT], when);
    job::identify(&mut made);
    Some(made)
}

#[cfg(test)]
mod tests;
