//! What a job asks for, read once, with Kubernetes' defaults.
//!
//! Invariant: how many completions are wanted, and how they are told apart, never changes in the life of a job.

use std::time::Duration;

use quorate_proto::object::Object;
use serde_json::Value;

use crate::edit::number;

/// A job's spec.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The most pods at the same time.
    pub(super) parallelism: i64,
    /// How many pods must succeed; `None`: the pods decide among themselves, and one that succeeds says that all is done.
    pub(super) completions: Option<i64>,
    /// Whether each completion has a number, and a pod of its own.
    pub(super) indexed: bool,
    /// How many pods may fail.
    pub(super) backoff_limit: i64,
    /// How long it may take in all.
    pub(super) deadline: Option<Duration>,
    /// How long it is kept once it is done.
    pub(super) kept: Option<Duration>,
    pub(super) suspended: bool,
    /// A pod that ends is replaced only when it has ended.
    pub(super) replaces_ended_only: bool,
    /// Containers that fail are started again in their pod, and count.
    pub(super) restarts: bool,
}

impl Wanted {
    /// Reads a job.
    pub(super) fn of(job: &Object) -> Self {
        let spec = |field: &str| number(job, &["spec", field]);
        let text = |field: &str| job.text(&["spec", field]);
        let seconds = |field: &str| spec(field).map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
        let parallelism = spec("parallelism");
        Self {
            parallelism: parallelism.unwrap_or(1).max(0),
            completions: spec("completions").or_else(|| parallelism.is_none().then_some(1)),
            indexed: text("completionMode") == Some("Indexed"),
            backoff_limit: spec("backoffLimit").unwrap_or(6).max(0),
            deadline: seconds("activeDeadlineSeconds"),
            kept: seconds("ttlSecondsAfterFinished"),
            suspended: job.at(&["spec", "suspend"]).and_then(Value::as_bool) == Some(true),
            replaces_ended_only: text("podReplacementPolicy") == Some("Failed"),
            restarts: job.text(&["spec", "template", "spec", "restartPolicy"]) == Some("OnFailure"),
        }
    }

    /// How many completions have a number.
    pub(super) fn indexes(&self) -> u32 {
        let completions = self.completions.filter(|_| self.indexed).unwrap_or_default();
        u32::try_from(completions).unwrap_or_default()
    }

    /// How many pods should be active, with so many that are and so many that succeeded.
    pub(super) fn active(&self, active: i64, succeeded: i64) -> i64 {
        match self.completions {
            // One that succeeded says that there is no more to do: the others end by themselves.
            None if succeeded > 0 => active,
            None => self.parallelism,
            Some(completions) => (completions - succeeded).clamp(0, self.parallelism),
        }
    }
}
