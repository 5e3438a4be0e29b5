//! A job's pods, sorted by what they are to it, and counted.
//!
//! Invariant: a pod is counted once: its finalizer is there until it is counted, and is removed by the transaction that counts it. What
//! is counted is never looked for again, so that it does not matter who removes the pod afterwards.

use quorate_proto::{
    job::{COMPLETION_INDEX, TRACKING},
    object::Object,
    snapshot::Stored,
};

use super::{indexes::Indexes, wanted::Wanted};
use crate::{
    edit::{items, number},
    pod::{has_ended, is_active, is_finished},
};

/// The pods of one job.
#[derive(Debug, Default)]
pub(super) struct Pods<'a> {
    /// Neither ended nor asked to.
    pub(super) active: Vec<&'a Stored>,
    /// How many were asked to end and have not yet.
    pub(super) terminating: usize,
    /// Ended, as far as this job is concerned, and not counted yet.
    pub(super) uncounted: Vec<&'a Stored>,
}

/// How the pods of a job ended, as its status says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) succeeded: i64,
    pub(super) failed: i64,
    /// Which completions of an indexed job are done.
    pub(super) completed: Indexes,
}

impl<'a> Pods<'a> {
    /// Sorts the pods of a job, oldest first.
    pub(super) fn of(pods: &[&'a Stored], wanted: &Wanted) -> Self {
        let mut sorted = Self::default();
        for &stored in pods {
            let pod = &stored.object;
            if is_active(pod) {
                sorted.active.push(stored);
                continue;
            }
            sorted.terminating += usize::from(!has_ended(pod));
            let counts = has_ended(pod) || !wanted.replaces_ended_only;
            if counts && is_tracked(pod) {
                sorted.uncounted.push(stored);
            }
        }
        for list in [&mut sorted.active, &mut sorted.uncounted] {
            list.sort_by_key(|pod| (pod.created, pod.key.clone()));
        }
        sorted
    }
}

impl Tally {
    /// What is counted already.
    pub(super) fn of(job: &Object, wanted: &Wanted) -> Self {
        let count = |field: &str| number(job, &["status", field]).unwrap_or_default();
        let completed = job.text(&["status", "completedIndexes"]).filter(|_| wanted.indexed).unwrap_or_default();
        Self { succeeded: count("succeeded"), failed: count("failed"), completed: Indexes::parse(completed) }
    }

    /// Counts one more pod that ended.
    pub(super) fn add(&mut self, pod: &Object, wanted: &Wanted) {
        let succeeded = is_finished(pod) && pod.text(&["status", "phase"]) == Some("Succeeded");
        if !wanted.indexed {
            if succeeded {
                self.succeeded += 1;
            } else {
                self.failed += 1;
            }
            return;
        }
        let Some(index) = index(pod).filter(|index| *index < wanted.indexes()) else { return };
        if succeeded {
            self.completed.insert(index);
            self.succeeded = self.completed.len();
        } else {
            self.failed += 1;
        }
    }
}

/// Whether a pod is yet to be counted.
pub(super) fn is_tracked(pod: &Object) -> bool {
    pod.finalizers().contains(&TRACKING)
}

/// Which completion a pod works on.
pub(super) fn index(pod: &Object) -> Option<u32> {
    pod.annotation(COMPLETION_INDEX)?.parse().ok()
}

/// How often the containers of pods that are still at work were started again.
pub(super) fn restarts(pods: &Pods<'_>) -> i64 {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let of = |pod: &Stored| -> i64 {
        let statuses = lists.iter().flat_map(|list| items(&pod.object, &["status", list]));
        statuses.filter_map(|status| status.get("restartCount")?.as_i64()).sum()
    };
    pods.active.iter().map(|pod| of(pod)).sum()
}
