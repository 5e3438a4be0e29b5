//! Whether a job is done, and how: first what it comes to, and when its last pod has ended, that it came to it.
//!
//! Invariant: conditions, reasons and messages are those of Kubernetes. What a job comes to is decided once: a job that is about to fail
//! does not complete after all. While it says `Complete` or `Failed`, none of its pods runs.

use std::time::Duration;

use quorate_proto::{object::Object, world::Timestamp};

use super::{
    tally::{Pods, Tally, restarts},
    wanted::Wanted,
};
use crate::edit::{of_condition, time};

/// What a job comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Completed,
    BackoffLimitExceeded,
    DeadlineExceeded,
}

impl Outcome {
    /// What the job has come to before, if it has.
    pub(super) fn known(job: &Object) -> Option<Self> {
        if job.is_true("SuccessCriteriaMet") {
            return Some(Self::Completed);
        }
        let failing = job.is_true("FailureTarget").then(|| of_condition(job, "FailureTarget", "reason")).flatten();
        failing.map(|reason| {
            if reason == Self::DeadlineExceeded.reason() { Self::DeadlineExceeded } else { Self::BackoffLimitExceeded }
        })
    }

    /// What the job comes to now, if it does.
    pub(super) fn of(job: &Object, wanted: &Wanted, pods: &Pods<'_>, tally: &Tally, wall: Timestamp) -> Option<Self> {
        if tally.failed > wanted.backoff_limit || wanted.restarts && restarted_too_often(wanted, pods) {
            return Some(Self::BackoffLimitExceeded);
        }
        if time_left(job, wanted, wall).is_some_and(|left| left.is_zero()) {
            return Some(Self::DeadlineExceeded);
        }
        let done = match wanted.completions {
            None => tally.succeeded > 0 && pods.active.is_empty(),
            Some(completions) => tally.succeeded >= completions,
        };
        done.then_some(Self::Completed)
    }

    /// The condition that says it before the last pod has ended, and the one afterwards.
    pub(super) const fn conditions(self) -> (&'static str, &'static str) {
        match self {
            Self::Completed => ("SuccessCriteriaMet", "Complete"),
            Self::BackoffLimitExceeded | Self::DeadlineExceeded => ("FailureTarget", "Failed"),
        }
    }

    /// Why, in a word.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Completed => "CompletionsReached",
            Self::BackoffLimitExceeded => "BackoffLimitExceeded",
            Self::DeadlineExceeded => "DeadlineExceeded",
        }
    }

    /// Why, in a sentence.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Completed => "Reached expected number of succeeded pods",
            Self::BackoffLimitExceeded => "Job has reached the specified backoff limit",
            Self::DeadlineExceeded => "Job was active longer than specified deadline",
        }
    }
}

/// When a job was done; `None` if it is not.
pub(super) fn finished_at(job: &Object) -> Option<Timestamp> {
    let condition = ["Complete", "Failed"].into_iter().find(|condition| job.is_true(condition))?;
    Some(of_condition(job, condition, "lastTransitionTime").and_then(|at| at.parse().ok()).unwrap_or_default())
}

/// How long a job may still be at work; `None` if nobody limits it, or it has not begun.
pub(super) fn time_left(job: &Object, wanted: &Wanted, wall: Timestamp) -> Option<Duration> {
    let deadline = wanted.deadline.filter(|_| !wanted.suspended)?;
    let started = time(job, &["status", "startTime"])?;
    Some(deadline.saturating_sub(Duration::try_from(wall.duration_since(started)).unwrap_or_default()))
}

fn restarted_too_often(wanted: &Wanted, pods: &Pods<'_>) -> bool {
    let restarts = restarts(pods);
    restarts > 0 && restarts >= wanted.backoff_limit
}
