//! Rolls deployments out: from the pod template to replicasets, step by step.
//!
//! Each template has its own replicaset; a rollout scales the new one up and the old ones down within the bounds of the strategy. Old
//! sets are kept, empty, to go back to.
//!
//! Invariant: one transaction per deployment and decision, which compares the deployment and every set it sizes: two decisions on the same
//! snapshot take one step.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use quorate_proto::{
    kinds::{DEPLOYMENTS, PODS, REPLICASETS},
    object::Object,
    snapshot::Stored,
    txn::Txn,
};
use serde_json::Value;

use self::{
    rollout::{Size, rescale, step},
    status::{Counts, Target},
    wanted::Wanted,
};
use crate::{
    decision::{Decision, Moment, Snapshot},
    edit::{delete, number, set_spec, update},
    ownership::{by_controller, may_create_beside},
    pod::{available_in, is_active, is_finished, is_ready, is_terminating},
};

mod rollout;
mod status;
mod template;
mod wanted;

/// Which of a deployment's templates this was, counted from 1.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// How many replicas the deployment wanted when the set was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many it then allowed in all.
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that belong to the deployment alone.
const OWN_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision-history",
    REVISION,
    DESIRED,
    MOST,
];

/// The most old sets that one decision removes.
const CLEAN_UP: usize = 16;

/// Takes the next step of every rollout.
pub(crate) fn roll_out(snapshot: &Snapshot<'_>, moment: &Moment<'_>) -> Decision {
    let mut decision = Decision::default();
    let sets = by_controller(snapshot.objects, &REPLICASETS);
    let pods = by_controller(snapshot.objects, &PODS);
    for deployment in snapshot.objects.list(&DEPLOYMENTS) {
        if is_terminating(&deployment.object) {
            continue;
        }
        let wanted = match Wanted::of(&deployment.object) {
            Ok(wanted) => wanted,
            Err(reason) => {
                decision.explain(&deployment.key, reason);
                continue;
            }
        };
        let owned = sets.get(deployment.object.uid()).map_or(&[][..], Vec::as_slice);
        let mut owned: Vec<Set<'_>> =
            owned.iter().filter(|set| !is_terminating(&set.object)).map(|set| Set::of(set, &pods, moment)).collect();
        owned.sort_by_key(|set| (set.created(), set.before.object.name().to_owned()));
        take_step(snapshot, moment, deployment, &wanted, owned, &mut decision);
    }
    decision
}

/// A replicaset, as it is and as it should be.
struct Set<'a> {
    before: &'a Stored,
    after: Cow<'a, Object>,
    size: Size,
    ready: i64,
    /// Pods that have not ended, whether asked to or not.
    alive: usize,
}

impl<'a> Set<'a> {
    fn of(set: &'a Stored, pods: &BTreeMap<&str, Vec<&Stored>>, moment: &Moment<'_>) -> Self {
        let object = &set.object;
        let pods = pods.get(object.uid()).map_or(&[][..], Vec::as_slice);
        let active: Vec<&Object> = pods.iter().map(|pod| &pod.object).filter(|pod| is_active(pod)).collect();
        let min_ready = number(object, &["spec", "minReadySeconds"]).unwrap_or_default().max(0);
        let min_ready = Duration::from_secs(min_ready.unsigned_abs());
        let count = |counts: &dyn Fn(&Object) -> bool| {
            i64::try_from(active.iter().filter(|pod| counts(pod)).count()).unwrap_or(i64::MAX)
        };
        let size = Size {
            asked: asked(object),
            active: count(&|_| true),
            available: count(&|pod| available_in(pod, min_ready, moment.wall).is_some_and(|wait| wait.is_zero())),
            most: annotated(object, MOST),
        };
        let alive = pods.iter().filter(|pod| !is_finished(&pod.object)).count();
        Self { before: set, after: Cow::Borrowed(object), size, ready: count(&is_ready), alive }
    }

    fn created(&self) -> quorate_proto::txn::Revision {
        self.before.created
    }

    fn resize(&mut self, replicas: i64) {
        if replicas != self.size.asked {
            set_spec(self.after.to_mut(), "replicas", replicas);
        }
    }
}

fn asked(set: &Object) -> i64 {
    number(set, &["spec", "replicas"]).unwrap_or(1).max(0)
}

fn annotated(object: &Object, annotation: &str) -> Option<i64> {
    object.annotation(annotation)?.parse().ok()
}

fn annotate(object: &mut Cow<'_, Object>, annotation: &str, value: &str) {
    if object.annotation(annotation) != Some(value) {
        object.to_mut().set(&["metadata", "annotations", annotation], value);
    }
}

fn take_step(
    snapshot: &Snapshot<'_>,
    moment: &Moment<'_>,
    deployment: &Stored,
    wanted: &Wanted,
    mut old: Vec<Set<'_>>,
    decision: &mut Decision,
) {
    let counts = count(&old, &wanted.template);
    let rescaled = resize_if_scaled(wanted, &mut old);
    let mut new =
        old.iter().position(|set| template::is_of(&set.before.object, &wanted.template)).map(|at| old.remove(at));
    let mut made: Option<Cow<'_, Object>> = None;
    if !rescaled && !wanted.paused {
        let old_alive: usize = old.iter().map(|set| set.alive).sum();
        let sizes: Vec<Size> = old.iter().map(|set| set.size).collect();
        let new_size = new.as_ref().map(|set| set.size).unwrap_or_default();
        let (replicas, old_replicas) = if !wanted.recreate {
            step(&wanted.bounds, &new_size, &sizes)
        } else if old_alive == 0 {
            (wanted.bounds.desired, vec![0; old.len()])
        } else {
            decision
                .explain(&deployment.key, format!("waits for {old_alive} old pods to end before it starts new ones"));
            (new_size.asked, vec![0; old.len()])
        };
        for (set, replicas) in old.iter_mut().zip(old_replicas) {
            set.resize(replicas);
        }
        match &mut new {
            Some(set) => set.resize(replicas),
            None if wanted.recreate && old_alive > 0 => {}
            None if !may_create_beside(snapshot.objects, &deployment.object) => {}
            None => {
                made = template::new_set(snapshot.objects, deployment, wanted, moment).map(Cow::Owned);
                match &mut made {
                    Some(set) => set.to_mut().set(&["spec", "replicas"], replicas),
                    None => decision.explain(&deployment.key, "every name its next replicaset could have is taken"),
                }
            }
        }
    }

    let mut changed = Cow::Borrowed(&deployment.object);
    let last = old.iter().filter_map(|set| annotated(&set.before.object, REVISION)).max().unwrap_or_default();
    if let Some(set) = new.as_mut().map(|set| &mut set.after).or(made.as_mut()) {
        let revision = annotated(set, REVISION).filter(|revision| *revision > last).unwrap_or(last + 1).to_string();
        annotate(&mut changed, REVISION, &revision);
        annotate(set, REVISION, &revision);
        for (annotation, value) in deployment.object.strings(&["metadata", "annotations"]) {
            if !OWN_ANNOTATIONS.contains(&annotation) {
                annotate(set, annotation, value);
            }
        }
        if number(set, &["spec", "minReadySeconds"]).unwrap_or_default() != wanted.min_ready_seconds {
            set_spec(set.to_mut(), "minReadySeconds", wanted.min_ready_seconds);
        }
        note_bounds(set, wanted);
    }
    for set in old.iter_mut().filter(|set| asked(&set.after) > 0) {
        note_bounds(&mut set.after, wanted);
    }

    let target = match (&made, &new) {
        (Some(set), _) => Target::Made(set.name()),
        (None, Some(set)) => Target::Found(set.before.object.name()),
        (None, None) => Target::Missing,
    };
    status::write(changed.to_mut(), wanted, &counts, target, moment, decision);
    if !counts.complete(wanted.bounds.desired) && !decision.reasons.contains_key(&deployment.key) {
        let Counts { updated, available, .. } = counts;
        let desired = wanted.bounds.desired;
        let paused = if wanted.paused { "paused: " } else { "" };
        decision.explain(
            &deployment.key,
            format!("{paused}{updated} of {desired} replicas are updated, {available} available"),
        );
    }

    let mut txn = old.iter().chain(&new).fold(Txn::new(), |txn, set| update(txn, set.before, &set.after));
    if let Some(set) = made
        && let Ok(key) = REPLICASETS.key(set.namespace(), set.name())
    {
        txn = txn.create(key, set.to_document());
    }
    if counts.complete(wanted.bounds.desired) && txn.writes.is_empty() {
        txn = clean_up(txn, &old, wanted.history, moment);
    }
    // The compare on the deployment is the lock, even if its own document stays as it is.
    decision.propose(if *changed == deployment.object {
        txn.expect(deployment.key.clone(), Some(deployment.modified))
    } else {
        update(txn, deployment, &changed)
    });
}

fn count(sets: &[Set<'_>], template: &Value) -> Counts {
    let new = sets.iter().find(|set| template::is_of(&set.before.object, template));
    Counts {
        replicas: sets.iter().map(|set| set.size.active).sum(),
        updated: new.map_or(0, |set| set.size.active),
        ready: sets.iter().map(|set| set.ready).sum(),
        available: sets.iter().map(|set| set.size.available).sum(),
    }
}

/// If the deployment was scaled since its sets were sized, gives each set its share, and says so: the rollout goes on afterwards.
fn resize_if_scaled(wanted: &Wanted, sets: &mut [Set<'_>]) -> bool {
    let desired = wanted.bounds.desired;
    let mut active: Vec<&mut Set<'_>> = sets.iter_mut().filter(|set| set.size.asked > 0).collect();
    let scaled = active.iter().any(|set| annotated(&set.after, DESIRED).is_some_and(|then| then != desired));
    if !scaled {
        return false;
    }
    if let [only] = active.as_mut_slice() {
        only.resize(desired);
    } else if !wanted.recreate {
        let sizes: Vec<Size> = active.iter().map(|set| set.size).collect();
        for (set, replicas) in active.iter_mut().zip(rescale(&wanted.bounds, &sizes)) {
            set.resize(replicas);
        }
    }
    for set in active {
        note_bounds(&mut set.after, wanted);
    }
    true
}

/// Notes what the set was sized for.
fn note_bounds(set: &mut Cow<'_, Object>, wanted: &Wanted) {
    annotate(set, DESIRED, &wanted.bounds.desired.to_string());
    annotate(set, MOST, &wanted.bounds.most().to_string());
}

/// Removes the oldest of the sets that are empty, beyond those that are kept.
fn clean_up(txn: Txn, old: &[Set<'_>], history: usize, moment: &Moment<'_>) -> Txn {
    let mut empty: Vec<&Set<'_>> = old.iter().filter(|set| set.size.asked == 0 && set.alive == 0).collect();
    empty.sort_by_key(|set| annotated(&set.before.object, REVISION).unwrap_or_default());
    let beyond = empty.len().saturating_sub(history).min(CLEAN_UP);
    empty.into_iter().take(beyond).fold(txn, |txn, set| delete(txn, set.before, moment.wall))
}

#[cfg(test)]
mod tests;
