//! Runs jobs: as many pods as it takes until enough of them have succeeded, or too many have failed.
//!
//! A pod carries a finalizer until its end is counted, and one transaction counts it and takes the finalizer away: however a pod goes
//! (it is deleted, its node is deleted, its namespace ends), it is counted once. Kubernetes writes pods and job one after the other
//! and so keeps a list of what is counted by half; here both are written together, and there is nothing to keep.
//!
//! Invariant: until a job is done, every transaction that writes a pod of it compares and writes the job: two decisions on one snapshot
//! make and count pods once.

use std::{collections::BTreeSet, time::Duration};

use quorate_proto::{
    kinds::{JOBS, PODS},
    snapshot::Stored,
    txn::Txn,
    world::{Timestamp, rfc3339},
};

use self::{
    indexes::Indexes,
    outcome::Outcome,
    tally::{Pods, Tally, index, is_tracked},
    wanted::Wanted,
};
use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{delete, update},
    ownership::{by_controller, controller_uid, may_create_beside},
    pod::{has_ended, is_ready, is_terminating, node_name},
    template,
};

mod backoff;
mod indexes;
mod new_pod;
mod outcome;
mod status;
mod tally;
mod wanted;

/// The most pods of one job that one decision makes, ends or counts: a mistake shows before it is large, and the transaction stays
/// small.
const STEP: usize = 40;

/// Takes every job a step further.
pub(crate) fn run_jobs(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let owned = by_controller(snapshot.objects, &PODS);
    let mut counting: BTreeSet<&str> = BTreeSet::new();
    for job in snapshot.objects.list(&JOBS).filter(|job| !is_terminating(&job.object)) {
        if let Some(finished) = outcome::finished_at(&job.object) {
            forget(job, finished, moment, &mut decision);
            continue;
        }
        counting.insert(job.object.uid());
        let pods = owned.get(job.object.uid()).map_or(&[][..], Vec::as_slice);
        step(snapshot, moment, job, pods, &mut decision);
    }
    for pod in snapshot.objects.list(&PODS).filter(|pod| is_tracked(&pod.object)) {
        if controller_uid(&pod.object).is_none_or(|job| !counting.contains(job)) {
            decision.propose(new_pod::release(Txn::new(), pod));
        }
    }
    decision
}

/// Deletes a job that is done and was kept for as long as it asked to be.
fn forget(job: &Stored, finished: Timestamp, moment: &Moment<'_>, decision: &mut Decision) {
    let Some(kept) = Wanted::of(&job.object).kept else { return };
    let lasted = Duration::try_from(moment.wall.duration_since(finished)).unwrap_or_default();
    match kept.checked_sub(lasted).filter(|left| !left.is_zero()) {
        Some(left) => decision.wake_at(moment.now + left),
        None => decision.propose(delete(Txn::new(), job, moment.wall)),
    }
}

/// What is to be done with the pods of one job.
#[derive(Debug, Default)]
struct Plan<'a> {
    end: Vec<&'a Stored>,
    /// Whether those that are ended count as failed: the job has failed with them.
    end_fails: bool,
    /// Pods to make, each for its completion if they are numbered.
    make: Vec<Option<u32>>,
}

fn step(snapshot: &Snapshot<'_>, moment: &Moment<'_>, job: &Stored, owned: &[&Stored], decision: &mut Decision) {
    let wanted = Wanted::of(&job.object);
    let pods = Pods::of(owned, &wanted);
    let mut tally = Tally::of(&job.object, &wanted);
    let mut written = tally.clone();
    pods.uncounted.iter().for_each(|pod| tally.add(&pod.object, &wanted));

    let outcome = Outcome::known(&job.object).or_else(|| Outcome::of(&job.object, &wanted, &pods, &tally, moment.wall));
    let plan = match outcome {
        Some(outcome) => Plan { end: pods.active.clone(), end_fails: outcome != Outcome::Completed, make: Vec::new() },
        None if wanted.suspended => Plan { end: pods.active.clone(), ..Plan::default() },
        None => {
            if let Some(left) = outcome::time_left(&job.object, &wanted, moment.wall) {
                decision.wake_at(moment.now + left);
            }
            let mut plan = fit(&wanted, &pods, &tally, owned);
            if !plan.make.is_empty() && !may_make(snapshot, moment, job, owned, decision) {
                plan.make.clear();
            }
            plan
        }
    };

    let mut txn = Txn::new();
    for pod in pods.uncounted.iter().take(STEP) {
        written.add(&pod.object, &wanted);
        txn = new_pod::release(txn, pod);
    }
    let mut left = STEP.saturating_sub(pods.uncounted.len());
    let ended: Vec<&Stored> = plan.end.into_iter().take(left).collect();
    for pod in &ended {
        if plan.end_fails {
            written.add(&pod.object, &wanted);
        }
        txn = new_pod::end(txn, pod, moment.wall);
    }
    left -= ended.len();
    let mut made = 0;
    for index in plan.make.iter().take(left) {
        let pod = new_pod::of(&job.object, *index, moment);
        let Some(next) = pod.and_then(|pod| template::make(&txn, &pod, &job.object)) else { break };
        (txn, made) = (next, made + 1);
    }
    if left > 0 && made == 0 && !plan.make.is_empty() {
        decision.explain(&job.key, template::too_large());
    }

    let is_ended = |pod: &Stored| ended.iter().any(|ended| ended.key == pod.key);
    let remaining = || pods.active.iter().filter(|pod| !is_ended(pod));
    let counts = status::Counts {
        active: remaining().count() + made,
        ready: remaining().filter(|pod| is_ready(&pod.object)).count(),
        terminating: pods.terminating + ended.iter().filter(|pod| node_name(&pod.object).is_some()).count(),
        all_counted: pods.uncounted.len() <= STEP,
    };
    let changed = status::with(job, &wanted, outcome, &counts, &written, moment.wall);
    if !decision.reasons.contains_key(&job.key)
        && let Some(reason) = status::lacking(&changed, &wanted, outcome, &counts, &written)
    {
        decision.explain(&job.key, reason);
    }
    // When pods are written the job is, too, even if it stays as it is: the compare on it is the lock.
    decision.propose(if txn.writes.is_empty() {
        update(txn, job, &changed)
    } else {
        txn.update(job.key.clone(), job.modified, changed.to_document())
    });
}

/// Which pods are too many, and which are missing.
fn fit<'a>(wanted: &Wanted, pods: &Pods<'a>, tally: &Tally, owned: &[&'a Stored]) -> Plan<'a> {
    let mut used = tally.completed.clone();
    let (mut useful, mut end): (Vec<&Stored>, Vec<&Stored>) = pods.active.iter().partition(|pod| {
        let Some(index) = index(&pod.object).filter(|_| wanted.indexed) else { return !wanted.indexed };
        let wanted = index < wanted.indexes() && !used.contains(index);
        used.insert(index);
        wanted
    });
    let count = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
    let target = wanted.active(count(useful.len()), tally.succeeded);
    // The last that is of use: on a node, ready, older.
    useful.sort_by_key(|pod| (node_name(&pod.object).is_none(), !is_ready(&pod.object), pod.created, pod.key.clone()));
    let keep = usize::try_from(target).unwrap_or_default().min(useful.len());
    end.extend(useful.split_off(keep));

    let waits = if wanted.replaces_ended_only { pods.terminating } else { 0 };
    let missing = usize::try_from(target - count(useful.len() + waits)).unwrap_or_default().min(STEP);
    let make = if wanted.indexed {
        pending(wanted, tally, &useful, owned).missing(wanted.indexes()).take(missing).map(Some).collect()
    } else {
        vec![None; missing]
    };
    Plan { end, end_fails: false, make }
}

/// The completions that need no pod now: they are done, or one is at work on them.
fn pending(wanted: &Wanted, tally: &Tally, active: &[&Stored], owned: &[&Stored]) -> Indexes {
    let mut taken = tally.completed.clone();
    active.iter().filter_map(|pod| index(&pod.object)).for_each(|index| taken.insert(index));
    if wanted.replaces_ended_only {
        let ending = owned.iter().filter(|pod| is_terminating(&pod.object) && !has_ended(&pod.object));
        ending.filter_map(|pod| index(&pod.object)).for_each(|index| taken.insert(index));
    }
    taken
}

/// Whether new pods may be made now: not in a namespace that ends, nor too soon after others failed.
fn may_make(
    snapshot: &Snapshot<'_>,
    moment: &Moment<'_>,
    job: &Stored,
    owned: &[&Stored],
    decision: &mut Decision,
) -> bool {
    let (failures, wait) = backoff::wait(owned, moment.wall);
    if !wait.is_zero() {
        let at = rfc3339(moment.wall.checked_add(wait).unwrap_or(moment.wall));
        decision.wake_at(moment.now + wait);
        let pods = if failures == 1 { "pod" } else { "pods" };
        decision.explain(&job.key, format!("{failures} {pods} failed one after the other: the next is made at {at}"));
        return false;
    }
    may_create_beside(snapshot.objects, &job.object)
}

#[cfg(test)]
mod tests;
