//! What a daemon set says of itself: on how many nodes it should be, and is.
//!
//! Invariant: words and meaning are Kubernetes', which `kubectl rollout status` waits for; the counts are those after the decision they
//! are written with, so that it is not followed by another that only counts.

use quorate_proto::object::Object;
use serde_json::json;

use super::{
    place::Place,
    site::{Site, is_updated},
    wanted::Wanted,
};
use crate::{
    decision::{Decision, Moment},
    pod::{available_in, is_ready},
};

/// The nodes of a daemon set, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    desired: usize,
    current: usize,
    ready: usize,
    available: usize,
    updated: usize,
    misscheduled: usize,
}

impl Counts {
    /// Counts nodes as they are after the decision.
    pub(super) fn of(sites: &[Site<'_>], wanted: &Wanted, moment: &Moment<'_>, decision: &mut Decision) -> Self {
        let mut counts = Self::default();
        for site in sites {
            if site.place != Place::Runs {
                counts.misscheduled += usize::from(site.is_taken());
                continue;
            }
            counts.desired += 1;
            counts.current += usize::from(site.is_taken());
            counts.updated += usize::from(site.made);
            let Some(pod) = site.active() else { continue };
            counts.ready += usize::from(is_ready(&pod.object));
            counts.updated += usize::from(is_updated(&pod.object, wanted));
            match available_in(&pod.object, wanted.min_ready, moment.wall) {
                Some(wait) if wait.is_zero() => counts.available += 1,
                Some(wait) => decision.wake_at(moment.now + wait),
                None => {}
            }
        }
        counts
    }

    /// What is still to come, in words; `None` if nothing is.
    pub(super) fn lacking(&self) -> Option<String> {
        let Self { desired, updated, available, misscheduled, .. } = *self;
        if updated < desired || available < desired {
            return Some(format!("{updated} of {desired} nodes have its present pod, {available} an available one"));
        }
        (misscheduled > 0).then(|| format!("{misscheduled} nodes have a pod of it that they are not meant for"))
    }
}

/// The set with its status.
pub(super) fn with(set: &Object, counts: &Counts) -> Object {
    let mut changed = set.clone();
    changed.merge(&json!({"status": {
        "desiredNumberScheduled": counts.desired,
        "currentNumberScheduled": counts.current,
        "numberReady": counts.ready,
        "numberAvailable": counts.available,
        "numberUnavailable": counts.desired - counts.available,
        "updatedNumberScheduled": counts.updated,
        "numberMisscheduled": counts.misscheduled,
        "observedGeneration": set.generation(),
    }}));
    changed
}
