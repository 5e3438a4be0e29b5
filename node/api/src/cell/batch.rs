//! The cells of jobs and cron jobs.

use quorate_proto::{object::Object, world::Timestamp};
use serde_json::Value;

use super::NONE;
use crate::age;

/// How a job is, in a word.
pub(super) fn job_status(job: &Object) -> &'static str {
    let said = |conditions: &[&'static str]| conditions.iter().copied().find(|condition| job.is_true(condition));
    match said(&["Complete", "Failed"]) {
        Some(done) => done,
        None if job.deletion_timestamp().is_some() => "Terminating",
        None => said(&["Suspended", "FailureTarget", "SuccessCriteriaMet"]).unwrap_or("Running"),
    }
}

/// How many of a job's completions are done.
pub(super) fn job_completions(job: &Object) -> String {
    let number = |path: &[&str]| job.at(path).and_then(Value::as_i64);
    let succeeded = number(&["status", "succeeded"]).unwrap_or_default();
    match (number(&["spec", "completions"]), number(&["spec", "parallelism"])) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

/// How long a job took, or has taken so far.
pub(super) fn job_duration(job: &Object, now: Timestamp) -> String {
    let end = job.text(&["status", "completionTime"]).and_then(|time| time.parse().ok()).unwrap_or(now);
    job.text(&["status", "startTime"]).map_or_else(String::new, |start| age::since(start, end))
}

/// Whether a cron job is suspended.
pub(super) fn cronjob_suspend(cron: &Object) -> &'static str {
    match cron.at(&["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

/// How many runs of a cron job are at work.
pub(super) fn cronjob_active(cron: &Object) -> usize {
    cron.at(&["status", "active"]).and_then(Value::as_array).map_or(0, Vec::len)
}

/// How long ago a cron job was last run.
pub(super) fn cronjob_last_schedule(cron: &Object, now: Timestamp) -> String {
    cron.text(&["status", "lastScheduleTime"]).map_or_else(|| NONE.to_owned(), |time| age::since(time, now))
}
