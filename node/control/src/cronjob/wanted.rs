//! What a cron job asks for, read once, with Kubernetes' defaults.
//!
//! Invariant: a schedule or a zone that cannot be read is an error with its reason; nothing is run by a guess.

use std::time::Duration;

use quorate_proto::{
    cron::{Schedule, ScheduleError},
    object::Object,
};
use serde_json::Value;

use crate::edit::number;

/// What to do when a run is due while another is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Allow,
    Forbid,
    Replace,
}

/// A cron job's spec.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) schedule: Schedule,
    pub(super) policy: Policy,
    pub(super) suspended: bool,
    /// How late a run may begin.
    pub(super) deadline: Option<Duration>,
    /// How many jobs that succeeded are kept.
    pub(super) successful: usize,
    /// How many jobs that failed are kept.
    pub(super) failed: usize,
}

impl Wanted {
    /// Reads a cron job.
    ///
    /// # Errors
    /// In words, if its schedule cannot be read.
    pub(super) fn of(cron: &Object) -> Result<Self, String> {
        let text = |field: &str| cron.text(&["spec", field]);
        let count = |field: &str, missing: i64| {
            usize::try_from(number(cron, &["spec", field]).unwrap_or(missing)).unwrap_or_default()
        };
        let zone = text("timeZone");
        let schedule = Schedule::parse(text("schedule").unwrap_or_default(), zone).map_err(|error| match error {
            ScheduleError::Zone => format!("its time zone `{}` {error}", zone.unwrap_or_default()),
            _ => format!("its schedule {error}"),
        })?;
        let deadline = number(cron, &["spec", "startingDeadlineSeconds"]);
        Ok(Self {
            schedule,
            policy: match text("concurrencyPolicy") {
                Some("Forbid") => Policy::Forbid,
                Some("Replace") => Policy::Replace,
                _ => Policy::Allow,
            },
            suspended: cron.at(&["spec", "suspend"]).and_then(Value::as_bool) == Some(true),
            deadline: deadline.map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs())),
            successful: count("successfulJobsHistoryLimit", 3),
            failed: count("failedJobsHistoryLimit", 1),
        })
    }
}
